// Writes the part of schemas/README.md that is made from the zod schemas of the `throughline` vocabulary, with each
// type's example taken from the example day.
//
//   node test/schemas/readme.ts        after a change of schemas/vocabularies/throughline.ts
import { readFileSync, writeFileSync } from 'node:fs';
import { z } from 'zod';
import { PARTS, TYPES } from '../../schemas/vocabularies/throughline.ts';

const README = new URL('../../schemas/README.md', import.meta.url);
const DAY = new URL('../fixtures/example-day.ndjson', import.meta.url);
export const MARK = '<!-- from here on written by test/schemas/readme.ts -->';
const WIDTH = 118;

/** JSON that breaks a line only where it would be too long. */
function pretty(value: unknown, indent = ''): string {
  const flat = JSON.stringify(value).replaceAll(/("(?:[^"\\]|\\.)*")|([:,])/g, (_, string: string | undefined, mark: string) => string ?? `${mark} `);
  if (indent.length + flat.length <= WIDTH || typeof value !== 'object' || value === null) return flat;
  const deeper = `${indent}  `;
  const rows = Array.isArray(value)
    ? value.map((item) => pretty(item, deeper))
    : Object.entries(value).map(([key, member]) => `${JSON.stringify(key)}: ${pretty(member, deeper)}`);
  const [open, close] = Array.isArray(value) ? ['[', ']'] : ['{', '}'];
  return `${open}\n${rows.map((row) => deeper + row).join(',\n')}\n${indent}${close}`;
}

const fenced = (value: unknown): string => `\`\`\`json\n${pretty(value)}\n\`\`\``;
const anchor = (type: string): string => type.toLowerCase().replaceAll('.', '');

type Schema = Readonly<Record<string, unknown>>;

/** The same schema, said shorter: a nullable text has two types; what zod adds to name a schema stands in `$defs` already. */
function shorter(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(shorter);
  if (typeof value !== 'object' || value === null) return value;
  const { anyOf, ...rest } = value as Schema;
  const [only, none] = Array.isArray(anyOf) && anyOf.length === 2 ? (anyOf as Schema[]) : [];
  const nullable = only !== undefined && typeof only['type'] === 'string' && none?.['type'] === 'null';
  const whole: Schema = nullable ? { ...only, type: [only['type'], 'null'], ...rest } : (value as Schema);
  return Object.fromEntries(Object.entries(whole).filter(([key]) => key !== '$schema' && key !== '$id').map(([key, member]) => [key, shorter(member)]));
}

const SHARED = 'Interaction';

/** What every event of an interaction may say, by reference. */
function byReference(schema: Schema, shared: Schema): Schema {
  const own = schema['properties'] as Schema;
  const common = shared['properties'] as Schema;
  const required = schema['required'] as readonly string[] | undefined;
  if (!('interactionId' in own)) return schema;
  const properties = Object.fromEntries(Object.entries(own).filter(([name]) => !(name in common)));
  const more = required?.filter((name) => name !== 'interactionId' && own[name] !== undefined) ?? [];
  return { $ref: `#/$defs/${SHARED}`, ...(Object.keys(properties).length === 0 ? {} : { properties }), ...(more.length === 0 ? {} : { required: more }) };
}

/** Every schema by its name, with the shared parts as references into one `$defs`. */
export function jsonSchemas(): Readonly<Record<string, Schema>> {
  const registry = z.registry<{ id: string }>();
  for (const [id, schema] of Object.entries(PARTS)) registry.add(schema, { id });
  for (const [id, { schema }] of Object.entries(TYPES)) registry.add(schema, { id });
  const { schemas } = z.toJSONSchema(registry, { io: 'input', uri: (id) => `#/$defs/${id}` });
  const made = shorter(schemas) as Record<string, Schema>;
  const shared = made[SHARED] ?? {};
  return Object.fromEntries(Object.entries(made).map(([name, schema]) => [name, name === SHARED ? schema : byReference(schema, shared)]));
}

interface Example { readonly type: string; readonly data: unknown }

function examples(): ReadonlyMap<string, Example> {
  const found = new Map<string, Example>();
  for (const line of readFileSync(DAY, 'utf8').trim().split('\n')) {
    const event = JSON.parse(line) as Example;
    if (!found.has(event.type)) found.set(event.type, event);
  }
  return found;
}

/** The generated part, its mark included. */
export function generated(): string {
  const schemas = jsonSchemas();
  const example = examples();
  const chapters = Object.entries(TYPES).map(([type, { about }]) => [
    `### ${type}`, '', about, '', fenced(example.get(type)?.data), '', fenced(schemas[type]), '',
  ].join('\n'));
  const parts = Object.fromEntries(Object.keys(PARTS).map((name) => [name, schemas[name]]));
  return [
    MARK, '', ...Object.entries(TYPES).map(([type, { about }]) => `- [\`${type}\`](#${anchor(type)}): ${about}`), '',
    'A whole event:', '', fenced(example.get(Object.keys(TYPES)[0] ?? '')), '',
    'Below stand, for each type, the `data` of an example and its schema.', '',
    '### The shared parts', '', fenced({ $schema: 'https://json-schema.org/draft/2020-12/schema', $defs: parts }), '', chapters.join('\n'),
  ].join('\n');
}

export function readme(): string {
  return readFileSync(README, 'utf8');
}

/** The README as it should be. */
export function renewed(): string {
  return `${readme().split(MARK)[0] ?? ''}${generated()}`;
}

if (import.meta.main) writeFileSync(README, renewed());
