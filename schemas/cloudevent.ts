// CloudEvents 1.0: headers and bytes → an event, or a rejection. One decoder for structured, binary and (HTTP) batch mode,
// for HTTP and Kafka. Malformed input never throws; it is an expected outcome with a code.
//
// The bytes of `data` are the bytes received: JSON.parse would round integers beyond 2^53, respell numbers and drop
// duplicate keys. So the envelope is read by a scanner of our own, which checks the JSON grammar (RFC 8259) and remembers
// where `data` lies.
//
// Sources of the rules: CloudEvents 1.0.2 (spec.md), its JSON format, its HTTP binding and its Kafka binding.
import type { Instant } from './facts.ts';
import { parseInstant } from './time.ts';

export type AttributeValue = string | number | boolean;

export interface CloudEvent {
  readonly id: string;
  readonly source: string;
  readonly type: string;
  readonly time: Instant | null;
  /** Every context attribute as received, `specversion`, `time` and `datacontenttype` included; not `data`. */
  readonly attributes: Readonly<Record<string, AttributeValue>>;
  /** `json`: data is one JSON text; `text`: valid UTF-8; `binary`: any bytes; `none`: no data was sent. */
  readonly dataKind: 'none' | 'json' | 'text' | 'binary';
  /** The data's own bytes; empty for `none`. A view into the body received. */
  readonly data: Uint8Array;
}

/** Every rejection code with what it means. A total table: a code cannot be given without standing here. */
export const REJECTION_CODES = {
  notACloudEvent: 'neither the content type nor the headers say that this is a CloudEvent',
  unsupportedFormat: 'a structured event in another format than JSON (application/cloudevents+json)',
  unsupportedCharset: 'a structured event or batch in another charset than UTF-8',
  batchNotAllowed: 'a batch where one event belongs: Kafka has no batch mode, and a structured event is one object',
  tooLarge: 'attributes and data together have more bytes than an event may have',
  badUtf8: 'the event, or an attribute in a header, is not valid UTF-8',
  notJson: 'the body is not JSON as RFC 8259 defines it',
  notAnObject: 'the body, or an element of a batch, is JSON but no object',
  tooDeep: 'the data nests deeper than 512 levels',
  duplicateAttribute: 'a member of the envelope, or a header, is given twice',
  attributeName: 'an attribute name has other characters than a-z and 0-9, is longer than 64, or is `data` in a header',
  attributeType: 'an attribute is no string, boolean or integer, or one that has to be a string is none',
  attributeRange: 'an integer attribute outside the 32 bits that the specification allows',
  attributeCharacters: 'an attribute holds control characters, unpaired surrogates or noncharacters',
  missingAttribute: 'id, source, specversion or type is missing or null',
  emptyAttribute: 'an attribute that may not be empty is empty',
  unknownSpecversion: 'specversion is not 1.0',
  invalidTime: 'time is no RFC 3339 instant of the years 0000 to 9999',
  invalidContentType: 'datacontenttype is no media type (RFC 2046)',
  invalidBase64: 'data_base64 is no string in canonical base64 (RFC 4648 section 4)',
  dataTwice: 'both data and data_base64 are given',
  identityWithoutType: 'identity is given without identitytype',
  typeWithoutIdentity: 'identitytype is given without identity',
  missingIdentity: 'neither identity and identitytype nor subject is given',
  emptyIdentity: 'the identity, its type or the subject that stands in for it is empty after normalisation',
  wrongWorkspace: 'the key or topic may not write to this workspace',
  erased: 'the person was erased after this event happened',
} as const satisfies Record<string, string>;
export type RejectionCode = keyof typeof REJECTION_CODES;

/** Why an event was refused. Neither field ever quotes a value of the event. */
export interface Rejection { readonly code: RejectionCode; readonly attribute: string | null; readonly reason: string }
/** A code where people read it, with the attribute that the reason speaks of. */
export const codeOf = ({ code, attribute }: { readonly code: string; readonly attribute: string | null }): string => (attribute === null ? code : `${code} (${attribute})`);
/** `received`: its bytes as they came (of a binary event the body), for whoever tells one that is refused from others. `source` where it could be read, for the counts. */
export type Decoded = (
  | { readonly kind: 'event'; readonly event: CloudEvent }
  | { readonly kind: 'rejected'; readonly rejection: Rejection; readonly source: string | null }
) & { readonly received?: Uint8Array | undefined };
/** Null: a header without a value, as Kafka has them. */
export type HeaderValue = string | Uint8Array | null;
/** By name, those of one name in their order. */
export type Headers = Readonly<Record<string, HeaderValue | readonly HeaderValue[] | undefined>>;
const isMany = (value: Headers[string]): value is readonly HeaderValue[] => Array.isArray(value);
/** The values of one name, none where it was not sent. */
export function headerValues(value: Headers[string]): readonly HeaderValue[] {
  if (value === undefined) return [];
  return isMany(value) ? value : [value];
}
export type DecodedMessage = { readonly kind: 'one'; readonly decoded: Decoded } | { readonly kind: 'batch'; readonly elements: readonly Decoded[] };
export interface DecodeOptions { readonly maxEventBytes: number }
export interface MessageOptions extends DecodeOptions { readonly binding: 'http' | 'kafka' }

