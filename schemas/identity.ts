// Who an event is about: normalisation, keys, stream names and event ids (design.md section 3), the secrets that key
// them, and API keys. Branded types are made here alone.
//
// No e-mail address or phone number leaves this file in a name: what goes into stream names, document keys, index terms
// and logs is a keyed hash, since names outlive erasure.
import { createCipheriv, createDecipheriv, createHmac, createSecretKey, hash as digest, timingSafeEqual } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import type { AttributeValue, CloudEvent, Rejection, RejectionCode } from './cloudevent.ts';

/** An immutable workspace id: `[a-z0-9_]+`, at most 64 characters. */
export type WorkspaceId = string & { readonly __brand: 'WorkspaceId' };

const WORKSPACE_ID = /^[a-z0-9_]{1,64}$/;

export function isWorkspaceId(text: string): text is WorkspaceId {
  return WORKSPACE_ID.test(text);
}

// ---- normalisation -----------------------------------------------------------------------------------------------------

/** Changes whenever `normaliseIdentity` or the anonymous values would give another key: keys are for ever, so then old keys have to be kept answering. */
export const NORMALISATION_VERSION = 1;

/** What people and devices write between the digits of a phone number: spaces, brackets, points, slashes, dashes, and the invisible direction marks that address books copy along. */
const PHONE_NUMBER = /^[\d\s+().\-/\u2010-\u2015\u2212\u200e\u200f\u202a-\u202e\u2066-\u2069\u200b\ufeff]+$/;
const NOT_DIGITS = /\D+/g;
const FEWEST_PHONE_DIGITS = 5;

/** An identity type as it is compared: case-folded, without space around it. */
export function foldType(type: string): string {
  return type.trim().toLowerCase();
}

/**
 * The one place where identities are made comparable. E-mail: trimmed, lower-cased. Phone: its digits; text that is no
 * number (`sip:`, letters, under five digits) stays text. Other types: trimmed. No default country is ever added: that
 * would be evidence, not spelling.
 */
export function normaliseIdentity(type: string, value: string): { type: string; value: string } {
  const folded = foldType(type);
  const trimmed = value.trim();
  switch (folded) {
    case 'email':
      return { type: folded, value: trimmed.toLowerCase() };
    case 'phone':
      return { type: folded, value: phoneDigits(trimmed) ?? trimmed };
    default:
      return { type: folded, value: trimmed };
  }
}

/** The digits of a phone number; null for text that is none. */
function phoneDigits(text: string): string | null {
  if (!PHONE_NUMBER.test(text)) return null;
  const digits = text.replace(NOT_DIGITS, '');
  return digits.length < FEWEST_PHONE_DIGITS ? null : digits;
}

const KEYPAD_ANONYMOUS = '266696687';
/**
 * Values by which platforms say "nobody": what they send for a withheld or unknown caller, and what programs write for a
 * value they lack. Compared without regard to case, and with runs of spaces, dashes and underscores as one space.
 * `266696687` spells "anonymous" on a keypad; it is shorter than any number of its country code, so nobody has it.
 */
const ANONYMOUS_VALUES: ReadonlySet<string> = new Set([
  'unknown', 'anonymous', 'withheld', 'private', 'restricted', 'unavailable', 'blocked', 'hidden', 'suppressed', 'undisclosed', 'unidentified',
  'unknown number', 'unknown caller', 'anonymous number', 'anonymous caller', 'withheld number', 'number withheld', 'private number', 'private caller',
  'restricted number', 'restricted caller', 'number unavailable', 'number restricted', 'blocked number', 'blocked caller', 'hidden number', 'not available', 'not provided', 'no number', 'no caller id',
  'caller id blocked', 'caller id withheld', 'caller unknown', 'out of area', 'anonymous@anonymous.invalid', 'sip:anonymous@anonymous.invalid', 'unknown@unknown.invalid', 'id unavailable',
  'none', 'null', 'nil', 'undefined', 'nan', 'n/a', 'na', '', '-', '?', KEYPAD_ANONYMOUS, `+${KEYPAD_ANONYMOUS}`,
]);
const ONLY_ZEROS = /^\+?0+$/;
const RUNS = /[\s_-]+/g;

/** Whether a normalised value stands for nobody. An empty one does too; `identify` refuses it before. */
export function isAnonymous(normalisedValue: string): boolean {
  // The longest of the values above has 32 characters: most values are settled by their length or first digit.
  if (normalisedValue.length > 40) return false;
  // None of them but one has a digit other than 0, and nearly every id of a platform has.
  if (/[1-9]/.test(normalisedValue) && !normalisedValue.includes(KEYPAD_ANONYMOUS)) return false;
  const lower = normalisedValue.toLowerCase();
  return ANONYMOUS_VALUES.has(lower) || ONLY_ZEROS.test(lower) || ANONYMOUS_VALUES.has(lower.replace(RUNS, ' ').trim());
}

