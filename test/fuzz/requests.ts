// Requests by seed, over every operation of an OpenAPI document: sound ones with what earlier answers gave (ids, cursors,
// positions), and such with one thing or several wrong.
import { type Seeded } from '../support/seeded.ts';
import { jsonOf, mutatedBytes, mutatedValue, ODD_TEXTS, oddValue } from './mutation.ts';
import type { Answer, Sent } from './wire.ts';

interface Parameter { readonly name: string; readonly in: 'path' | 'query' | 'header'; readonly required: boolean; readonly schema: { readonly enum?: readonly string[]; readonly type?: string; readonly format?: string }; readonly example?: string }
export interface Operation {
  readonly operationId: string;
  readonly method: string;
  readonly path: string;
  readonly parameters: readonly Parameter[];
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly example?: unknown }>> };
  readonly responses: Readonly<Record<string, { readonly content?: Readonly<Record<string, unknown>> }>>;
}

export function operationsOf(document: { readonly paths: Readonly<Record<string, Readonly<Record<string, Omit<Operation, 'method' | 'path'>>>>> }): readonly Operation[] {
  return Object.entries(document.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => ({ ...operation, method: method.toUpperCase(), path })));
}

/** A request and what it is: of which operation, where nothing of its method and path was changed. */
export interface Made { readonly sent: Sent; readonly operation: Operation | null }