export const DEFAULT_MAX_EVENT_BYTES = 256 * 1024;
/** CloudEvents says names SHOULD have at most 20 characters; this is what we keep. */
export const MAX_ATTRIBUTE_NAME = 64;
/** Deeper data would overflow the stack of whoever folds or prints it. */
export const MAX_DEPTH = 512;

// ---- messages ----------------------------------------------------------------------------------------------------------

/** Any delivery: the mode is told by the content type, else by the headers. A batch is answered element by element. */
export function decodeMessage({ headers, body }: { readonly headers: Headers; readonly body: Uint8Array | null }, options: MessageOptions): DecodedMessage {
  const received = body ?? EMPTY;
  const message = readMessage(readHeaders(headers, options.binding), received, options);
  return message.kind === 'one' ? one({ ...message.decoded, received }) : message;
}

function readMessage(headers: HeadersRead, body: Uint8Array, options: MessageOptions): DecodedMessage {
  switch (modeOf(headers, body, options.binding)) {
    case 'structured':
      // On a topic it may be a tombstone, which has no body at all.
      if (body.length === 0 && options.binding === 'kafka') return one(refuse('notJson', null, 'the record is empty'));
      return badCharset(headers.contentType) ?? one(decodeStructured(body, options));
    case 'batch':
      if (options.binding === 'kafka') return one(refuse('batchNotAllowed', null, 'the Kafka binding has no batch mode'));
      return badCharset(headers.contentType) ?? decodeBatch(body, options);
    case 'binary':
      return one(decodeBinary(headers, body, options));
    case 'otherFormat':
      return one(refuse('unsupportedFormat', null, 'only application/cloudevents+json and, over HTTP, application/cloudevents-batch+json are read'));
    case 'none':
      return one(refuse('notACloudEvent', null, 'no CloudEvents content type and no CloudEvents headers'));
  }
}

function one(decoded: Decoded): DecodedMessage {
  return { kind: 'one', decoded };
}

function refuse(code: RejectionCode, attribute: string | null, reason: string, source: string | null = null): Decoded {
  return { kind: 'rejected', rejection: { code, attribute, reason }, source };
}

const EMPTY = new Uint8Array(0);
const BRACKET = 0x5b;
const BRACE = 0x7b;

/** Headers as they were found, before any is judged. */
interface HeadersRead {
  readonly contentType: string | null;
  /** Attributes by name, the content type as `datacontenttype`; of a name given twice the first, and it is a `problem`. */
  readonly attributes: ReadonlyMap<string, string>;
  readonly problem: Rejection | null;
}

/** Kafka and HTTP prefix attributes alike (CloudEvents Kafka binding 3.2.3, HTTP binding 3.1.3), with another separator. */
function readHeaders(headers: Headers, binding: 'http' | 'kafka'): HeadersRead {
  const prefix = binding === 'http' ? 'ce-' : 'ce_';
  const values = new Map<string, string>();
  let contentType: string | null = null;
  let problem: Rejection | null = null;
  for (const header of Object.keys(headers)) {
    const lower = header.toLowerCase();
    const isContentType = lower === 'content-type';
    if (!isContentType && !lower.startsWith(prefix)) continue;
    // HTTP names have no case; a Kafka header's name is the attribute's own, and may be wrong.
    const name = isContentType ? 'datacontenttype' : (binding === 'http' ? lower : header).slice(prefix.length);
    for (const sent of valuesOf(headers[header])) {
      const value = binding === 'http' ? httpValue(sent, isContentType) : kafkaValue(sent);
      const before = values.get(name);
      if (value === null) problem ??= { code: 'badUtf8', attribute: printableName(name), reason: 'the header is not valid UTF-8' };
      // The SDK for JavaScript sends the content type as ce_datacontenttype too; said twice alike, it is said once.
      else if (before !== undefined && (name !== 'datacontenttype' || before !== value)) {
        problem ??= { code: 'duplicateAttribute', attribute: printableName(name), reason: 'the header is given more than once' };
      } else {
        values.set(name, value);
        if (isContentType) contentType = value;
      }
    }
  }
  return { contentType, attributes: values, problem };
}

/** A header's values, whatever a driver made of them; none for null or undefined. */
function valuesOf(raw: unknown): (string | Uint8Array)[] {
  if (typeof raw === 'string' || raw instanceof Uint8Array) return [raw];
  return Array.isArray(raw) ? raw.filter((value): value is string | Uint8Array => typeof value === 'string' || value instanceof Uint8Array) : [];
}

