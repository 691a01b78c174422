// What an endpoint is, as data, and the OpenAPI 3.1 document made of a list of them. The same zod schemas parse the
// requests, so that the document cannot say anything else than what is done.
import { z } from 'zod';

/** What went wrong, in any of the APIs' own forms: each dialect prints it in its own way. */
export interface Problem {
  readonly code: string;
  readonly message: string;
  /** The parameter, field or attribute it is about. */
  readonly attribute?: string;
  /** What the caller can do. */
  readonly suggestion?: string;
  readonly more?: Readonly<Record<string, string | number | null>>;
}

/** How one API prints its problems. */
export interface Dialect {
  readonly errorSchema: z.ZodType;
  readonly print: (problems: readonly Problem[]) => unknown;
  /** Zod's issues as problems: all of them, in the order of the fields. */
  readonly problemsOf: (error: z.ZodError) => readonly Problem[];
  /** The problem as it is told for a code of the dialect's own; null for one that is not. */
  readonly problemOf: (code: string) => Problem | null;
  /** The dialect's own code where it has one for a code of ours (`unknownPath` → `invalidApiPath`). */
  readonly renamed: Readonly<Record<string, string>>;
}

/** A list answer, which is also given as CSV and NDJSON. */
export interface ListShape {
  /** One element of `data`, from which the CSV's columns are made. */
  readonly row: z.ZodType;
  /** A property of the element whose items get a CSV line each, the element's other columns repeated. */
  readonly explode?: string;
}

export type Body<B extends z.ZodType> = { readonly kind: 'none' } | { readonly kind: 'json'; readonly schema: B } | { readonly kind: 'cloudevents' };

export interface Endpoint<P extends z.ZodType = z.ZodType, Q extends z.ZodType = z.ZodType, B extends z.ZodType = z.ZodType> {
  /** The OpenAPI operation id. */
  readonly name: string;
  readonly method: 'GET' | 'POST';
  /** `/journeys/{id}` */
  readonly path: string;
  readonly tag: string;
  readonly summary: string;
  readonly description: string;
  readonly dialect: Dialect;
  readonly access: 'key' | 'open';
  /** A request counts against the rate limit of its key, which all such endpoints share. */
  readonly limited?: true;
  /** The groups whose views answer: their positions are stated and waited for. */
  readonly reads: readonly ('journeys' | 'persons')[];
  readonly params: P;
  readonly query: Q;
  readonly body: Body<B>;
  readonly answer: { readonly schema: z.ZodType; readonly mediaType: string; readonly example?: unknown };
  readonly list: ListShape | null;
  /** Codes that it refuses with beside those that every endpoint has. */
  readonly refusals: readonly string[];
  readonly requestExample?: unknown;
}

/** Keeps the schemas' types, which a handler's parameters come from. */
export function endpoint<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType>(given: Endpoint<P, Q, B>): Endpoint<P, Q, B> {
  return given;
}

export type JsonSchema = Record<string, unknown>;

/** JSON Schema 2020-12 of what a schema takes in (or gives out), without the `$schema` line that OpenAPI already implies. */
export function jsonSchemaOf(schema: z.ZodType, io: 'input' | 'output'): JsonSchema {
  const made = z.toJSONSchema(schema, { target: 'draft-2020-12', io, unrepresentable: 'any' }) as JsonSchema;
  return Object.fromEntries(Object.entries(made).filter(([name]) => name !== '$schema'));
}

/** Status of every code that an endpoint may refuse with; needed to sort its refusals under their statuses. */
export type StatusOf = (code: string) => number;
/** What a code of another dialect says. */
export type ProblemOf = (code: string) => Problem;

const FORMATS = ['json', 'csv', 'ndjson'] as const;
export type Format = (typeof FORMATS)[number];
export const MEDIA_TYPES: Readonly<Record<Format, string>> = { json: 'application/json', csv: 'text/csv', ndjson: 'application/x-ndjson' };
/** Every list endpoint takes it, whatever else it takes. */
export const formatParameter = z.enum(FORMATS).optional().meta({ description: 'The form of the answer; the Accept header does the same.' });

/** Whoever asks with a key asks a store: what it answers may be that it cannot (services/errors.ts has these codes). */
const ANY_REFUSALS = ['unauthorized', 'malformedUrl', 'headersTooLarge', 'internal', 'starting', 'overloaded', 'storeUnavailable', 'storeBusy', 'storeClosed', 'storeCorrupt', 'storeUnfit'] as const;
const VIEW_REFUSALS = ['building', 'notYet', 'badPosition', 'foreignPosition', 'positionPastHead', 'viewsUnavailable', 'viewMissing'] as const;
/** Of a store that is written to; a request that counts against a limit is. */
export const WRITE_REFUSALS = ['storeFull', 'storeReadOnly'] as const;
const BODY_REFUSALS = ['bodyTooLarge', 'unsupportedMediaType', 'malformedJson'] as const;

