// Lists: the signed cursor from page to page, and the forms that a page is given in (JSON, CSV, NDJSON).
import { createHmac, timingSafeEqual } from 'node:crypto';
import type { Column, Format } from '../../schemas/apis/openapi.ts';

// ---- cursors ---------------------------------------------------------------------------------------------------------

/** What a cursor is good for: one query of one endpoint. */
export interface CursorScope {
  readonly endpoint: string;
  /** Sort field and direction. */
  readonly sort: string;
  /** Everything else that the rows depend on, in one canonical form; limit and display timezone do not. */
  readonly query: readonly unknown[];
}
/** The last row of a page: its time (milliseconds, or an instant's text) and id; and the total that the first page counted. */
export interface Keyset { readonly time: number | string; readonly id: string; readonly total: number | null }

/** Of a request that is wrong in part: null is what cannot be read of it. */
export interface ReadableScope { readonly endpoint: string; readonly sort: string | null; readonly query: readonly unknown[] | null }

export type CursorRead = { readonly kind: 'keyset'; readonly keyset: Keyset } | { readonly kind: 'refused'; readonly code: 'invalidCursor' | 'cursorAndSortMismatch' };

const MAC_BYTES = 16;
const QUERY_BYTES = 12;

/** Base64url of HMAC ‖ JSON. Nothing of it is kept here: it is good for ever, across restarts and replays. */
export function writeCursor(key: Uint8Array, scope: CursorScope, keyset: Keyset): string {
  const payload = Buffer.from(JSON.stringify([scope.endpoint, scope.sort, fingerprint(key, scope.query), keyset.time, keyset.id, keyset.total]));
  return Buffer.concat([mac(key, payload), payload]).toString('base64url');
}

/** What cannot be read of the request is not compared. */
export function readCursor(key: Uint8Array, scope: ReadableScope, cursor: string): CursorRead {
  const invalid: CursorRead = { kind: 'refused', code: 'invalidCursor' };
  const payload = signedPayload(key, cursor);
  if (payload === null) return invalid;
  // Signed by us, so it is what `writeCursor` wrote.
  const [endpoint, sort, query, time, id, total] = JSON.parse(payload.toString()) as [string, string, string, number | string, string, number | null];
  if (endpoint !== scope.endpoint) return invalid;
  if (scope.sort !== null && sort !== scope.sort) return { kind: 'refused', code: 'cursorAndSortMismatch' };
  if (scope.query !== null && query !== fingerprint(key, scope.query)) return invalid;
  return { kind: 'keyset', keyset: { time, id, total } };
}

function signedPayload(key: Uint8Array, cursor: string): Buffer | null {
  const bytes = Buffer.from(cursor, 'base64url');
  // Decoding is lenient: only the one spelling that was given is taken.
  if (bytes.length <= MAC_BYTES || bytes.toString('base64url') !== cursor) return null;
  const payload = bytes.subarray(MAC_BYTES);
  return timingSafeEqual(mac(key, payload), bytes.subarray(0, MAC_BYTES)) ? payload : null;
}

function mac(key: Uint8Array, payload: Uint8Array): Buffer {
  return createHmac('sha256', key).update('cursor\0').update(payload).digest().subarray(0, MAC_BYTES);
}

/** Keyed, so that a cursor gives no customer's value away to whoever guesses it. */
function fingerprint(key: Uint8Array, query: CursorScope['query']): string {
  return createHmac('sha256', key).update('query\0').update(JSON.stringify(query)).digest().subarray(0, QUERY_BYTES).toString('base64url');
}

// ---- forms -----------------------------------------------------------------------------------------------------------

/** One element of a list. `json` is its text where that must not pass through a parser (a CloudEvent, verbatim). */
export interface ListRow { readonly value: object; readonly json?: string }

export interface Page {
  readonly kind: 'page';
  readonly rows: readonly ListRow[];
  /** Members of the JSON answer before `data` and after it. */
  readonly before?: Readonly<Record<string, unknown>>;
  readonly after?: Readonly<Record<string, unknown>>;
  /** The JSON answer, where that is no list with members around it. */
  readonly whole?: unknown;
  readonly cursor: string | null;
  readonly total: number | null;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Which form a request asks for: `format` before Accept, JSON for everything else. */
export function formatOf(format: unknown, accept: string | undefined): Format {
  if (format === 'csv' || format === 'ndjson' || format === 'json') return format;
  let best: Format = 'json';
  let weight = 0;
  for (const part of (accept ?? '').split(',')) {
    const [type = '', ...parameters] = part.trim().toLowerCase().split(/\s*;\s*/);
    const q = Number(parameters.find((parameter) => parameter.startsWith('q='))?.slice(2) ?? 1);
    const found = FORMAT_OF_TYPE[type];
    if (found === undefined || !(q > weight)) continue;
    best = found;
    weight = q;
  }
  return best;
}

const FORMAT_OF_TYPE: Readonly<Record<string, Format | undefined>> = {
  'application/json': 'json', 'application/*': 'json', '*/*': 'json', 'text/csv': 'csv', 'application/x-ndjson': 'ndjson', 'application/ndjson': 'ndjson', 'application/jsonl': 'ndjson',
};

export function printPage(page: Page, format: Format, columns: readonly Column[], explode: string | undefined): string {
  switch (format) {
    case 'json': {
      if (page.whole !== undefined) return JSON.stringify(page.whole);
      const members = [
        ...Object.entries(page.before ?? {}).map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`),
        `"data":[${page.rows.map(jsonOf).join(',')}]`,
        ...Object.entries(page.after ?? {}).map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`),
      ];
      return `{${members.join(',')}}`;
    }
    case 'ndjson': return page.rows.map((row) => `${jsonOf(row)}\n`).join('');
    case 'csv': return printCsv(page.rows, columns, explode);
  }
}

function jsonOf(row: ListRow): string { return row.json ?? JSON.stringify(row.value); }

/** RFC 4180, CRLF at the line's end. */
function printCsv(rows: readonly ListRow[], columns: readonly Column[], explode: string | undefined): string {
  const lines = [columns.map(({ name }) => csvField(name)).join(',')];
  for (const { value } of rows) {
    const record = value as Readonly<Record<string, unknown>>;
    const items = explode === undefined ? [record] : (record[explode] as readonly unknown[]).map((item) => ({ ...record, [explode]: item }));
    for (const item of items) lines.push(columns.map(({ path }) => csvField(cellOf(item, path, 0))).join(','));
  }
  return `${lines.join('\r\n')}\r\n`;
}

/** The text of a column: arrays are joined by `; ` (each item's place is kept, so that columns of one array line up). */
function cellOf(value: unknown, path: readonly string[], at: number): string {
  if (value === null || value === undefined) return '';
  if (Array.isArray(value)) return value.map((item) => cellOf(item, path, at)).join('; ');
  const name = path[at];
  if (name !== undefined) return typeof value === 'object' ? cellOf((value as Readonly<Record<string, unknown>>)[name], path, at + 1) : '';
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/**
 * Quotes where it must. A text that a spreadsheet would run as a formula gets an apostrophe before it (OWASP, "CSV
 * Injection"); numbers keep their sign, and so does a phone number: `+` with digits alone runs nothing.
 */
function csvField(text: string): string {
  const harmless = /^[+-]?\d[\d ()./-]*$/.test(text) || !/^[=+\-@\t\r]/.test(text);
  const guarded = harmless ? text : `'${text}`;
  return /[",\r\n]/.test(guarded) || guarded !== guarded.trim() ? `"${guarded.replaceAll('"', '""')}"` : guarded;
}