// ---- keys --------------------------------------------------------------------------------------------------------------

export interface Identified {
  readonly kind: 'identified';
  readonly stream: string;
  readonly eventId: string;
  /** 32 hex digits; of an anonymous value its own, not that of the stream it is spread to. */
  readonly key: string;
  /** Case-folded. */
  readonly type: string;
  /** As received, for display. */
  readonly value: string;
  /** False for anonymous values and for events known by their subject alone. */
  readonly evidence: boolean;
  readonly anonymous: boolean;
}

export interface WorkspaceKeys {
  readonly id: WorkspaceId;
  /** 32 hex digits of HMAC-SHA-256 over the JSON array of the parts. */
  readonly hash: (...parts: readonly string[]) => string;
  /** Search term of (field, value): 16 characters of base64url. */
  readonly term: (field: string, value: string) => string;
  /** Key of an identity; null when it is empty or anonymous after normalisation. */
  readonly identityKey: (type: string, value: string) => string | null;
  /** The stream that an event of an anonymous value stands in. */
  readonly anonymousStream: (eventId: string) => string;
  readonly identify: (event: CloudEvent) => Identified | { readonly kind: 'rejected'; readonly rejection: Rejection };
  /** 32 bytes for signing cursors. */
  readonly cursorKey: Uint8Array;
}

/** Streams over which a workspace's anonymous values are spread: one stream of them all would be one lane for a fifth of all calls. */
export const ANONYMOUS_STREAMS = 64;

/**
 * Characters of a term. A term is SHA-256 over a key of exactly one block (64 hex digits) and the text, cut to 96 of its
 * 256 bits: a keyed hash like HMAC as long as it is cut (Bellare, Bernstein, Tessaro: "Hash-function based PRFs", 2016), at
 * a third of the price. A journey has some thirty, most of them its own, and terms are never compared across workspaces.
 */
const TERM_LENGTH = 16;

/** A HMAC costs 2–3 µs and the same identities come again and again; at most this many results are remembered per workspace (some 10 MB). */
const CACHED_HASHES = 20_000;

/** The keyed functions of a workspace. `secret`: its 32 bytes. Everything is a pure function of (id, secret, arguments); the memory inside only saves time. */
export function workspaceKeys(id: WorkspaceId, secret: Uint8Array, options: { readonly cachedHashes?: number } = {}): WorkspaceKeys {
  const cache = new LruCache(options.cachedHashes ?? CACHED_HASHES);
  // Made once: from raw bytes, OpenSSL prepares the key anew for every hash, which costs six times the hash.
  const key = createSecretKey(secret);
  const hashJson = (json: string): string => cache.get(json) ?? cache.put(json, hexOf(mac(key, json)));
  // One form for all: the JSON of an array is unambiguous, whatever stands in the parts.
  const hash = (...parts: readonly string[]): string => hashJson(JSON.stringify(parts));
  const terms = new LruCache(options.cachedHashes ?? CACHED_HASHES);
  const termKey = mac(key, JSON.stringify(['terms'])).toString('hex');
  const term = (field: string, value: string): string => {
    const name = `${field}\n${value}`;
    return terms.get(name) ?? terms.put(name, digest('sha256', termKey + name, 'base64url').slice(0, TERM_LENGTH));
  };
  const identityKey = (type: string, value: string): string | null => {
    const normal = normaliseIdentity(type, value);
    return normal.type === '' || isAnonymous(normal.value) ? null : hash(normal.type, normal.value);
  };
  const anonymousStream = (eventId: string): string => identityStream(id, hashJson(anonymousJson(parseInt(eventId.slice(0, 2), 16) % ANONYMOUS_STREAMS)));
  const identify: WorkspaceKeys['identify'] = (event) => {
    const said = saidIdentity(event);
    if (said === null) return rejected('missingIdentity', 'identity', 'neither identity and identitytype nor subject says whose event this is');
    const normal = normaliseIdentity(said.type, said.value);
    if (normal.type === '') return rejected('emptyIdentity', 'identitytype', 'the identity type is empty after normalisation');
    if (normal.value === '') return rejected('emptyIdentity', said.evidence ? 'identity' : 'subject', 'the identity is empty after normalisation');
    const anonymous = isAnonymous(normal.value);
    const ownKey = hash(normal.type, normal.value);
    const eventId = eventIdOf(id, event, ownKey);
    return {
      kind: 'identified', stream: anonymous ? anonymousStream(eventId) : identityStream(id, ownKey), eventId, key: ownKey, type: normal.type, value: said.value,
      evidence: said.evidence && !anonymous, anonymous,
    };
  };
  return { id, hash, term, identityKey, anonymousStream, identify, cursorKey: mac(key, JSON.stringify(['cursor'])) };
}