/** Every code that this endpoint may refuse with, in its dialect's names. */
export function refusalsOf(one: Endpoint): readonly string[] {
  const codes = [...(one.access === 'key' ? ANY_REFUSALS : ['internal']), ...(one.limited === true ? ['rateLimited', ...WRITE_REFUSALS] : []), ...(one.reads.length > 0 ? VIEW_REFUSALS : []), ...(one.body.kind === 'none' ? [] : BODY_REFUSALS), ...one.refusals];
  return [...new Set(codes.map((code) => one.dialect.renamed[code] ?? code))];
}

/** The OpenAPI 3.1 document. `version` is the program's. */
export function openApi(endpoints: readonly Endpoint[], statusOf: StatusOf, problemOf: ProblemOf, version: string): JsonSchema {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const one of endpoints) (paths[one.path] ??= {})[one.method.toLowerCase()] = operation(one, statusOf, problemOf);
  return {
    openapi: '3.1.0',
    info: {
      title: 'Throughline', version, license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      description: 'An open, event-sourced customer-journey store: publish CloudEvents, ask for journeys, transitions, outcomes, persons and histories.',
    },
    servers: [{ url: '/' }],
    tags: [...new Map(endpoints.map((one) => [one.tag, one.dialect]))].map(([name, dialect]) => ({ name, description: missedText(dialect) })),
    security: [{ apiKey: [] }, { bearer: [] }],
    paths,
    components: {
      securitySchemes: {
        apiKey: { type: 'apiKey', in: 'header', name: 'x-api-key', description: 'A key of one workspace, as `throughline keys create` prints it.' },
        bearer: { type: 'http', scheme: 'bearer', description: 'The same key.' },
      },
      responses: Object.fromEntries([...new Set(endpoints.map((one) => one.dialect))].flatMap((dialect) => missed(dialect).map((code) => [code, refusal(dialect, [code], statusOf(code), problemOf)]))),
    },
  };
}

/** What is said where no operation is met: a path that there is not, a method that a path does not take. */
function missed(dialect: Dialect): readonly string[] { return ['unknownPath', 'methodNotAllowed'].map((code) => dialect.renamed[code] ?? code); }
function missedText(dialect: Dialect): string {
  const [path = '', method = ''] = missed(dialect);
  return `A path that there is not is answered with 404 \`${path}\`, a method that a path does not take with 405 \`${method}\` and the header Allow.`;
}

function operation(one: Endpoint, statusOf: StatusOf, problemOf: ProblemOf): JsonSchema {
  return {
    operationId: one.name, tags: [one.tag], summary: one.summary, description: one.description,
    security: one.access === 'open' ? [] : [{ apiKey: [] }, { bearer: [] }],
    parameters: parametersOf(one),
    ...requestBody(one),
    responses: { '200': success(one), ...failures(one, statusOf, problemOf) },
  };
}

function parametersOf(one: Endpoint): readonly JsonSchema[] {
  return [
    ...fieldsOf(one.params).map(({ name, schema }) => ({ name, in: 'path', required: true, ...describe(schema) })),
    ...fieldsOf(one.query).map(({ name, schema, required }) => ({ name, in: 'query', required, ...describe(schema) })),
    ...(one.list === null ? [] : [{ name: 'format', in: 'query', required: false, ...describe(jsonSchemaOf(formatParameter, 'input')) }]),
    ...(one.reads.length === 0 ? [] : [{
      name: 'Throughline-Min-Position', in: 'header', required: false, schema: { type: 'string' },
      description: 'The answer has seen at least this position: it waits up to 2 s, then is refused with 412 `notYet`.',
    }]),
  ];
}

function describe(schema: JsonSchema): JsonSchema {
  const { description, examples, ...rest } = schema;
  const example = Array.isArray(examples) ? (examples as unknown[])[0] : undefined;
  return { ...(description === undefined ? {} : { description }), ...(example === undefined ? {} : { example }), schema: rest };
}

function fieldsOf(schema: z.ZodType): readonly { name: string; schema: JsonSchema; required: boolean }[] {
  const { properties, required } = jsonSchemaOf(schema, 'input') as { properties?: Record<string, JsonSchema>; required?: readonly string[] };
  return Object.entries(properties ?? {}).map(([name, field]) => ({ name, schema: field, required: required?.includes(name) ?? false }));
}

function requestBody(one: Endpoint): JsonSchema {
  const example = one.requestExample === undefined ? {} : { example: one.requestExample };
  switch (one.body.kind) {
    case 'none': return {};
    case 'json': return { requestBody: { required: true, content: { 'application/json': { schema: jsonSchemaOf(one.body.schema, 'input'), ...example } } } };
    case 'cloudevents': return {
      requestBody: {
        required: true,
        description: 'CloudEvents 1.0: structured, a batch of structured ones, or binary (attributes in `ce-` headers, the body is the data).',
        content: {
          'application/cloudevents+json': { schema: cloudEventSchema, ...example },
          'application/cloudevents-batch+json': { schema: { type: 'array', items: cloudEventSchema } },
          '*/*': { schema: { description: 'The data of an event in binary mode.' } },
        },
      },
    };
  }
}