function kafkaValue(value: string | Uint8Array): string | null {
  return typeof value === 'string' ? value : decodeUtf8(value);
}

const QUOTED = /^"(?:[^"\\]|\\.)*"$/s;
const HIGH = /[\u0080-\uffff]/;

/** HTTP binding 3.1.3.2: unquote, then one round of percent-decoding; null when that is no UTF-8. A content type is a header of HTTP's own and has neither. */
function httpValue(value: string | Uint8Array, isContentType: boolean): string | null {
  let text = (typeof value === 'string' ? asSent(value) : decodeUtf8(value))?.trim() ?? null;
  if (text === null || isContentType) return text;
  if (text.startsWith('"') && QUOTED.test(text)) text = text.slice(1, -1).replace(/\\(.)/gs, '$1');
  return text.includes('%') ? percentDecode(text) : text;
}

/** Node hands a header's bytes over as Latin-1. Producers that send raw UTF-8 against the rules are understood; other text stays as it is. */
function asSent(text: string): string {
  if (!HIGH.test(text)) return text;
  for (let at = 0; at < text.length; at += 1) if (text.charCodeAt(at) > 0xff) return text;
  return decodeUtf8(Buffer.from(text, 'latin1')) ?? text;
}

/** Sequences that are no `%` and two hex digits stay as they are: producers forget to encode a percent sign. */
function percentDecode(text: string): string | null {
  const parts: Buffer[] = [];
  let from = 0;
  for (const match of text.matchAll(/(?:%[0-9A-Fa-f]{2})+/g)) {
    parts.push(Buffer.from(text.slice(from, match.index)), Buffer.from(match[0].replaceAll('%', ''), 'hex'));
    from = match.index + match[0].length;
  }
  return decodeUtf8(Buffer.concat([...parts, Buffer.from(text.slice(from))]));
}

const STRICT_UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Null when the bytes are no valid UTF-8. A byte order mark is kept. */
function decodeUtf8(bytes: Uint8Array): string | null {
  try {
    return STRICT_UTF8.decode(bytes);
  } catch {
    return null;
  }
}

type Mode = 'structured' | 'batch' | 'binary' | 'otherFormat' | 'none';

function modeOf(headers: HeadersRead, body: Uint8Array, binding: 'http' | 'kafka'): Mode {
  const essence = headers.contentType === null ? null : essenceOf(headers.contentType);
  if (essence === 'application/cloudevents+json') return 'structured';
  if (essence === 'application/cloudevents-batch+json') return 'batch';
  if (essence !== null && /^application\/cloudevents(?:-batch)?(?:$|\+)/.test(essence)) return 'otherFormat';
  const attributes = headers.attributes.size - (headers.contentType === null ? 0 : 1);
  if (headers.attributes.has('specversion')) return 'binary';
  // Clients of CJDS send structured events and arrays of them as application/json, some without any content type.
  if (binding === 'http' && (essence === null || essence === 'application/json')) {
    const first = firstByte(body);
    if (first === BRACKET) return 'batch';
    if (first === BRACE || (first >= 0 && attributes === 0)) return 'structured';
  }
  return attributes > 0 || headers.problem !== null ? 'binary' : 'none';
}

/** The first byte of a JSON text; -1 where there is none. */
function firstByte(body: Uint8Array): number {
  const scanner = new Scanner(body).byteOrderMark();
  scanner.space();
  return body[scanner.at] ?? -1;
}

/** A media type without its parameters, lower-cased. */
function essenceOf(contentType: string): string {
  const end = contentType.indexOf(';');
  return (end < 0 ? contentType : contentType.slice(0, end)).trim().toLowerCase();
}

function badCharset(contentType: string | null): DecodedMessage | null {
  const charset = contentType === null ? undefined : /;\s*charset\s*=\s*"?([^";\s]*)/i.exec(contentType)?.[1]?.toLowerCase();
  if (charset === undefined || charset === 'utf-8' || charset === 'utf8') return null;
  return one(refuse('unsupportedCharset', null, 'the charset of the content type is not utf-8'));
}

// ---- binary mode -------------------------------------------------------------------------------------------------------

function decodeBinary(headers: HeadersRead, body: Uint8Array, options: DecodeOptions): Decoded {
  const draft = new Draft();
  if (headers.problem !== null) draft.problem(headers.problem.code, headers.problem.attribute, headers.problem.reason);
  for (const [name, value] of headers.attributes) {
    if (name === 'data') draft.problem('attributeName', 'data', 'data is not an attribute: in binary mode it is the body');
    else draft.set(name, value, true);
  }
  if (body.length === 0) return draft.finish('none', EMPTY, options);
  const declared = draft.attributes['datacontenttype'];
  const kind = kindOfBytes(body, declared);
  if (kind === 'tooDeep') return draft.refuse('tooDeep', 'data', `the data nests deeper than ${MAX_DEPTH} levels`);
  return draft.finish(kind, body, options);
}