type Known = 'identity' | 'journey' | 'person' | 'cursor' | 'position';
/** So much of each kind is kept. */
const KEPT = 40;
const METHODS = ['GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'HEAD', 'OPTIONS', 'TRACE', 'PROPFIND', 'get', 'FOO'];
const TYPES = ['application/json', 'application/cloudevents+json', 'application/cloudevents-batch+json', 'text/plain', 'application/json; charset=utf-16', 'application/x-www-form-urlencoded', 'multipart/form-data', '', ';;', 'application/xml'];
const ACCEPTS = ['text/csv', 'application/x-ndjson', 'application/json', '*/*', 'text/html', 'text/csv;q=0', 'text/csv;q=abc, application/x-ndjson;q=0.1', '', ',,;;q', 'application/*;q=1e9'];
/** What clients and proxies send, and what they should not. */
const HEADERS: readonly (readonly [name: string, values: readonly string[]])[] = [
  ['Accept', ACCEPTS], ['Content-Type', TYPES], ['Content-Encoding', ['gzip', 'identity', 'br', 'x', 'gzip, gzip', '']], ['Expect', ['100-continue', '200-ok']], ['If-None-Match', ['*', '"x"']], ['Range', ['bytes=0-1', 'x']],
  ['X-Forwarded-For', ['1.2.3.4', 'x']], ['X-HTTP-Method-Override', ['DELETE']], ['Origin', ['null', 'http://evil.example']], ['Cookie', ['a=b', ';;;']], ['Accept-Language', ['*', 'x'.repeat(4000)]], ['Upgrade', ['websocket', 'h2c']],
  ['Authorization', ['Bearer', 'Bearer x', 'Basic eDp5', 'bearer  ', 'Bearer a b']], ['x-api-key', ['', 'x', 'y'.repeat(5000), 'ÿ']], ['Throughline-Min-Position', ['', '0', 'x.1', '..', '-1', '9'.repeat(90)]], ['X-Long', ['z'.repeat(20_000)]],
];
const ZONES = ['UTC', 'Europe/Bucharest', 'America/New_York', '+02:00', 'utc', 'Asia/Calcutta'];
const INSTANTS = ['2026-03-02T00:00:00Z', '2026-03-03T00:00:00Z', '2026-03-02T09:07:00+02:00', '2026-01-01T00:00:00Z', '2026-12-31T00:00:00Z', '0001-01-01T00:00:00Z', '9999-12-31T23:59:59Z'];
const LARGE = 300 * 1024;

export class Requests {
  readonly #chance: Seeded;
  readonly #operations: readonly Operation[];
  readonly #events: readonly string[];
  readonly #key: string;
  /** What earlier answers gave, by what it is. */
  readonly #known: Readonly<Record<Known, string[]>> = { identity: ['ana@example.com'], journey: [], person: [], cursor: [], position: [] };

  constructor(chance: Seeded, given: { readonly operations: readonly Operation[]; readonly events: readonly string[]; readonly key: string }) {
    this.#chance = chance;
    this.#operations = given.operations;
    this.#events = given.events;
    this.#key = given.key;
    for (const line of given.events) this.#keep('identity', (JSON.parse(line) as { readonly identity?: string }).identity);
  }

  next(): Made {
    const chance = this.#chance;
    const operation = chance.pick(this.#operations);
    const sound = this.#sound(operation);
    if (chance.below(5) < 2) return { sent: sound, operation };
    let made: Made = { sent: sound, operation };
    for (let times = 1 + chance.below(3); times > 0; times -= 1) made = this.#mutated(made);
    return made;
  }

  /** Takes from an answer what later requests can ask for. */
  learn(answer: Answer): void {
    this.#keep('position', answer.headers.get('throughline-position') ?? answer.headers.get('throughline-head'));
    this.#keep('cursor', answer.headers.get('throughline-next-cursor'));
    if (answer.status !== 200 || answer.body.length > LARGE) return;
    const text = answer.body.toString();
    for (const [, name, value] of text.matchAll(/"(journeyId|personId|nextPageCursor)":"([^"\\]+)"/g)) this.#keep(name === 'journeyId' ? 'journey' : name === 'personId' ? 'person' : 'cursor', value);
  }

  #keep(what: Known, value: string | undefined): void {
    if (value === undefined || this.#known[what].includes(value)) return;
    this.#known[what].push(value);
    if (this.#known[what].length > KEPT) this.#known[what].splice(this.#chance.below(KEPT), 1);
  }

  #one(what: Known): string { return this.#known[what].length === 0 ? 'none' : this.#chance.pick(this.#known[what]); }

  // ---- as they should be -----------------------------------------------------------------------------------------------

  #sound(operation: Operation): Sent {
    const chance = this.#chance;
    const query: string[] = [];
    const headers: [string, string | Uint8Array][] = chance.below(10) === 0 ? [['Authorization', `Bearer ${this.#key}`]] : [['x-api-key', this.#key]];
    let target = operation.path;
    for (const parameter of operation.parameters) {
      if (!parameter.required && chance.below(3) > 0) continue;
      const value = this.#value(operation, parameter);
      if (parameter.in === 'path') target = target.replace(`{${parameter.name}}`, encoded(value));
      else if (parameter.in === 'query') query.push(`${parameter.name}=${encoded(value)}`);
      else headers.push([parameter.name, this.#one('position')]);
    }
    if (chance.below(4) === 0) headers.push(['Accept', chance.pick(ACCEPTS.slice(0, 4))]);
    const { body, also } = this.#body(operation);
    return { method: operation.method === 'GET' && chance.below(20) === 0 ? 'HEAD' : operation.method, target: query.length === 0 ? target : `${target}?${query.join('&')}`, headers: [...headers, ...also], body, chunked: body.length > 0 && chance.below(10) === 0, framed: true };
  }

  #value({ path }: Operation, { name, schema, example }: Parameter): string {
    const chance = this.#chance;
    if (schema.enum !== undefined) return chance.pick(schema.enum);
    if (chance.below(12) === 0) return chance.pick(ODD_TEXTS);
    switch (name) {
      case 'identity': return this.#one('identity');
      case 'cursor': return this.#one('cursor');
      case 'id': return this.#one(path.startsWith('/persons') ? 'person' : 'journey');
      case 'timezone': return chance.pick(ZONES);
      case 'limit': return String(1 + chance.below(20));
      case 'from': return INSTANTS[0] ?? '';
      case 'to': return INSTANTS[1] ?? '';
      default: return example ?? chance.pick(ODD_TEXTS);
    }
  }

  #body(operation: Operation): { readonly body: Uint8Array; readonly also: readonly [string, string][] } {
    const content = operation.requestBody?.content;
    if (content === undefined) return { body: Buffer.alloc(0), also: [] };
    const example = content['application/json']?.example;
    if (example !== undefined) return { body: Buffer.from(JSON.stringify(this.#search(example as Record<string, unknown>))), also: [['Content-Type', 'application/json']] };
    return this.#publish();
  }

  /** A search as the document shows it, over all of the data, and going on where an earlier one ended. */
  #search(example: Readonly<Record<string, unknown>>): Record<string, unknown> {
    const chance = this.#chance;
    const { filters, ...rest } = example;
    const search: Record<string, unknown> = { ...rest, dateRange: { start: '2026-03-01T00:00:00Z', end: '2026-04-01T00:00:00Z' }, displayTimezone: chance.pick(ZONES), limit: 1 + chance.below(5) };
    if (chance.below(2) === 0) search['filters'] = filters;
    if (chance.below(3) === 0) search['nextPageCursor'] = this.#one('cursor');
    return search;
  }

  #publish(): { readonly body: Uint8Array; readonly also: readonly [string, string][] } {
    const chance = this.#chance;
    const line = (): string => {
      const text = chance.pick(this.#events);
      return chance.below(2) === 0 ? text : jsonOf(mutatedValue(JSON.parse(text), chance));
    };
    switch (chance.below(4)) {
      case 0: return { body: Buffer.from(`[${Array.from({ length: chance.below(5) }, line).join(',')}]`), also: [['Content-Type', 'application/cloudevents-batch+json']] };
      case 1: {
        const { data, datacontenttype, ...attributes } = JSON.parse(chance.pick(this.#events)) as Record<string, unknown>;
        return { body: Buffer.from(jsonOf(mutatedValue(data, chance))), also: [...Object.entries(attributes).map(([name, value]): [string, string] => [`ce-${name}`, encoded(String(value))]), ['Content-Type', typeof datacontenttype === 'string' ? datacontenttype : 'application/json']] };
      }
      default: return { body: Buffer.from(line()), also: [['Content-Type', 'application/cloudevents+json']] };
    }
  }

  // ---- as they should not be -------------------------------------------------------------------------------------------

  #mutated({ sent, operation }: Made): Made {
    const chance = this.#chance;
    const [path = '', query] = sent.target.split('?');
    const withQuery = (text: string): Made => ({ operation, sent: { ...sent, target: `${path}?${text}` } });
    switch (chance.below(12)) {
      case 0: return { operation: null, sent: { ...sent, method: chance.pick(METHODS) } };
      case 1: return { operation: null, sent: { ...sent, target: this.#elsewhere(path, query) } };
      case 2: return withQuery([query ?? '', `${chance.pick(['identity', 'limit', 'cursor', 'format', 'sort', 'dryRun', 'x', '__proto__', 'a[b]', 'limit[]', ''])}=${encoded(chance.pick(ODD_TEXTS))}`].join('&'));
      case 3: return withQuery((query ?? '').split('&').map((part) => (chance.below(2) === 0 ? part : `${part.split('=')[0] ?? ''}=${encoded(chance.pick(ODD_TEXTS))}`)).join('&'));
      case 4: return withQuery([query ?? '', ...(query ?? '').split('&')].join('&'));
      case 5: { const [name, values] = chance.pick(HEADERS); return { operation, sent: { ...sent, headers: [...sent.headers.filter(([known]) => known.toLowerCase() !== name.toLowerCase() || chance.below(3) === 0), [name, chance.pick(values)]] } }; }
      case 6: return { operation, sent: { ...sent, headers: sent.headers.filter(() => chance.below(2) === 0) } };
      case 7: return { operation, sent: { ...sent, body: mutatedBytes(sent.body, chance) } };
      case 8: return { operation, sent: { ...sent, body: this.#otherJson(sent.body) } };
      case 9: return { operation, sent: { ...sent, body: chance.below(10) > 0 ? Buffer.alloc(0) : Buffer.alloc(LARGE, chance.pick(['[', 'a', ' ', '{"a":'])) } };
      case 10: return { operation, sent: { ...sent, headers: [...sent.headers, [chance.pick(['Accept', 'X-Any', 'ce-id', 'ce-data', 'Content-Type']), printable(mutatedBytes(Buffer.from(chance.pick(ODD_TEXTS)), chance))]] } };
      // Nothing that a server can make sense of, and it may say so or hang up.
      default: return { operation: null, sent: { ...sent, framed: false, headers: [...sent.headers, chance.pick(BROKEN)] } };
    }
  }

  #elsewhere(path: string, query: string | undefined): string {
    const chance = this.#chance;
    const odd = encoded(chance.pick(ODD_TEXTS));
    const parts = path.split('/');
    const changed = [`${path}/`, `/${path}`, `${path}/${odd}`, path.toUpperCase(), parts.slice(0, -1).join('/') || '/', parts.with(-1, odd).join('/'), `/${odd}`, `${path}%`, `${path}%ff`, `${path}%00`, '*', `http://fuzz${path}`, `${path};x=1`, `${path}#x`, `/..${path}`];
    return [chance.pick(changed), ...(query === undefined ? [] : [query])].join('?');
  }

  #otherJson(body: Uint8Array): Uint8Array {
    try {
      return Buffer.from(jsonOf(mutatedValue(JSON.parse(Buffer.from(body).toString()), this.#chance)));
    } catch {
      return Buffer.from(jsonOf(oddValue(this.#chance)));
    }
  }
}

const BROKEN: readonly (readonly [string, string | Uint8Array])[] = [
  ['Content-Length', '100'], ['Content-Length', '-1'], ['Content-Length', '1, 2'], ['Transfer-Encoding', 'chunked, chunked'], ['Transfer-Encoding', 'x'], ['', 'no name'], ['a b', 'c'], ['X', Buffer.from([0])], ['X', 'a\r\nGET / HTTP/1.1'], ['X', '\r\n\r\n\r\n'], ['\u0000', 'x'],
];

/** Percent-encoded where it has to be; lone surrogates, which cannot be, become what stands for them. */
function encoded(text: string): string { return encodeURIComponent(text.toWellFormed()); }

/** Without what would end a header. */
function printable(bytes: Buffer): Uint8Array { return Buffer.from(bytes.filter((byte) => byte >= 0x20 && byte !== 0x7f)); }