function rejected(code: RejectionCode, attribute: string, reason: string): { kind: 'rejected'; rejection: Rejection } {
  return { kind: 'rejected', rejection: { code, attribute, reason } };
}

/** The identity as received: the attributes' own, which is evidence, else the subject, which never is. */
function saidIdentity(event: CloudEvent): { type: string; value: string; evidence: boolean } | null {
  const { identity, identitytype, subject } = event.attributes;
  if (identity !== undefined) return { type: String(identitytype ?? ''), value: String(identity), evidence: true };
  return subject === undefined ? null : { type: 'subject', value: String(subject), evidence: false };
}

/** Streams in which the events of anonymous values stand, all 64. */
export function anonymousStreams(id: WorkspaceId, secret: Uint8Array): readonly string[] {
  const key = createSecretKey(secret);
  return Array.from({ length: ANONYMOUS_STREAMS }, (_, index) => identityStream(id, hexOf(mac(key, anonymousJson(index)))));
}

/** The index is a JSON number, so that no identity of a type called `anonymous` can have the same key. */
function anonymousJson(index: number): string {
  return `["anonymous",${index}]`;
}

function mac(key: KeyObject, json: string): Buffer {
  return createHmac('sha256', key).update(json).digest();
}

function hexOf(digested: Buffer): string {
  return digested.toString('hex', 0, 16);
}

/** `previousidentity` with its type (design.md section 6): the extension `previousidentitytype`, else e-mail if it has `@`, phone if it is 7–15 digits, else `identitytype`. The value is as received; null where there is none, or no type can be told. */
export function previousIdentity(event: CloudEvent): { type: string; value: string } | null {
  const { previousidentity, previousidentitytype, identitytype } = event.attributes;
  if (previousidentity === undefined) return null;
  const value = String(previousidentity);
  if (value.trim() === '') return null;
  const said = foldType(String(previousidentitytype ?? ''));
  const type = said !== '' ? said : guessedType(value.trim()) ?? foldType(String(identitytype ?? ''));
  return type === '' ? null : { type, value };
}

function guessedType(value: string): 'email' | 'phone' | null {
  if (value.includes('@')) return 'email';
  const digits = phoneDigits(value);
  return digits !== null && digits.length >= 7 && digits.length <= 15 ? 'phone' : null;
}

// ---- names -------------------------------------------------------------------------------------------------------------

export function identityStream(workspace: WorkspaceId, key: string): string {
  return `identity.${workspace}-${key}`;
}

const IDENTITY_STREAM = 'identity.';
const WORKSPACE_STREAM = /^(?:(?:decisions|erasures)\.([a-z0-9_]{1,64})-.|workspace-([a-z0-9_]{1,64})$)/;

/** The workspace of any of our streams (`identity.`, `decisions.`, `erasures.`, `workspace-`); null for others. */
export function workspaceOfStream(stream: string): WorkspaceId | null {
  // Asked for every event: most are an identity's, and a match makes an array of its parts.
  if (stream.startsWith(IDENTITY_STREAM)) {
    const id = stream.slice(IDENTITY_STREAM.length, Math.max(IDENTITY_STREAM.length, stream.indexOf('-')));
    return isWorkspaceId(id) && stream.length > IDENTITY_STREAM.length + id.length + 1 ? id : null;
  }
  const match = WORKSPACE_STREAM.exec(stream);
  return match === null ? null : ((match[1] ?? match[2]!) as WorkspaceId);
}

/** A person's public id: the first 24 hex digits of the key of its founding identity. */
export function personIdOf(key: string): string {
  return key.slice(0, 24);
}

const HASHED = /^[0-9a-f]{32}$/;

/** A 32-hex name for a platform's id of a journey or interaction; what is such a name already stands for itself. */
export function nodeKey(keys: Pick<WorkspaceKeys, 'hash'>, id: string): string {
  return HASHED.test(id) ? id : keys.hash('node', id);
}

/**
 * A version 8 UUID (RFC 9562) from SHA-256 over the JSON array of workspace, attributes sorted by name, and the SHA-256
 * of the data. Values are in their canonical string form, so that a binary and a structured delivery of one event are
 * one event; the identity is replaced by its key; tracing says how an event travelled, not what it said.
 */