/**
 * What a body without JSON's own quoting is, by its declared type (absent: JSON, as in the JSON format). A JSON type over
 * something else keeps its bytes as what they are.
 */
function kindOfBytes(bytes: Uint8Array, declared: AttributeValue | undefined): 'json' | 'text' | 'binary' | 'tooDeep' {
  if (declaresJson(declared)) {
    const json = checkJson(bytes);
    if (json !== 'invalid') return json === 'valid' ? 'json' : 'tooDeep';
  }
  return decodeUtf8(bytes) === null ? 'binary' : 'text';
}

/** JSON media types: application/json, text/json and every +json; absent is JSON (JSON format 3.1). */
function declaresJson(declared: AttributeValue | undefined): boolean {
  if (declared === undefined || declared === 'application/json') return true;
  const essence = essenceOf(String(declared));
  return essence.endsWith('/json') || essence.endsWith('+json');
}

function checkJson(bytes: Uint8Array): 'valid' | 'invalid' | 'tooDeep' {
  const scanner = new Scanner(bytes);
  if (!scanner.value()) return 'invalid';
  scanner.space();
  if (scanner.at !== bytes.length || (scanner.high && decodeUtf8(bytes) === null)) return 'invalid';
  return scanner.deepest > MAX_DEPTH ? 'tooDeep' : 'valid';
}

// ---- structured mode ---------------------------------------------------------------------------------------------------

/** One event in the CloudEvents JSON format. A byte order mark before it is passed over. */
export function decodeStructured(body: Uint8Array, options: DecodeOptions): Decoded {
  const bytes = Buffer.isBuffer(body) ? body : Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  // A JSON spelling has at most six bytes for one of ours (\u0041): what is longer need not be read.
  if (bytes.length > 8 * options.maxEventBytes + 4096) return refuse('tooLarge', null, tooLarge(options));
  if (bytes.length === 0) return refuse('notJson', null, 'the body is empty');
  return new Envelope(bytes).decode(options);
}

function decodeBatch(body: Uint8Array, options: DecodeOptions): DecodedMessage {
  const elements: Decoded[] = [];
  const scanner = new Scanner(body).byteOrderMark();
  const broken = one(refuse('notJson', null, 'the batch is not a JSON array'));
  scanner.space();
  if (!scanner.take(BRACKET)) return scanner.value() ? one(refuse('notAnObject', null, 'a batch is a JSON array of events')) : broken;
  scanner.space();
  if (!scanner.take(0x5d)) {
    do {
      scanner.space();
      const start = scanner.at;
      if (!scanner.value()) return broken;
      const received = body.subarray(start, scanner.at);
      elements.push({ ...decodeStructured(received, options), received });
      scanner.space();
    } while (scanner.take(0x2c));
    if (!scanner.take(0x5d)) return broken;
  }
  scanner.space();
  return scanner.at === body.length ? { kind: 'batch', elements } : broken;
}