const cloudEventSchema: JsonSchema = {
  type: 'object', required: ['specversion', 'id', 'source', 'type'],
  properties: {
    specversion: { const: '1.0' }, id: { type: 'string', minLength: 1 }, source: { type: 'string', minLength: 1 }, type: { type: 'string', minLength: 1 },
    time: { type: 'string', format: 'date-time' }, subject: { type: 'string' }, datacontenttype: { type: 'string' },
    identity: { type: 'string' }, identitytype: { type: 'string' }, previousidentity: { type: 'string' }, data: {}, data_base64: { type: 'string' },
  },
  additionalProperties: { type: ['string', 'number', 'boolean'] },
};

function success(one: Endpoint): JsonSchema {
  const example = one.answer.example === undefined ? {} : { example: one.answer.example };
  const lines = one.list === null ? {} : { [MEDIA_TYPES.csv]: { schema: { type: 'string' } }, [MEDIA_TYPES.ndjson]: { schema: { type: 'string' } } };
  const headers = {
    ...(one.reads.length > 0 || one.body.kind === 'cloudevents' ? { 'Throughline-Position': textHeader('Where the view that answered stands, or the written event.') } : {}),
    ...(one.reads.length > 0 ? { 'Throughline-Stale': textHeader('The groups that another version of the program folded, after an upgrade or a rollback: the answer may be old.') } : {}),
    ...(one.list === null ? {} : { 'Throughline-Next-Cursor': textHeader('CSV and NDJSON: the cursor of the next page; missing on the last.'), 'Throughline-Total': textHeader('CSV and NDJSON: how many there are in all, where it is counted.') }),
  };
  return { description: one.summary, headers, content: { [one.answer.mediaType]: { schema: jsonSchemaOf(one.answer.schema, 'output'), ...example }, ...lines } };
}

function textHeader(description: string): JsonSchema { return { description, schema: { type: 'string' } }; }

/** Said with each of these statuses: what to do, or when to come again. */
const STATUS_HEADERS: Readonly<Record<number, Readonly<Record<string, string>>>> = {
  401: { 'WWW-Authenticate': 'Bearer.' },
  405: { Allow: 'The methods that the path takes.' },
  412: { 'Retry-After': 'Whole seconds.', 'Throughline-Position': 'Where the view stands.' },
  429: { 'Retry-After': 'Whole seconds until the next request is taken.' },
  503: { 'Retry-After': 'Whole seconds; left out where it will not pass by itself.' },
};

/** One response per status; its description lists the codes, and each has its example. */
function failures(one: Endpoint, statusOf: StatusOf, problemOf: ProblemOf): JsonSchema {
  const byStatus = new Map<number, string[]>();
  for (const code of refusalsOf(one)) byStatus.set(statusOf(code), [...(byStatus.get(statusOf(code)) ?? []), code]);
  return Object.fromEntries([...byStatus].sort(([a], [b]) => a - b).map(([status, codes]) => [String(status), refusal(one.dialect, codes, status, problemOf)]));
}

function refusal(dialect: Dialect, codes: readonly string[], status: number, problemOf: ProblemOf): JsonSchema {
  const exampleOf = (code: string): unknown => dialect.print([dialect.problemOf(code) ?? { ...problemOf(code), code }]);
  return {
    description: codes.map((code) => `\`${code}\``).join(', '),
    ...(STATUS_HEADERS[status] === undefined ? {} : { headers: Object.fromEntries(Object.entries(STATUS_HEADERS[status]).map(([name, text]) => [name, textHeader(text)])) }),
    content: { 'application/json': { schema: jsonSchemaOf(dialect.errorSchema, 'output'), examples: Object.fromEntries(codes.map((code) => [code, { value: exampleOf(code) }])) } },
  };
}

export interface Column { readonly name: string; readonly path: readonly string[] }

/** The columns of a list's CSV: its rows' scalar properties in order, nested ones dotted; an array is one column (of scalars) or one per property of its items. */
export function columnsOf(shape: ListShape): readonly Column[] {
  const columns: Column[] = [];
  const walk = (schema: JsonSchema, path: readonly string[]): void => {
    const options = (schema['anyOf'] as readonly JsonSchema[] | undefined)?.filter((option) => option['type'] !== 'null');
    const actual = options?.[0] ?? schema;
    const items = actual['items'] as JsonSchema | undefined;
    const properties = (items?.['properties'] ?? actual['properties']) as Record<string, JsonSchema> | undefined;
    if (properties === undefined) {
      if (items?.['anyOf'] !== undefined) walk(items, path);
      else columns.push({ name: path.join('.'), path });
      return;
    }
    for (const [name, field] of Object.entries(properties)) walk(field, [...path, name]);
  };
  walk(jsonSchemaOf(shape.row, 'output'), []);
  return columns;
}