function eventIdOf(workspace: WorkspaceId, event: CloudEvent, key: string): string {
  const attributes = event.attributes;
  const said: [string, string][] = [];
  for (const name of Object.keys(attributes).sort()) {
    if (name === 'traceparent' || name === 'tracestate') continue;
    said.push([name, name === 'identity' ? key : canonical(attributes[name]!)]);
  }
  const hex = digest('sha256', JSON.stringify([workspace, said, digest('sha256', event.data)]));
  const variant = '89ab'.charAt(parseInt(hex.charAt(16), 16) & 3);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

/** CloudEvents 1.0 section 3.1: every type has a canonical string; those of booleans and integers are JavaScript's. */
function canonical(value: AttributeValue): string {
  return typeof value === 'string' ? value : String(value);
}

/**
 * Remembers at least the last `limit / 2` distinct entries and never more than `limit`: two halves, of which the older is
 * dropped when the younger is full. A hit in the younger half writes nothing, which a strict LRU would.
 */
class LruCache {
  readonly #half: number;
  #young = new Map<string, string>();
  #old = new Map<string, string>();

  constructor(limit: number) {
    this.#half = Math.max(1, Math.floor(limit / 2));
  }

  get(name: string): string | undefined {
    const value = this.#young.get(name);
    if (value !== undefined) return value;
    const older = this.#old.get(name);
    return older === undefined ? undefined : this.put(name, older);
  }

  put(name: string, value: string): string {
    if (this.#young.size >= this.#half) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(name, value);
    return value;
  }
}

// ---- secrets and API keys ----------------------------------------------------------------------------------------------

const WRAP_CONTEXT = Buffer.from('throughline workspace secret 1');
const IV_BYTES = 12;
const TAG_BYTES = 16;

/** AES-256-GCM under the master key (32 bytes), with 12 random bytes used for nothing else → `1.<base64url of iv, tag, ciphertext>`. */
export function wrapSecret(secret: Uint8Array, masterKey: Uint8Array, randomIv: Uint8Array): string {
  if (masterKey.length !== 32 || randomIv.length !== IV_BYTES) throw new Error('assertion: a master key has 32 bytes and an initialisation vector 12');
  const cipher = createCipheriv('aes-256-gcm', masterKey, randomIv).setAAD(WRAP_CONTEXT);
  const sealed = Buffer.concat([cipher.update(secret), cipher.final()]);
  return `1.${Buffer.concat([randomIv, cipher.getAuthTag(), sealed]).toString('base64url')}`;
}

/** The secret; null when the master key is not the one it was wrapped with, or the text was altered. */
export function unwrapSecret(wrapped: string, masterKey: Uint8Array): Uint8Array | null {
  if (masterKey.length !== 32 || !/^1\.[A-Za-z0-9_-]+$/.test(wrapped)) return null;
  const bytes = Buffer.from(wrapped.slice(2), 'base64url');
  if (bytes.length <= IV_BYTES + TAG_BYTES) return null;
  const decipher = createDecipheriv('aes-256-gcm', masterKey, bytes.subarray(0, IV_BYTES), { authTagLength: TAG_BYTES }).setAAD(WRAP_CONTEXT);
  decipher.setAuthTag(bytes.subarray(IV_BYTES, IV_BYTES + TAG_BYTES));
  try {
    return new Uint8Array(Buffer.concat([decipher.update(bytes.subarray(IV_BYTES + TAG_BYTES)), decipher.final()]));
  } catch {
    return null;
  }
}

/** A new API key from a source of random bytes: `tl_` and 32 bytes in base64url. Shown once, never stored. */
export function makeApiKey(random: (size: number) => Uint8Array): string {
  return `tl_${Buffer.from(random(32)).toString('base64url')}`;
}

/** A key's public name, 12 hex digits, for lists, logs and revocation. A hash of its own, so that it gives away nothing of what is stored to compare with. */
export function apiKeyId(token: string): string {
  return digest('sha256', `throughline api key id ${token}`).slice(0, 12);
}

/**
 * What is stored of an API key: SHA-256 in hex. A slow password hash is for secrets that people choose; a token of 256
 * random bits cannot be guessed from its hash at any speed, and every request would pay for the slowness. An operator's
 * own `THROUGHLINE_API_KEY` has to be as long to be as safe.
 */
export function hashApiKey(token: string): string {
  return digest('sha256', token);
}

/** Compares two hashes of equal length in a time that does not tell where they differ. */
export function sameHash(a: string, b: string): boolean {
  const left = Buffer.from(a);
  const right = Buffer.from(b);
  return left.length === right.length && timingSafeEqual(left, right);
}