/** Reads one envelope in one pass. The first problem is kept and the reading goes on, so that `source` is known for the counts. */
class Envelope {
  readonly #bytes: Buffer;
  readonly #scanner: Scanner;
  readonly #draft = new Draft();
  /** Raw slice of `data`, -1 when there is none. */
  #dataStart = -1;
  #dataEnd = -1;
  #hasBase64 = false;
  #base64: string | null = null;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
    this.#scanner = new Scanner(bytes).byteOrderMark();
  }

  decode(options: DecodeOptions): Decoded {
    const scanner = this.#scanner;
    const draft = this.#draft;
    const isObject = this.#isObject();
    if (!(isObject ? this.#members() : scanner.value())) return draft.refuse('notJson', null, 'the body is not valid JSON');
    scanner.space();
    if (scanner.at !== this.#bytes.length) return draft.refuse('notJson', null, 'something follows the JSON value');
    if (scanner.high && decodeUtf8(this.#bytes) === null) return draft.refuse('badUtf8', null, 'the event is not valid UTF-8');
    if (!isObject) return this.#notAnObject();
    if (scanner.deepest > MAX_DEPTH) draft.problem('tooDeep', 'data', `the data nests deeper than ${MAX_DEPTH} levels`);
    return this.#finish(options);
  }

  #isObject(): boolean {
    this.#scanner.space();
    return this.#bytes[this.#scanner.at] === 0x7b;
  }

  #notAnObject(): Decoded {
    return firstByte(this.#bytes) === BRACKET
      ? refuse('batchNotAllowed', null, 'a structured event is one JSON object; several are application/cloudevents-batch+json')
      : refuse('notAnObject', null, 'the JSON value is no object');
  }

  /** `{ "name": value, … }`; false when it is not JSON. */
  #members(): boolean {
    const scanner = this.#scanner;
    scanner.at += 1;
    scanner.space();
    if (scanner.take(0x7d)) return true;
    do {
      scanner.space();
      const start = scanner.at;
      if (!scanner.string()) return false;
      const name = this.#nameAt(start, scanner.at);
      scanner.space();
      if (!scanner.take(0x3a)) return false;
      scanner.space();
      if (!this.#member(name)) return false;
      scanner.space();
    } while (scanner.take(0x2c));
    return scanner.take(0x7d);
  }

  /** The member's value; false when it is not JSON. */
  #member(name: string): boolean {
    const scanner = this.#scanner;
    const start = scanner.at;
    // Most values are strings, and need none of what a nested value does.
    if (!(this.#bytes[start] === 0x22 ? scanner.string() : scanner.value())) return false;
    switch (name) {
      case 'data':
        if (this.#dataStart >= 0) this.#draft.twice(name);
        this.#dataStart = start;
        this.#dataEnd = scanner.at;
        return true;
      case 'data_base64':
        if (this.#hasBase64) this.#draft.twice(name);
        this.#hasBase64 = true;
        this.#readBase64(start);
        return true;
      default:
        if (this.#draft.isNew(name)) this.#attribute(name, start);
        return true;
    }
  }

  #attribute(name: string, start: number): void {
    const { at: end, plain } = this.#scanner;
    switch (this.#bytes[start]) {
      case 0x22:
        this.#draft.set(name, this.#stringAt(start, end), !plain);
        return;
      case 0x6e:
        this.#draft.unset(name);
        return;
      case 0x74:
      case 0x66:
        this.#draft.set(name, this.#bytes[start] === 0x74, false);
        return;
      case 0x7b:
      case BRACKET:
        this.#draft.wrongType(name);
        return;
      default:
        this.#draft.setNumber(name, this.#bytes.toString('latin1', start, end));
    }
  }

  #readBase64(start: number): void {
    const end = this.#scanner.at;
    if (this.#bytes[start] === 0x22) this.#base64 = this.#stringAt(start, end);
    else if (this.#bytes[start] !== 0x6e) this.#draft.problem('invalidBase64', 'data_base64', 'data_base64 is no string');
  }

  #nameAt(start: number, end: number): string {
    return this.#scanner.plain ? (knownName(this.#bytes, start + 1, end - 1) ?? this.#bytes.toString('latin1', start + 1, end - 1)) : this.#stringAt(start, end);
  }

  /** The string token at start…end, its quotes included, which the scanner has passed over. Copied, never a slice of the whole text: a source or an identity that is kept would keep the whole body. */
  #stringAt(start: number, end: number): string {
    if (this.#scanner.plain) return this.#bytes.toString('latin1', start + 1, end - 1);
    const token = this.#bytes.toString('utf8', start, end);
    return token.includes('\\') ? (JSON.parse(token) as string) : token.slice(1, -1);
  }

  #finish(options: DecodeOptions): Decoded {
    const draft = this.#draft;
    const declared = draft.attributes['datacontenttype'];
    if (this.#base64 !== null) {
      if (this.#dataStart >= 0) return draft.refuse('dataTwice', 'data_base64', 'both data and data_base64 are given');
      const bytes = Buffer.from(this.#base64, 'base64');
      if (bytes.toString('base64') !== this.#base64) return draft.refuse('invalidBase64', 'data_base64', 'data_base64 is not canonical base64 with padding');
      const kind = kindOfBase64(bytes, declared);
      return kind === 'tooDeep' ? draft.refuse('tooDeep', 'data_base64', `the data nests deeper than ${MAX_DEPTH} levels`) : draft.finish(kind, bytes, options);
    }
    if (this.#dataStart < 0) return draft.finish('none', EMPTY, options);
    if (this.#bytes[this.#dataStart] === 0x22 && !declaresJson(declared)) {
      const text = JSON.parse(this.#bytes.toString('utf8', this.#dataStart, this.#dataEnd)) as string;
      // Unpaired surrogates have no UTF-8; such text stays in its JSON spelling.
      if (text.isWellFormed()) return draft.finish('text', Buffer.from(text), options);
    }
    return draft.finish('json', this.#bytes.subarray(this.#dataStart, this.#dataEnd), options);
  }
}

/** `data_base64` under a JSON type is read as in binary mode. Under another it is binary, but for objects and arrays, which are JSON as they are in `data`: else an event that is exported on one line would come back as another kind. */
function kindOfBase64(bytes: Uint8Array, declared: AttributeValue | undefined): 'json' | 'text' | 'binary' | 'tooDeep' {
  if (declaresJson(declared)) return kindOfBytes(bytes, declared);
  const first = firstByte(bytes);
  return (first === 0x7b || first === BRACKET) && checkJson(bytes) === 'valid' ? 'json' : 'binary';
}

// ---- an event in the making --------------------------------------------------------------------------------------------

const NAME = /^[a-z0-9]+$/;
const REQUIRED = ['specversion', 'id', 'source', 'type'] as const;
/** Attributes that the specification defines as strings (of some form). */
const STRINGS: ReadonlySet<string> = new Set([...REQUIRED, 'time', 'datacontenttype', 'dataschema', 'subject']);
/** Attributes that may be left out, but not be empty (spec.md 3.1: MUST be a non-empty string). */
const NON_EMPTY = ['datacontenttype', 'dataschema', 'subject'] as const;
/** Controls, surrogates without their other half and noncharacters (spec.md section "Type System", String). */
const FORBIDDEN = /[\p{Cc}\p{Cs}\p{Noncharacter_Code_Point}]/u;
const INTEGER = /^-?(?:0|[1-9][0-9]*)$/;
const MEDIA_TYPE = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+\/[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*(?:;.*)?$/;

/** Collects attributes, judges them, and keeps the first problem. */
class Draft {
  readonly attributes: Record<string, AttributeValue> = {};
  #problem: Rejection | null = null;
  /** Names that were given without a value to keep: null ones, and those with a problem. */
  #others: Set<string> | null = null;
  #bytes = 0;

  problem(code: RejectionCode, attribute: string | null, reason: string): void {
    this.#problem ??= { code, attribute, reason };
  }

  refuse(code: RejectionCode, attribute: string | null, reason: string): Decoded {
    const source = this.attributes['source'];
    return refuse(code, attribute, reason, typeof source === 'string' && source !== '' ? source : null);
  }

  /** Whether the name comes for the first time; if not, that is the problem. */
  isNew(name: string): boolean {
    if (!Object.hasOwn(this.attributes, name) && this.#others?.has(name) !== true) return true;
    this.twice(name);
    return false;
  }

  twice(name: string): void {
    this.problem('duplicateAttribute', printableName(name), 'the name is given more than once');
  }

  /** The member is null: as good as left out (JSON format 2.2), but its name is taken. */
  unset(name: string): void {
    if (this.#checkName(name)) this.#take(name);
  }

  #take(name: string): void {
    (this.#others ??= new Set()).add(name);
  }

  #notSet(name: string, code: RejectionCode, reason: string): void {
    if (!this.#checkName(name)) return;
    this.problem(code, name, reason);
    this.#take(name);
  }

  /** `doubtful`: the text may hold forbidden characters. */
  set(name: string, value: string | boolean, doubtful: boolean): void {
    if (typeof value === 'boolean' && STRINGS.has(name)) {
      this.wrongType(name);
    } else if (doubtful && FORBIDDEN.test(String(value))) {
      this.#notSet(name, 'attributeCharacters', 'control characters, unpaired surrogates and noncharacters are not allowed');
    } else if (this.#checkName(name)) {
      this.attributes[name] = value;
      // Text that is not doubtful is ASCII, a byte a character.
      this.#bytes += name.length + (typeof value === 'boolean' ? 5 : doubtful ? Buffer.byteLength(value) : value.length);
    }
  }

  setNumber(name: string, spelling: string): void {
    const value = Number(spelling);
    if (STRINGS.has(name) || !INTEGER.test(spelling)) {
      this.wrongType(name);
    } else if (value < -2_147_483_648 || value > 2_147_483_647) {
      this.#notSet(name, 'attributeRange', 'an integer has 32 bits; a longer one is sent as a string');
    } else if (this.#checkName(name)) {
      // Adding 0 makes -0 the 0 that it is in JSON.
      this.attributes[name] = value + 0;
      this.#bytes += name.length + spelling.length;
    }
  }

  wrongType(name: string): void {
    this.#notSet(name, 'attributeType', STRINGS.has(name) ? 'the attribute is a string' : 'an attribute is a string, a boolean or an integer');
  }

  finish(dataKind: CloudEvent['dataKind'], data: Uint8Array, options: DecodeOptions): Decoded {
    const attributes = this.attributes;
    const time = this.#problem === null ? this.#check() : null;
    if (this.#bytes + data.length > options.maxEventBytes) this.problem('tooLarge', null, tooLarge(options));
    const problem = this.#problem;
    if (problem !== null) return this.refuse(problem.code, problem.attribute, problem.reason);
    return { kind: 'event', event: { id: attributes['id'] as string, source: attributes['source'] as string, type: attributes['type'] as string, time, attributes, dataKind, data } };
  }

  #checkName(name: string): boolean {
    if (KNOWN.has(name)) return true;
    if (NAME.test(name) && name.length <= MAX_ATTRIBUTE_NAME) return true;
    this.problem('attributeName', printableName(name), `an attribute name is a-z and 0-9, at most ${MAX_ATTRIBUTE_NAME} characters`);
    this.#take(name);
    return false;
  }

  /** What is to be said of the attributes together; answers with the instant of `time`. */
  #check(): Instant | null {
    const { specversion, time, datacontenttype, identity, identitytype } = this.attributes;
    for (const name of REQUIRED) {
      const value = this.attributes[name];
      if (value === undefined) this.problem('missingAttribute', name, 'the attribute is required');
      else if (value === '') this.problem('emptyAttribute', name, 'the attribute may not be empty');
    }
    for (const name of NON_EMPTY) if (this.attributes[name] === '') this.problem('emptyAttribute', name, 'the attribute may be left out, but not be empty');
    if (specversion !== '1.0') this.problem('unknownSpecversion', 'specversion', 'only specversion 1.0 is read');
    if (datacontenttype !== undefined && datacontenttype !== 'application/json' && !MEDIA_TYPE.test(datacontenttype as string)) {
      this.problem('invalidContentType', 'datacontenttype', 'the attribute is no media type');
    }
    if (identity !== undefined && identitytype === undefined) this.problem('identityWithoutType', 'identitytype', 'identity needs identitytype');
    if (identity === undefined && identitytype !== undefined) this.problem('typeWithoutIdentity', 'identity', 'identitytype needs identity');
    if (time === undefined) return null;
    const instant = parseInstant(time as string);
    if (instant === null) this.problem('invalidTime', 'time', 'the attribute is no RFC 3339 date-time of the years 0000 to 9999');
    return instant;
  }
}

function tooLarge(options: DecodeOptions): string {
  return `attributes and data have more than ${options.maxEventBytes} bytes`;
}

/** A name as it may stand in an answer: only where it looks like one, since anything can be sent as a name. */
function printableName(name: string): string | null {
  return /^[A-Za-z0-9_.:-]{1,64}$/.test(name) ? name : null;
}

/** The names that nearly every event has, so that reading one makes no string. */
const KNOWN_NAMES = [
  'id', 'source', 'specversion', 'type', 'time', 'subject', 'data', 'datacontenttype', 'dataschema', 'data_base64',
  'identity', 'identitytype', 'previousidentity', 'previousidentitytype', 'partitionkey', 'sequence', 'traceparent', 'tracestate',
] as const;
const KNOWN_BY_LENGTH: readonly (readonly { readonly name: string; readonly bytes: Uint8Array }[])[] = Array.from({ length: 21 }, (_, length) =>
  KNOWN_NAMES.filter((name) => name.length === length).map((name) => ({ name, bytes: Buffer.from(name) })));
const KNOWN: ReadonlySet<string> = new Set(KNOWN_NAMES.filter((name) => !name.startsWith('data_') && name !== 'data'));

function knownName(bytes: Uint8Array, start: number, end: number): string | null {
  for (const known of KNOWN_BY_LENGTH[end - start] ?? []) {
    let at = 0;
    while (start + at < end && known.bytes[at] === bytes[start + at]) at += 1;
    if (start + at === end) return known.name;
  }
  return null;
}

// ---- JSON --------------------------------------------------------------------------------------------------------------

/**
 * Passes over JSON in UTF-8 bytes and says whether it is JSON (RFC 8259). No recursion, so that no nesting can overflow
 * the stack. Bytes from 0x80 in strings are noticed, not judged: `high`.
 */
class Scanner {
  at = 0;
  /** Whether any string so far had a byte outside ASCII. */
  high = false;
  /** Whether the string passed over last is printable ASCII without escapes: its bytes are its text. */
  plain = true;
  /** Nesting of the value passed over last and those before it. */
  deepest = 0;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /** A UTF-8 byte order mark may stand before a text (RFC 8259 section 8.1), and editors put it there; it is no part of JSON. */
  byteOrderMark(): this {
    if (this.#bytes[0] === 0xef && this.#bytes[1] === 0xbb && this.#bytes[2] === 0xbf) this.at = 3;
    return this;
  }

  space(): void {
    const bytes = this.#bytes;
    for (;;) {
      const byte = bytes[this.at];
      if (byte === undefined || byte > 0x20) return;
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return;
      this.at += 1;
    }
  }

  take(byte: number): boolean {
    if (this.#bytes[this.at] !== byte) return false;
    this.at += 1;
    return true;
  }

  /** One value. The stack holds what is open: true for an object, false for an array. */
  value(): boolean {
    const open: boolean[] = [];
    for (;;) {
      this.space();
      const byte = this.#bytes[this.at];
      if (byte === 0x7b || byte === BRACKET) {
        const isObject = byte === 0x7b;
        this.at += 1;
        this.space();
        if (!this.take(isObject ? 0x7d : 0x5d)) {
          open.push(isObject);
          if (open.length > this.deepest) this.deepest = open.length;
          if (isObject && !this.#key()) return false;
          continue;
        }
        if (open.length + 1 > this.deepest) this.deepest = open.length + 1;
      } else if (!(byte === 0x22 ? this.string() : this.#scalar(byte))) return false;
      const next = this.#close(open);
      if (next !== 'value') return next === 'done';
    }
  }

  /** After a value: closes what ends here, and says whether another value is due. */
  #close(open: boolean[]): 'done' | 'value' | 'broken' {
    while (open.length > 0) {
      const isObject = open[open.length - 1]!;
      this.space();
      if (this.take(0x2c)) {
        if (!isObject) return 'value';
        this.space();
        return this.#key() ? 'value' : 'broken';
      }
      if (!this.take(isObject ? 0x7d : 0x5d)) return 'broken';
      open.pop();
    }
    return 'done';
  }

  #key(): boolean {
    if (!this.string()) return false;
    this.space();
    return this.take(0x3a);
  }

  /** A string, its quotes included. */
  string(): boolean {
    const bytes = this.#bytes;
    const end = bytes.length;
    if (bytes[this.at] !== 0x22) return false;
    let plain = true;
    for (let at = this.at + 1; at < end; at += 1) {
      const byte = bytes[at]!;
      if (ORDINARY[byte] === 1) continue;
      if (byte === 0x22) {
        this.at = at + 1;
        this.plain = plain;
        return true;
      }
      if (byte < 0x20) return false;
      plain = false;
      if (byte >= 0x80) this.high = true;
      if (byte !== 0x5c) continue;
      const length = this.#escape(at + 1);
      if (length === 0) return false;
      at += length;
    }
    return false;
  }

  /** Length of the escape after a backslash; 0 for none. */
  #escape(at: number): number {
    switch (this.#bytes[at]) {
      case 0x22: case 0x5c: case 0x2f: case 0x62: case 0x66: case 0x6e: case 0x72: case 0x74:
        return 1;
      case 0x75:
        for (let digit = at + 1; digit <= at + 4; digit += 1) if (!isHex(this.#bytes[digit])) return 0;
        return 5;
      default:
        return 0;
    }
  }

  #scalar(byte: number | undefined): boolean {
    switch (byte) {
      case 0x74: return this.#word(TRUE);
      case 0x66: return this.#word(FALSE);
      case 0x6e: return this.#word(NULL);
      default: return this.#number();
    }
  }

  #word(word: Uint8Array): boolean {
    for (const byte of word) if (!this.take(byte)) return false;
    return true;
  }

  #number(): boolean {
    this.take(0x2d);
    if (!this.take(0x30) && !this.#digits()) return false;
    if (this.take(0x2e) && !this.#digits()) return false;
    if (this.take(0x65) || this.take(0x45)) {
      if (!this.take(0x2b)) this.take(0x2d);
      return this.#digits();
    }
    return true;
  }

  /** One digit or more. */
  #digits(): boolean {
    const start = this.at;
    for (;;) {
      const byte = this.#bytes[this.at];
      if (byte === undefined || byte < 0x30 || byte > 0x39) return this.at > start;
      this.at += 1;
    }
  }
}

/** 1 for the bytes that mean themselves in a string: printable ASCII but for the quote and the backslash. */
const ORDINARY = Uint8Array.from({ length: 256 }, (_, byte) => (byte >= 0x20 && byte < 0x7f && byte !== 0x22 && byte !== 0x5c ? 1 : 0));
const TRUE = Buffer.from('true');
const FALSE = Buffer.from('false');
const NULL = Buffer.from('null');

function isHex(byte: number | undefined): boolean {
  return byte !== undefined && ((byte >= 0x30 && byte <= 0x39) || ((byte | 0x20) >= 0x61 && (byte | 0x20) <= 0x66));
}

// ---- the way back ------------------------------------------------------------------------------------------------------

/** Data that can stand on one line as it is; else it would be respelled, and be another event. */
const MULTILINE = /[\n\r]|^[ \t]|[ \t]$/;

/** The event in the JSON format on one line, so that decoding it gives the same event: the same attributes, data bytes and kind. */
export function encodeStructured(event: CloudEvent): string {
  const envelope = JSON.stringify(event.attributes).slice(0, -1);
  switch (event.dataKind) {
    case 'none':
      return `${envelope}}`;
    case 'json': {
      const text = utf8(event.data);
      return MULTILINE.test(text) ? base64Member(envelope, event.data) : `${envelope},"data":${text}}`;
    }
    case 'text':
      // Under a JSON type a string would be read as JSON.
      return declaresJson(event.attributes['datacontenttype'])
        ? base64Member(envelope, event.data)
        : `${envelope},"data":${JSON.stringify(utf8(event.data))}}`;
    case 'binary':
      return base64Member(envelope, event.data);
  }
}

function base64Member(envelope: string, data: Uint8Array): string {
  return `${envelope},"data_base64":"${Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('base64')}"}`;
}

function utf8(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
}
