import { readFileSync } from 'node:fs';
import { CloudEvent as SdkEvent, HTTP, Kafka } from 'cloudevents';
import fc from 'fast-check';
import type { AttributeValue, CloudEvent, Decoded, DecodedMessage, Headers, RejectionCode } from '../../schemas/cloudevent.ts';
import { decodeMessage, decodeStructured, DEFAULT_MAX_EVENT_BYTES, encodeStructured, MAX_DEPTH, REJECTION_CODES } from '../../schemas/cloudevent.ts';
import { isWorkspaceId, workspaceKeys } from '../../schemas/identity.ts';
import { parseInstant } from '../../schemas/time.ts';

const OPTIONS = { maxEventBytes: DEFAULT_MAX_EVENT_BYTES };
const STRUCTURED = 'application/cloudevents+json';
const BATCH = 'application/cloudevents-batch+json';

// ---- the table -----------------------------------------------------------------------------------------------------------

interface Message { readonly binding: 'http' | 'kafka'; readonly headers: Headers; readonly body: Uint8Array | null; readonly maxEventBytes?: number }
type Expected =
  | { readonly kind: 'event'; readonly attributes: Record<string, AttributeValue>; readonly dataKind: CloudEvent['dataKind']; readonly data: string | Uint8Array }
  | { readonly kind: 'rejected'; readonly code: RejectionCode; readonly attribute: string | null; readonly source: string | null }
  | { readonly kind: 'batch'; readonly elements: readonly (RejectionCode | 'event')[] };

const BASE = { specversion: '1.0', id: '1', source: '/s', type: 't' };
const BASE_JSON = '"specversion":"1.0","id":"1","source":"/s","type":"t"';
const CE = { 'ce-specversion': '1.0', 'ce-id': '1', 'ce-source': '/s', 'ce-type': 't' };
const CE_KAFKA = { ce_specversion: Buffer.from('1.0'), ce_id: Buffer.from('1'), ce_source: Buffer.from('/s'), ce_type: Buffer.from('t') };

function bytes(body: string | Uint8Array): Uint8Array {
  return typeof body === 'string' ? Buffer.from(body) : body;
}
/** A whole structured body over HTTP. */
function whole(body: string | Uint8Array, contentType: string | undefined = STRUCTURED): Message {
  return { binding: 'http', headers: { 'content-type': contentType }, body: bytes(body) };
}
/** The four required attributes and these members. */
function members(json: string): Message {
  return whole(json === '' ? `{${BASE_JSON}}` : `{${BASE_JSON},${json}}`);
}
function binary(headers: Headers, body: string | Uint8Array | null = null): Message {
  return { binding: 'http', headers: { ...CE, ...headers }, body: body === null ? null : bytes(body) };
}
function http(headers: Headers, body: string | Uint8Array | null = null): Message {
  return { binding: 'http', headers, body: body === null ? null : bytes(body) };
}
function kafka(headers: Headers, body: string | Uint8Array | null = null): Message {
  return { binding: 'kafka', headers, body: body === null ? null : bytes(body) };
}
function limit(maxEventBytes: number, message: Message): Message {
  return { ...message, maxEventBytes };
}
function ok(attributes: Record<string, AttributeValue> = {}, dataKind: CloudEvent['dataKind'] = 'none', data: string | Uint8Array = ''): Expected {
  return { kind: 'event', attributes: { ...BASE, ...attributes }, dataKind, data };
}
function no(code: RejectionCode, attribute: string | null = null, source: string | null = '/s'): Expected {
  return { kind: 'rejected', code, attribute, source };
}
function batchOf(...elements: (RejectionCode | 'event')[]): Expected {
  return { kind: 'batch', elements };
}
function latin1(text: string): Uint8Array {
  return Buffer.from(text, 'latin1');
}

const NESTED = (depth: number): string => '['.repeat(depth) + ']'.repeat(depth);
const JSON_TYPE = '"datacontenttype":"application/json"';
const TEXT_TYPE = '"datacontenttype":"text/plain"';
const BINARY_TYPE = '"datacontenttype":"application/octet-stream"';

const CASES: readonly (readonly [name: string, message: Message, expected: Expected])[] = [
  // Which mode it is.
  ['the content type has no case and may have parameters', whole(`{${BASE_JSON}}`, 'Application/CloudEvents+JSON; charset=UTF-8'), ok()],
  ['the charset may be quoted', whole(`{${BASE_JSON}}`, 'application/cloudevents+json; charset="utf-8"'), ok()],
  ['other parameters of the content type are nobody’s concern', whole(`{${BASE_JSON}}`, 'application/cloudevents+json;profile=x'), ok()],
  ['another charset is refused', whole(`{${BASE_JSON}}`, 'application/cloudevents+json; charset=ISO-8859-1'), no('unsupportedCharset', null, null)],
  ['another charset of a batch is refused', whole('[]', `${BATCH}; charset=utf-16`), no('unsupportedCharset', null, null)],
  ['another charset of plain JSON is refused', whole(`{${BASE_JSON}}`, 'application/json; charset=latin1'), no('unsupportedCharset', null, null)],
  ['another format is refused', whole('x', 'application/cloudevents+avro'), no('unsupportedFormat', null, null)],
  ['a batch in another format is refused', whole('x', 'application/cloudevents-batch+protobuf'), no('unsupportedFormat', null, null)],
  ['the bare media type names no format', whole(`{${BASE_JSON}}`, 'application/cloudevents'), no('unsupportedFormat', null, null)],
  ['a content type that only begins alike is data of a binary event', binary({ 'content-type': 'application/cloudeventsish' }, 'x'), ok({ datacontenttype: 'application/cloudeventsish' }, 'text', 'x')],
  ['structured wins over headers', { ...whole(`{${BASE_JSON}}`), headers: { ...CE, 'ce-id': '2', 'content-type': STRUCTURED } }, ok()],
  ['HTTP: application/json with an object is structured', whole(`{${BASE_JSON}}`, 'application/json'), ok()],
  ['HTTP: application/json with an array is a batch', whole(`[{${BASE_JSON}}]`, 'application/json; charset=utf-8'), batchOf('event')],
  ['HTTP: no content type with an object is structured', http({}, `{${BASE_JSON}}`), ok()],
  ['HTTP: no content type with an array is a batch', http({}, ` \n[]`), batchOf()],
  ['HTTP: application/json with a byte order mark and an array is a batch', http({ 'content-type': 'application/json' }, `\ufeff[{${BASE_JSON}}]`), batchOf('event')],
  ['HTTP: application/json without anything is no CloudEvent', http({ 'content-type': 'application/json' }), no('notACloudEvent', null, null)],
  ['HTTP: nothing at all is no CloudEvent', http({}), no('notACloudEvent', null, null)],
  ['HTTP: text without headers is no CloudEvent', http({ 'content-type': 'text/plain' }, 'hello'), no('notACloudEvent', null, null)],
  ['HTTP: plain JSON that is no event lacks what events have', http({ 'content-type': 'application/json' }, '{"a":1}'), no('missingAttribute', 'specversion', null)],
  ['HTTP: a scalar as application/json is no event', http({ 'content-type': 'application/json' }, '12'), no('notAnObject', null, null)],
  ['HTTP: some headers without ce-specversion lack it', http({ 'ce-id': '1', 'ce-source': '/s', 'ce-type': 't' }, 'x'), no('missingAttribute', 'specversion')],
  ['HTTP: some headers without a body lack ce-specversion', http({ 'ce-id': '1', 'ce-source': '/s', 'content-type': 'application/json' }), no('missingAttribute', 'specversion')],
  ['Kafka: plain JSON is no CloudEvent', kafka({ 'content-type': Buffer.from('application/json') }, `{${BASE_JSON}}`), no('notACloudEvent', null, null)],
  ['Kafka: a record without headers is no CloudEvent', kafka({}, `{${BASE_JSON}}`), no('notACloudEvent', null, null)],
  ['Kafka: a batch is refused', kafka({ 'content-type': BATCH }, '[]'), no('batchNotAllowed', null, null)],
  ['Kafka: structured, the content type a Buffer in capitals', kafka({ 'Content-Type': Buffer.from('APPLICATION/CLOUDEVENTS+JSON') }, `{${BASE_JSON}}`), ok()],
  ['Kafka: structured with a null value is not JSON', kafka({ 'content-type': STRUCTURED }), no('notJson', null, null)],
  ['Kafka: ce- is HTTP’s prefix', kafka({ ...CE }, 'x'), no('notACloudEvent', null, null)],
  ['HTTP: ce_ is Kafka’s prefix', http({ ...CE_KAFKA, 'content-type': 'text/plain' }, 'x'), no('notACloudEvent', null, null)],

  // The structured envelope as JSON.
  ['the least event', members(''), ok()],
  ['white space anywhere', whole(` \r\n\t{ "specversion" : "1.0" ,\n"id":"1", "source":"/s","type":"t" } \n`), ok()],
  ['a byte order mark before it', whole(`\ufeff{${BASE_JSON}}`), ok()],
  ['an empty body', whole(''), no('notJson', null, null)],
  ['white space alone', whole(' \n'), no('notJson', null, null)],
  ['a text that ends early', whole(`{${BASE_JSON}`), no('notJson')],
  ['a string that ends early', whole(`{${BASE_JSON},"x":"y`), no('notJson')],
  ['a trailing comma', whole(`{${BASE_JSON},}`), no('notJson')],
  ['a missing comma', whole(`{${BASE_JSON} "x":"y"}`), no('notJson')],
  ['a missing colon', whole(`{${BASE_JSON},"x" "y"}`), no('notJson')],
  ['a name without quotes', whole(`{${BASE_JSON},x:"y"}`), no('notJson')],
  ['single quotes', whole(`{${BASE_JSON},'x':'y'}`), no('notJson')],
  ['something after the object', whole(`{${BASE_JSON}}{}`), no('notJson')],
  ['a comment', whole(`{${BASE_JSON}}// x`), no('notJson')],
  ['a raw line end within a string', whole(`{${BASE_JSON},"x":"a\nb"}`), no('notJson')],
  ['an escape that there is not', members('"x":"\\x41"'), no('notJson')],
  ['an escape cut short', members('"x":"\\u00e"'), no('notJson')],
  ['a word that there is not', members('"x":tru'), no('notJson')],
  ['NaN', members('"x":NaN'), no('notJson')],
  ['a number with a leading zero', members('"data":{"n":012}'), no('notJson')],
  ['a number with a leading plus', members('"data":+1'), no('notJson')],
  ['a number that ends in its point', members('"data":1.'), no('notJson')],
  ['a number that begins with its point', members('"data":.5'), no('notJson')],
  ['a number without the digits of its exponent', members('"data":1e'), no('notJson')],
  ['a lone minus', members('"data":-'), no('notJson')],
  ['broken JSON inside data', members('"data":{"a":[1,2}'), no('notJson')],
  ['a trailing comma inside data', members('"data":[1,]'), no('notJson')],
  ['bad UTF-8 in an attribute', whole(Buffer.concat([Buffer.from(`{${BASE_JSON},"x":"`), Buffer.from([0xff]), Buffer.from('"}')])), no('badUtf8')],
  ['bad UTF-8 in data', whole(Buffer.concat([Buffer.from(`{${BASE_JSON},"data":"`), Buffer.from([0xc0, 0xa0]), Buffer.from('"}')])), no('badUtf8')],
  ['a surrogate in UTF-8', whole(Buffer.concat([Buffer.from(`{${BASE_JSON},"data":"`), Buffer.from([0xed, 0xa0, 0x80]), Buffer.from('"}')])), no('badUtf8')],
  ['UTF-16', whole(Buffer.from(`{${BASE_JSON}}`, 'utf16le')), no('notJson', null, null)],
  ['an array where one event belongs', whole(`[{${BASE_JSON}}]`), no('batchNotAllowed', null, null)],
  ['a string', whole('"event"'), no('notAnObject', null, null)],
  ['null', whole('null'), no('notAnObject', null, null)],
  ['an empty object', whole('{}'), no('missingAttribute', 'specversion', null)],

  // Duplicate names.
  ['a duplicate attribute', members('"id":"2"'), no('duplicateAttribute', 'id')],
  ['a duplicate attribute with the same value', members('"type":"t"'), no('duplicateAttribute', 'type')],
  ['a duplicate that is spelled with an escape', members('"\\u0069d":"2"'), no('duplicateAttribute', 'id')],
  ['a duplicate of a null', members('"x":null,"x":"y"'), no('duplicateAttribute', 'x')],
  ['a duplicate data', members('"data":1,"data":2'), no('duplicateAttribute', 'data')],
  ['a duplicate data_base64', members('"data_base64":"","data_base64":""'), no('duplicateAttribute', 'data_base64')],
  ['a duplicate of the first source is not the source', whole('{"specversion":"1.0","id":"1","source":"/s","type":"t","source":"/other"}'), no('duplicateAttribute', 'source')],
  ['duplicates inside data are kept', members('"data":{"a":1,"a":2}'), ok({}, 'json', '{"a":1,"a":2}')],
  ['names that objects inherit are no duplicates', members('"constructor":"c","valueof":"v"'), ok({ constructor: 'c', valueof: 'v' })],

  // Attribute names.
  ['a name in capitals', members('"CorrelationId":"x"'), no('attributeName', 'CorrelationId')],
  ['a name with an underscore', members('"correlation_id":"x"'), no('attributeName', 'correlation_id')],
  ['a name with a dash', members('"data-classification":"x"'), no('attributeName', 'data-classification')],
  ['an empty name', members('"":"x"'), no('attributeName', null)],
  ['a name that could be somebody’s address is not repeated', members('"ana@example.com":"x"'), no('attributeName', null)],
  ['a wrong name whose value is null', members('"X":null'), no('attributeName', 'X')],
  ['__proto__', members('"__proto__":"x"'), no('attributeName', '__proto__')],
  ['a name of 21 characters', members(`"${'a'.repeat(21)}":"x"`), ok({ ['a'.repeat(21)]: 'x' })],
  ['a name of 64 characters', members(`"${'a'.repeat(64)}":"x"`), ok({ ['a'.repeat(64)]: 'x' })],
  ['a name of 65 characters', members(`"${'a'.repeat(65)}":"x"`), no('attributeName', null)],
  ['a name that begins with a digit', members('"1st":"x"'), ok({ '1st': 'x' })],
  ['a name spelled with an escape', members('"su\\u0062ject":"x"'), ok({ subject: 'x' })],

  // Attribute values.
  ['an integer attribute', members('"n":-12'), ok({ n: -12 })],
  ['the largest integer', members('"n":2147483647'), ok({ n: 2_147_483_647 })],
  ['the smallest integer', members('"n":-2147483648'), ok({ n: -2_147_483_648 })],
  ['minus zero is zero', members('"n":-0'), ok({ n: 0 })],
  ['an integer too large', members('"n":2147483648'), no('attributeRange', 'n')],
  ['an integer too small', members('"n":-2147483649'), no('attributeRange', 'n')],
  ['a fraction', members('"n":1.5'), no('attributeType', 'n')],
  ['an integer spelled as a fraction', members('"n":1.0'), no('attributeType', 'n')],
  ['an integer spelled with an exponent', members('"n":1e2'), no('attributeType', 'n')],
  ['booleans', members('"a":true,"b":false'), ok({ a: true, b: false })],
  ['an object', members('"x":{"id":"2"}'), no('attributeType', 'x')],
  ['an array', members('"x":["a"]'), no('attributeType', 'x')],
  ['null is as good as left out', members('"x":null,"subject":null,"time":null'), ok()],
  ['an empty extension', members('"x":""'), ok({ x: '' })],
  ['text outside ASCII', members('"x":"Zoë 😀"'), ok({ x: 'Zoë 😀' })],
  ['text with escapes', members('"x":"\\u005a\\"\\\\\\/\\ud83d\\ude00"'), ok({ x: 'Z"\\/😀' })],
  ['a control character', members('"x":"a\\u0007b"'), no('attributeCharacters', 'x')],
  ['an escaped line end', members('"x":"a\\nb"'), no('attributeCharacters', 'x')],
  ['DEL', members('"x":"a\u007fb"'), no('attributeCharacters', 'x')],
  ['a C1 control', members('"x":"a\u0085b"'), no('attributeCharacters', 'x')],
  ['an unpaired surrogate', members('"x":"a\\ud800b"'), no('attributeCharacters', 'x')],
  ['a noncharacter', members('"x":"a\uffffb"'), no('attributeCharacters', 'x')],
  ['a noncharacter of another plane', members('"x":"a\\ud83f\\udffeb"'), no('attributeCharacters', 'x')],
  ['a source that is no URI is kept as producers send it', whole('{"specversion":"1.0","id":"id","source":"Voice Contact","type":"task:new"}'), ok({ id: 'id', source: 'Voice Contact', type: 'task:new' })],

  // Required attributes and the specification's own.
  ['no id', whole('{"specversion":"1.0","source":"/s","type":"t"}'), no('missingAttribute', 'id')],
  ['no source', whole('{"specversion":"1.0","id":"1","type":"t"}'), no('missingAttribute', 'source', null)],
  ['no type', whole('{"specversion":"1.0","id":"1","source":"/s"}'), no('missingAttribute', 'type')],
  ['no specversion', whole('{"id":"1","source":"/s","type":"t"}'), no('missingAttribute', 'specversion')],
  ['a null id', whole('{"specversion":"1.0","id":null,"source":"/s","type":"t"}'), no('missingAttribute', 'id')],
  ['an empty id', whole('{"specversion":"1.0","id":"","source":"/s","type":"t"}'), no('emptyAttribute', 'id')],
  ['an empty source', whole('{"specversion":"1.0","id":"1","source":"","type":"t"}'), no('emptyAttribute', 'source', null)],
  ['an empty type', whole('{"specversion":"1.0","id":"1","source":"/s","type":""}'), no('emptyAttribute', 'type')],
  ['an empty specversion', whole('{"specversion":"","id":"1","source":"/s","type":"t"}'), no('emptyAttribute', 'specversion')],
  ['a numeric id', whole('{"specversion":"1.0","id":1,"source":"/s","type":"t"}'), no('attributeType', 'id')],
  ['a numeric specversion', whole('{"specversion":1.0,"id":"1","source":"/s","type":"t"}'), no('attributeType', 'specversion')],
  ['a boolean type', whole('{"specversion":"1.0","id":"1","source":"/s","type":true}'), no('attributeType', 'type')],
  ['a numeric time', members('"time":1690000000'), no('attributeType', 'time')],
  ['specversion 0.3', whole('{"specversion":"0.3","id":"1","source":"/s","type":"t"}'), no('unknownSpecversion', 'specversion')],
  ['specversion 9.9', whole('{"specversion":"9.9","id":"1","source":"/s","type":"t"}'), no('unknownSpecversion', 'specversion')],
  ['specversion 1', whole('{"specversion":"1","id":"1","source":"/s","type":"t"}'), no('unknownSpecversion', 'specversion')],
  ['time stays as received: nanoseconds and an offset', members('"time":"2023-08-02T22:01:43.123456789+05:30"'), ok({ time: '2023-08-02T22:01:43.123456789+05:30' })],
  ['time stays as received: lower case', members('"time":"2023-08-02t22:01:43z"'), ok({ time: '2023-08-02t22:01:43z' })],
  ['a date is no time', members('"time":"2023-08-02"'), no('invalidTime', 'time')],
  ['a time without an offset is no instant', members('"time":"2023-08-02T22:01:43"'), no('invalidTime', 'time')],
  ['a time with a space is none', members('"time":"2023-08-02 22:01:43Z"'), no('invalidTime', 'time')],
  ['the 30th of February is none', members('"time":"2023-02-30T00:00:00Z"'), no('invalidTime', 'time')],
  ['an empty time is none', members('"time":""'), no('invalidTime', 'time')],
  ['an empty datacontenttype', members('"datacontenttype":""'), no('emptyAttribute', 'datacontenttype')],
  ['a datacontenttype that is no media type', members('"datacontenttype":"json"'), no('invalidContentType', 'datacontenttype')],
  ['a datacontenttype with parameters stays as received', members('"datacontenttype":"Application/JSON; charset=utf-8","data":1'), ok({ datacontenttype: 'Application/JSON; charset=utf-8' }, 'json', '1')],
  ['an empty subject', members('"subject":""'), no('emptyAttribute', 'subject')],
  ['an empty dataschema', members('"dataschema":""'), no('emptyAttribute', 'dataschema')],
  ['identity with its type', members('"identity":"a@b","identitytype":"email"'), ok({ identity: 'a@b', identitytype: 'email' })],
  ['identity without identitytype', members('"identity":"a@b"'), no('identityWithoutType', 'identitytype')],
  ['identitytype without identity', members('"identitytype":"email"'), no('typeWithoutIdentity', 'identity')],
  ['a null identitytype is none', members('"identity":"a@b","identitytype":null'), no('identityWithoutType', 'identitytype')],
  ['the source is known although it comes after the fault', whole('{"specversion":"2.0","id":{},"type":"t","source":"/late"}'), no('attributeType', 'id', '/late')],

  // Data.
  ['an object', members(`${JSON_TYPE},"data":{"a":1}`), ok({ datacontenttype: 'application/json' }, 'json', '{"a":1}')],
  ['data before the attributes', whole(`{"data":{"id":"no"},${BASE_JSON}}`), ok({}, 'json', '{"id":"no"}')],
  ['numbers keep their digits and spelling', members('"data":{"n":[9007199254740993,1.0,1e2,-0,0.10,123456789012345678901234567890]}'), ok({}, 'json', '{"n":[9007199254740993,1.0,1e2,-0,0.10,123456789012345678901234567890]}')],
  ['keys keep their order, strings their escapes, space its place', members('"data": { "b" : "\\u00e9\\/" ,\n\t"a":[ ] } '), ok({}, 'json', '{ "b" : "\\u00e9\\/" ,\n\t"a":[ ] }')],
  ['text outside ASCII', members('"x":"é","data":"Grüße 😀"'), ok({ x: 'é' }, 'json', '"Grüße 😀"')],
  ['null', members('"data":null'), ok({}, 'json', 'null')],
  ['a string without datacontenttype is JSON', members('"data":"hello"'), ok({}, 'json', '"hello"')],
  ['a string under a +json type is JSON', members('"datacontenttype":"application/vnd.x+JSON","data":"hello"'), ok({ datacontenttype: 'application/vnd.x+JSON' }, 'json', '"hello"')],
  ['text/json is JSON', members('"datacontenttype":"text/json","data":"x"'), ok({ datacontenttype: 'text/json' }, 'json', '"x"')],
  ['a string under another type is that text', members(`${TEXT_TYPE},"data":"a\\n\\"\\u00fc"`), ok({ datacontenttype: 'text/plain' }, 'text', 'a\n"ü')],
  ['an empty string under another type is empty text', members(`${TEXT_TYPE},"data":""`), ok({ datacontenttype: 'text/plain' }, 'text', '')],
  ['an object under another type is kept as JSON', members(`${TEXT_TYPE},"data":{"a":1.0}`), ok({ datacontenttype: 'text/plain' }, 'json', '{"a":1.0}')],
  ['text with an unpaired surrogate stays as spelled', members(`${TEXT_TYPE},"data":"\\ud800"`), ok({ datacontenttype: 'text/plain' }, 'json', '"\\ud800"')],
  ['base64', members(`${BINARY_TYPE},"data_base64":"AP8="`), ok({ datacontenttype: 'application/octet-stream' }, 'binary', Buffer.from([0, 255]))],
  ['base64 of text under another type stays binary', members(`${TEXT_TYPE},"data_base64":"aGk="`), ok({ datacontenttype: 'text/plain' }, 'binary', 'hi')],
  ['base64 of JSON under a JSON type is JSON', members(`${JSON_TYPE},"data_base64":"${Buffer.from(' {"a":1}').toString('base64')}"`), ok({ datacontenttype: 'application/json' }, 'json', ' {"a":1}')],
  ['base64 without a type of what is no JSON, but text', members('"data_base64":"aGk="'), ok({}, 'text', 'hi')],
  ['base64 without a type of what is neither', members('"data_base64":"/w=="'), ok({}, 'binary', Buffer.from([255]))],
  ['base64 of an object under another type is JSON, as in data', members(`${BINARY_TYPE},"data_base64":"${Buffer.from('{\n}').toString('base64')}"`), ok({ datacontenttype: 'application/octet-stream' }, 'json', '{\n}')],
  ['empty base64', members(`${BINARY_TYPE},"data_base64":""`), ok({ datacontenttype: 'application/octet-stream' }, 'binary', '')],
  ['null base64 is none', members('"data_base64":null,"data":1'), ok({}, 'json', '1')],
  ['base64 without padding', members('"data_base64":"AP8"'), no('invalidBase64', 'data_base64')],
  ['base64 for URLs', members('"data_base64":"_-8="'), no('invalidBase64', 'data_base64')],
  ['base64 with a line end', members('"data_base64":"AP8=\\n"'), no('invalidBase64', 'data_base64')],
  ['base64 whose last bits are not zero', members('"data_base64":"AP9="'), no('invalidBase64', 'data_base64')],
  ['base64 that is a number', members('"data_base64":12'), no('invalidBase64', 'data_base64')],
  ['data and data_base64', members('"data":1,"data_base64":"AP8="'), no('dataTwice', 'data_base64')],
  ['data as deep as it may be', members(`"data":${NESTED(MAX_DEPTH)}`), ok({}, 'json', NESTED(MAX_DEPTH))],
  ['data too deep', members(`"data":${NESTED(MAX_DEPTH + 1)}`), no('tooDeep', 'data')],
  ['data absurdly deep', members(`"data":${NESTED(100_000)}`), no('tooDeep', 'data')],
  ['objects absurdly deep', members(`"data":${'{"a":'.repeat(20_000)}1${'}'.repeat(20_000)}`), no('tooDeep', 'data')],
  ['absurdly deep and never closed', members(`"data":${'['.repeat(200_000)}`), no('notJson')],
  ['base64 of JSON too deep', members(`"data_base64":"${Buffer.from(NESTED(MAX_DEPTH + 1)).toString('base64')}"`), no('tooDeep', 'data_base64')],

  // Size: attributes' names and values and the data, whatever the mode.
  ['as large as it may be', limit(33, members('"data":"x"')), ok({}, 'json', '"x"')],
  ['one byte too large', limit(32, members('"data":"x"')), no('tooLarge')],
  ['bytes count, not characters', limit(35, members('"x":"€","data":1')), ok({ x: '€' }, 'json', '1')],
  ['bytes count, not characters: one too many', limit(34, members('"x":"€","data":1')), no('tooLarge')],
  ['binary mode is measured alike', limit(32, binary({}, '"x"')), no('tooLarge')],
  ['binary mode as large as it may be', limit(33, binary({}, '"x"')), ok({}, 'json', '"x"')],
  ['far too large is not read', limit(35, members(`"data":"${'x'.repeat(5000)}"`)), no('tooLarge', null, null)],
  ['data beyond the default limit', members(`"data":"${'x'.repeat(DEFAULT_MAX_EVENT_BYTES)}"`), no('tooLarge')],

  // Binary mode over HTTP.
  ['no data', binary({}), ok()],
  ['an empty body is no data', binary({ 'content-type': 'application/json' }, ''), ok({ datacontenttype: 'application/json' })],
  ['JSON', binary({ 'content-type': 'application/json' }, '{"n": 1.0}\n'), ok({ datacontenttype: 'application/json' }, 'json', '{"n": 1.0}\n')],
  ['JSON without a content type', binary({}, '[1]'), ok({}, 'json', '[1]')],
  ['a JSON type over text', binary({ 'content-type': 'application/json' }, 'hello'), ok({ datacontenttype: 'application/json' }, 'text', 'hello')],
  ['a JSON type over JSON with a byte order mark, which is no JSON', binary({ 'content-type': 'application/json' }, '\ufeff{}'), ok({ datacontenttype: 'application/json' }, 'text', '\ufeff{}')],
  ['a JSON type over bad UTF-8', binary({ 'content-type': 'application/json' }, Buffer.from([0x22, 0xff, 0x22])), ok({ datacontenttype: 'application/json' }, 'binary', Buffer.from([0x22, 0xff, 0x22]))],
  ['JSON too deep', binary({ 'content-type': 'application/json' }, NESTED(MAX_DEPTH + 1)), no('tooDeep', 'data')],
  ['text', binary({ 'content-type': 'text/plain' }, 'Grüße'), ok({ datacontenttype: 'text/plain' }, 'text', 'Grüße')],
  ['text that is JSON too', binary({ 'content-type': 'text/plain' }, '{"a":1}'), ok({ datacontenttype: 'text/plain' }, 'text', '{"a":1}')],
  ['text of another charset', binary({ 'content-type': 'text/plain; charset=iso-8859-1' }, latin1('Grüße')), ok({ datacontenttype: 'text/plain; charset=iso-8859-1' }, 'binary', latin1('Grüße'))],
  ['bytes', binary({ 'content-type': 'application/octet-stream' }, Buffer.from([0, 200])), ok({ datacontenttype: 'application/octet-stream' }, 'binary', Buffer.from([0, 200]))],
  ['header names have no case', http({ 'CE-SpecVersion': '1.0', 'Ce-Id': '1', 'ce-Source': '/s', 'cE-TYPE': 't', 'Content-Type': 'text/plain' }, 'x'), ok({ datacontenttype: 'text/plain' }, 'text', 'x')],
  ['header values may be Buffers or arrays of one', binary({ 'ce-a': Buffer.from('x'), 'ce-b': ['y'], 'ce-c': [Buffer.from('z')] }), ok({ a: 'x', b: 'y', c: 'z' })],
  ['a header given twice', binary({ 'ce-x': ['a', 'b'] }), no('duplicateAttribute', 'x')],
  ['a header given twice in another case', binary({ 'ce-x': 'a', 'CE-X': 'a' }), no('duplicateAttribute', 'x')],
  ['an undefined header is none', binary({ 'ce-x': undefined, 'ce-y': [] }), ok()],
  ['other headers are nobody’s concern', binary({ accept: '*/*', 'ce': 'x', 'x-ce-y': 'z' }), ok()],
  ['percent-encoding (the specification’s example)', binary({ 'ce-x': 'Euro%20%E2%82%AC%20%F0%9F%98%80' }), ok({ x: 'Euro € 😀' })],
  ['percent-encoding in lower case, and where it was not needed', binary({ 'ce-x': '%41%e2%82%ac' }), ok({ x: 'A€' })],
  ['one round of percent-decoding', binary({ 'ce-x': '%2541' }), ok({ x: '%41' })],
  ['a percent sign that somebody forgot to encode', binary({ 'ce-x': '100% of 5%x' }), ok({ x: '100% of 5%x' })],
  ['percent-encoding of what is no UTF-8', binary({ 'ce-x': '%C0%A0' }), no('badUtf8', 'x')],
  ['percent-encoding of a control character', binary({ 'ce-x': 'a%0Ab' }), no('attributeCharacters', 'x')],
  ['a quoted value', binary({ 'ce-x': '"a \\"b\\" \\\\c"' }), ok({ x: 'a "b" \\c' })],
  ['unquoting comes before percent-decoding', binary({ 'ce-x': '"%22a%22"' }), ok({ x: '"a"' })],
  ['a quote that is not closed is a character', binary({ 'ce-x': '"a' }), ok({ x: '"a' })],
  ['raw UTF-8 as Node hands it over', binary({ 'ce-x': Buffer.from('Zoë').toString('latin1') }), ok({ x: 'Zoë' })],
  ['Latin-1 as Node hands it over', binary({ 'ce-x': 'Zoë' }), ok({ x: 'Zoë' })],
  ['a header Buffer that is no UTF-8', binary({ 'ce-x': Buffer.from([0xff]) }), no('badUtf8', 'x')],
  ['space around a value is not its own', binary({ 'ce-x': ' a ' }), ok({ x: 'a' })],
  ['a content type is not percent-decoded', binary({ 'content-type': 'text/x%20y' }, 'x'), ok({ datacontenttype: 'text/x%20y' }, 'text', 'x')],
  ['a content type that is none', binary({ 'content-type': 'nonsense' }, 'x'), no('invalidContentType', 'datacontenttype')],
  ['ce-datacontenttype that says the same', binary({ 'content-type': 'text/plain', 'ce-datacontenttype': 'text/plain' }, 'x'), ok({ datacontenttype: 'text/plain' }, 'text', 'x')],
  ['ce-datacontenttype that says something else', binary({ 'content-type': 'text/plain', 'ce-datacontenttype': 'text/html' }, 'x'), no('duplicateAttribute', 'datacontenttype')],
  ['ce-data is no attribute', binary({ 'ce-data': 'x' }), no('attributeName', 'data')],
  ['a header name outside the spec', binary({ 'ce-data_base64': 'x' }), no('attributeName', 'data_base64')],
  ['an empty required header', binary({ 'ce-id': '' }), no('emptyAttribute', 'id')],
  ['a missing required header', http({ 'ce-specversion': '1.0', 'ce-source': '/s', 'ce-type': 't' }), no('missingAttribute', 'id')],
  ['an unknown ce-specversion', binary({ 'ce-specversion': '0.3' }), no('unknownSpecversion', 'specversion')],
  ['a bad ce-time', binary({ 'ce-time': 'yesterday' }), no('invalidTime', 'time')],
  ['ce-identity without its type', binary({ 'ce-identity': 'a@b' }), no('identityWithoutType', 'identitytype')],
  ['numbers in headers are strings', binary({ 'ce-n': '12' }), ok({ n: '12' })],

  // Binary mode over Kafka.
  ['Kafka: a null value is legal', kafka(CE_KAFKA), ok()],
  ['Kafka: JSON with kafkajs’ Buffers', kafka({ ...CE_KAFKA, 'content-type': Buffer.from('application/json') }, '{"a":1}'), ok({ datacontenttype: 'application/json' }, 'json', '{"a":1}')],
  ['Kafka: values are UTF-8 and not percent-decoded', kafka({ ...CE_KAFKA, ce_x: Buffer.from('Zoë 100%41 "q" ') }), ok({ x: 'Zoë 100%41 "q" ' })],
  ['Kafka: strings and arrays', kafka({ ...CE_KAFKA, ce_x: 'a', ce_y: [Buffer.from('b')] }), ok({ x: 'a', y: 'b' })],
  ['Kafka: a header given twice', kafka({ ...CE_KAFKA, ce_x: [Buffer.from('a'), Buffer.from('a')] }), no('duplicateAttribute', 'x')],
  ['Kafka: bad UTF-8 in a header', kafka({ ...CE_KAFKA, ce_x: Buffer.from([0xc3]) }), no('badUtf8', 'x')],
  ['Kafka: a name in capitals', kafka({ ...CE_KAFKA, ce_Trace: 'a' }), no('attributeName', 'Trace')],
  ['Kafka: a missing id is never invented', kafka({ ce_specversion: '1.0', ce_source: '/s', ce_type: 't' }, 'x'), no('missingAttribute', 'id')],
  ['Kafka: a missing specversion', kafka({ ce_id: '1', ce_source: '/s', ce_type: 't' }, 'x'), no('missingAttribute', 'specversion')],

  // Batches.
  ['one bad element fails no other', whole(`[{${BASE_JSON}},{"id":1},12,{${BASE_JSON},"id":"2"},{${BASE_JSON},"data":${NESTED(9999)}},{${BASE_JSON}}]`, BATCH), batchOf('event', 'attributeType', 'notAnObject', 'duplicateAttribute', 'tooDeep', 'event')],
  ['an element with bad UTF-8 fails no other', whole(Buffer.concat([Buffer.from(`[{${BASE_JSON},"x":"`), Buffer.from([0xff]), Buffer.from(`"},{${BASE_JSON}}]`)]), BATCH), batchOf('badUtf8', 'event')],
  ['an element too large fails no other', limit(40, whole(`[{${BASE_JSON},"data":"${'x'.repeat(50)}"},{${BASE_JSON}}]`, BATCH)), batchOf('tooLarge', 'event')],
  ['an empty batch', whole(' [ ] ', BATCH), batchOf()],
  ['a batch within a batch', whole('[[]]', BATCH), batchOf('batchNotAllowed')],
  ['a batch that is no array', whole(`{${BASE_JSON}}`, BATCH), no('notAnObject', null, null)],
  ['a batch that ends early', whole(`[{${BASE_JSON}},`, BATCH), no('notJson', null, null)],
  ['a batch that is broken', whole(`[{${BASE_JSON}} {${BASE_JSON}}]`, BATCH), no('notJson', null, null)],
  ['a batch with something behind it', whole('[]x', BATCH), no('notJson', null, null)],
];

function summary(message: DecodedMessage): unknown {
  if (message.kind === 'batch') return { kind: 'batch', elements: message.elements.map((element) => (element.kind === 'event' ? 'event' : element.rejection.code)) };
  const { decoded } = message;
  if (decoded.kind === 'rejected') return { kind: 'rejected', code: decoded.rejection.code, attribute: decoded.rejection.attribute, source: decoded.source };
  const { attributes, dataKind, data } = decoded.event;
  return { kind: 'event', attributes, dataKind, data: Buffer.from(data).toString('latin1') };
}

describe('decodeMessage', () => {
  test('the table has at least 120 cases and a case for every code but those that the identity and the door give', () => {
    const codes = new Set(CASES.flatMap(([, , expected]) => (expected.kind === 'rejected' ? [expected.code] : [])));
    const later = ['missingIdentity', 'emptyIdentity', 'wrongWorkspace', 'erased'];
    expect(CASES.length).toBeGreaterThanOrEqual(120);
    expect([...codes, ...later].sort()).toEqual(Object.keys(REJECTION_CODES).sort());
  });

  test.each(CASES)('%s', (_name, message, expected) => {
    const options = { binding: message.binding, maxEventBytes: message.maxEventBytes ?? DEFAULT_MAX_EVENT_BYTES };
    const decoded = decodeMessage(message, options);
    expect(summary(decoded)).toEqual(expected.kind === 'event' ? { ...expected, data: Buffer.from(bytes(expected.data)).toString('latin1') } : expected);
    if (decoded.kind === 'one' && decoded.decoded.kind === 'event') {
      const { event } = decoded.decoded;
      expect([event.id, event.source, event.type]).toEqual([event.attributes['id'], event.attributes['source'], event.attributes['type']]);
      expect(event.time).toBe(event.attributes['time'] === undefined ? null : parseInstant(String(event.attributes['time'])));
    }
  });

  test('says that nothing came where nothing came: a body over HTTP, a tombstone on a topic', () => {
    const reason = (message: Message): unknown => decodeMessage(message, { binding: message.binding, maxEventBytes: DEFAULT_MAX_EVENT_BYTES });
    expect(reason(http({ 'content-type': STRUCTURED }, ''))).toMatchObject({ decoded: { rejection: { code: 'notJson', reason: 'the body is empty' } } });
    expect(reason(kafka({ 'content-type': STRUCTURED }))).toMatchObject({ decoded: { rejection: { code: 'notJson', reason: 'the record is empty' } } });
  });

  test('the data is a view of the very bytes received', () => {
    const body = Buffer.from(`{${BASE_JSON},"data":{"a":1}}`);
    const decoded = decodeStructured(body, OPTIONS);
    expect(decoded.kind === 'event' && decoded.event.data.buffer === body.buffer).toBe(true);
  });

  test('a body may be a plain Uint8Array at an offset of its own', () => {
    const body = new Uint8Array(Buffer.from(`xx{${BASE_JSON},"subject":"${'s'.repeat(40)}","data":"é"}yy`)).subarray(2, -2);
    const decoded = decodeStructured(body, OPTIONS);
    expect(decoded.kind === 'event' ? [decoded.event.attributes['subject'], Buffer.from(decoded.event.data).toString()] : decoded.rejection).toEqual(['s'.repeat(40), '"é"']);
  });

  test('the real events of the sandbox decode and encode to the same line', () => {
    const lines = readFileSync(new URL('../fixtures/wxcc-captured.ndjson', import.meta.url), 'utf8').trim().split('\n');
    expect(lines).toHaveLength(12);
    for (const line of lines) expect(encodeStructured(event(decodeStructured(Buffer.from(line), OPTIONS)))).toBe(line);
  });
});

// ---- properties ----------------------------------------------------------------------------------------------------------

function event(decoded: Decoded): CloudEvent {
  if (decoded.kind === 'rejected') throw new Error(`rejected: ${decoded.rejection.code} ${String(decoded.rejection.attribute)}`);
  return decoded.event;
}
function single(message: { headers: Headers; body: Uint8Array | null }, binding: 'http' | 'kafka'): CloudEvent {
  const decoded = decodeMessage(message, { ...OPTIONS, binding });
  if (decoded.kind === 'batch') throw new Error('a batch');
  return event(decoded.decoded);
}

const WORKSPACE = 'default';
if (!isWorkspaceId(WORKSPACE)) throw new Error('not a workspace id');
const KEYS = workspaceKeys(WORKSPACE, Buffer.alloc(32, 7));
function eventId(of: CloudEvent): string {
  const identified = KEYS.identify(of);
  if (identified.kind === 'rejected') throw new Error(identified.rejection.code);
  return identified.eventId;
}

/** Text that a CloudEvents String may be. */
const text = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 }).filter((value) => !/[\p{Cc}\p{Cs}\p{Noncharacter_Code_Point}]/u.test(value));
const RESERVED = ['id', 'source', 'specversion', 'type', 'time', 'subject', 'data', 'datacontenttype', 'dataschema', 'identity', 'identitytype',
  // The SDK's own properties of older versions.
  'schemaurl', 'datacontentencoding', 'partitionkey'];
const name = fc.stringMatching(/^[a-z0-9]{1,20}$/).filter((value) => !RESERVED.includes(value) && !(value in {}));
const extensions = (value: fc.Arbitrary<string>): fc.Arbitrary<Record<string, AttributeValue>> =>
  fc.dictionary(name, fc.oneof(value, fc.boolean(), fc.integer()), { maxKeys: 4 });
const time = fc.date({ min: new Date('0001-01-01T00:00:00Z'), max: new Date('9999-12-31T00:00:00Z'), noInvalidDate: true }).map((date) => date.toISOString());

type SdkHeaders = Record<string, AttributeValue | undefined>;
interface Sent { attributes: Record<string, AttributeValue>; data: unknown }
function sent(value: fc.Arbitrary<string>): fc.Arbitrary<Sent> {
  const attributes = fc.tuple(fc.record({ id: value, source: fc.constantFrom('/s', 'https://example.com/a?b=c', 'Voice'), type: value, time }), extensions(value),
    fc.option(fc.record({ identity: value, identitytype: fc.constantFrom('email', 'phone', 'customerId') }), { nil: {} }), fc.option(fc.record({ subject: value }), { nil: {} }));
  const payload = fc.oneof(
    fc.record({ datacontenttype: fc.constant('application/json'), data: fc.jsonValue({ maxDepth: 3 }).filter((json) => typeof json === 'object' && json !== null) }),
    fc.record({ datacontenttype: fc.constant('text/plain'), data: fc.string({ unit: 'grapheme', minLength: 1 }) }),
    fc.record({ datacontenttype: fc.constant('application/octet-stream'), data: fc.uint8Array({ minLength: 1 }).filter((bits) => !/^[\s]*[[{]/.test(Buffer.from(bits).toString('latin1'))) }),
  );
  return fc.tuple(attributes, payload).map(([[required, more, identity, subject], { datacontenttype, data }]) =>
    ({ attributes: { specversion: '1.0', ...more, ...required, ...identity, ...subject, datacontenttype }, data }));
}
function sdkEvent(of: Sent): SdkEvent<unknown> {
  return new SdkEvent({ ...of.attributes, data: of.data });
}
/** What the SDK leaves of the attributes: in binary mode all are strings. */
function asStrings(attributes: Record<string, AttributeValue>): Record<string, AttributeValue> {
  return Object.fromEntries(Object.entries(attributes).map(([key, value]) => [key, String(value)]));
}
function dataBytes(data: unknown): Buffer {
  return data instanceof Uint8Array ? Buffer.from(data) : Buffer.from(typeof data === 'string' ? data : JSON.stringify(data));
}
function expectSent(decoded: CloudEvent, of: Sent, attributes: Record<string, AttributeValue>): void {
  expect(decoded.attributes).toEqual(attributes);
  expect(Buffer.from(decoded.data).toString('hex')).toBe(dataBytes(of.data).toString('hex'));
}
/** As kafkajs hands over what it sent: values as Buffers, what is undefined left out. */
function asKafkaJs(headers: Record<string, AttributeValue | undefined>): Headers {
  return Object.fromEntries(Object.entries(headers).flatMap(([key, value]) => (value === undefined ? [] : [[key, Buffer.from(String(value))]])));
}
/** What the SDK 10 does not do itself (HTTP binding 3.1.3.2), done for it. */
function asHttp(headers: Record<string, AttributeValue | undefined>): Headers {
  const encode = (value: AttributeValue): string => Buffer.from(String(value)).toString('latin1').replace(/[^!#$&-~]/g, (char) => `%${char.charCodeAt(0).toString(16).padStart(2, '0').toUpperCase()}`);
  return Object.fromEntries(Object.entries(headers).flatMap(([key, value]) => (value === undefined ? [] : [[key, key === 'content-type' ? String(value) : encode(value)]])));
}

describe('what the cloudevents SDK encodes, we decode to the same event', () => {
  const RUNS = { numRuns: 150 };

  test('HTTP structured', () => {
    fc.assert(fc.property(sent(text), (of) => {
      const message = HTTP.structured(sdkEvent(of));
      expectSent(single({ headers: message.headers, body: Buffer.from(message.body as string) }, 'http'), of, of.attributes);
    }), RUNS);
  });

  test('HTTP binary', () => {
    fc.assert(fc.property(sent(text.map((value) => value.trim()).filter((value) => value !== '')), (of) => {
      const message = HTTP.binary(sdkEvent(of));
      expectSent(single({ headers: asHttp(message.headers as SdkHeaders), body: dataBytes(message.body) }, 'http'), of, asStrings(of.attributes));
    }), RUNS);
  });

  test('Kafka structured', () => {
    fc.assert(fc.property(sent(text), (of) => {
      const message = Kafka.structured(sdkEvent(of)) as unknown as { headers: SdkHeaders; value: string };
      expectSent(single({ headers: asKafkaJs(message.headers), body: Buffer.from(message.value) }, 'kafka'), of, of.attributes);
    }), RUNS);
  });

  test('Kafka binary: its value is an object, which the producer has to make bytes of', () => {
    fc.assert(fc.property(sent(text), (of) => {
      const message = Kafka.binary(sdkEvent(of)) as unknown as { headers: SdkHeaders; value: unknown };
      expectSent(single({ headers: asKafkaJs(message.headers), body: dataBytes(message.value) }, 'kafka'), of, asStrings(of.attributes));
    }), RUNS);
  });

  test('in every mode it has the same event id', () => {
    fc.assert(fc.property(sent(text.map((value) => value.trim()).filter((value) => value !== '')).filter((of) => of.attributes['identity'] !== undefined), (of) => {
      const sdk = sdkEvent(of);
      const http = HTTP.structured(sdk);
      const binary = HTTP.binary(sdk);
      const record = Kafka.binary(sdk) as unknown as { headers: SdkHeaders; value: unknown };
      const ids = [
        single({ headers: http.headers, body: Buffer.from(http.body as string) }, 'http'),
        single({ headers: asHttp(binary.headers as SdkHeaders), body: dataBytes(binary.body) }, 'http'),
        single({ headers: asKafkaJs(record.headers), body: dataBytes(record.value) }, 'kafka'),
      ].map(eventId);
      expect(new Set(ids).size).toBe(1);
    }), RUNS);
  });
});

/** JSON in any spelling: what JSON.stringify would never write. */
const spelledJson: fc.Arbitrary<string> = fc.letrec<{ value: string }>((tie) => ({
  value: fc.oneof({ maxDepth: 3 },
    fc.constantFrom('null', 'true', '-0', '1.0', '1e2', '9007199254740993', '"\\u0041\\ud800"', '"é"', '""', ' 1', '"\u2028"'),
    fc.array(tie('value'), { maxLength: 3 }).map((items) => `[${items.join(' ,\n')}]`),
    fc.array(fc.tuple(fc.constantFrom('a', 'b', '\\u0061'), tie('value')), { maxLength: 3 }).map((items) => `{${items.map(([key, value]) => `"${key}" :\t${value}`).join(',')}}`)),
})).value;

describe('encodeStructured', () => {
  const type = fc.constantFrom(undefined, 'application/json', 'text/plain', 'application/octet-stream', 'application/x+json; a=b');
  const body = fc.oneof(spelledJson.map((json) => Buffer.from(json)), fc.string({ unit: 'grapheme' }).map((value) => Buffer.from(value)), fc.uint8Array().map((bits) => Buffer.from(bits)), fc.constant(Buffer.alloc(0)));

  function roundTrip(original: CloudEvent): void {
    const line = encodeStructured(original);
    expect(line).not.toMatch(/[\r\n]/);
    const again = event(decodeStructured(Buffer.from(line), OPTIONS));
    expect({ ...again, data: Buffer.from(again.data).toString('latin1') }).toEqual({ ...original, data: Buffer.from(original.data).toString('latin1') });
    expect(eventId(again)).toBe(eventId(original));
  }

  test('an event of binary mode comes back as itself, on one line', () => {
    fc.assert(fc.property(extensions(text), type, body, (more, contentType, data) => {
      const headers = asKafkaJs({ ...Object.fromEntries(Object.entries(more).map(([key, value]) => [`ce_${key}`, value])), ce_specversion: '1.0', ce_id: '1', ce_source: '/s', ce_type: 't', ce_subject: 's', 'content-type': contentType });
      roundTrip(single({ headers, body: data }, 'kafka'));
    }), { numRuns: 400 });
  });

  test('an event of structured mode comes back as itself, on one line', () => {
    fc.assert(fc.property(extensions(text), type, spelledJson, fc.uint8Array(), fc.constantFrom('data', 'data_base64'), (more, contentType, json, bits, member) => {
      const envelope = JSON.stringify({ specversion: '1.0', id: '1', source: '/s', type: 't', subject: 's', ...more, datacontenttype: contentType }).slice(0, -1);
      const value = member === 'data' ? json : `"${Buffer.from(bits).toString('base64')}"`;
      roundTrip(event(decodeStructured(Buffer.from(`${envelope},"${member}":${value}}`), OPTIONS)));
    }), { numRuns: 400 });
  });

  test('data is told apart from no data', () => {
    const none = event(decodeStructured(Buffer.from(`{${BASE_JSON},"subject":"s"}`), OPTIONS));
    const empty = event(decodeStructured(Buffer.from(`{${BASE_JSON},"subject":"s","datacontenttype":"text/plain","data":""}`), OPTIONS));
    roundTrip(none);
    roundTrip(empty);
    expect([none.dataKind, empty.dataKind]).toEqual(['none', 'text']);
  });
});

describe('a body of any kind', () => {
  test('never throws, and is an event only where JSON.parse agrees that it is JSON', () => {
    const valid = `{${BASE_JSON},"x":"é\\n","n":12,"data":{"a":[1,2.5e-3,true,null,"\\u00e9"]}}`;
    const damaged = fc.tuple(fc.nat(valid.length), fc.nat(3), fc.string({ maxLength: 3 })).map(([at, cut, put]) => valid.slice(0, at) + put + valid.slice(at + cut));
    fc.assert(fc.property(fc.oneof(damaged, spelledJson, fc.string(), fc.json()), (body) => {
      const decoded = decodeStructured(Buffer.from(body), OPTIONS);
      const isJson = ((): boolean => {
        try {
          JSON.parse(body);
          return true;
        } catch {
          return false;
        }
      })();
      expect(decoded.kind === 'rejected' && decoded.rejection.code === 'notJson').toBe(!isJson);
    }), { numRuns: 2000 });
  });

  test('never throws over bytes and headers of any kind', () => {
    const headers = fc.dictionary(fc.constantFrom('ce-id', 'ce_id', 'content-type', 'ce-specversion', 'ce_specversion', 'ce-x', 'ce-', 'ce_'), fc.oneof(fc.string(), fc.uint8Array(), fc.array(fc.string(), { maxLength: 2 }), fc.constantFrom(undefined, '1.0', STRUCTURED, BATCH, 'application/json')));
    fc.assert(fc.property(headers, fc.option(fc.uint8Array()), fc.constantFrom('http' as const, 'kafka' as const), (all, body, binding) => {
      expect(['one', 'batch']).toContain(decodeMessage({ headers: all, body }, { ...OPTIONS, binding }).kind);
    }), { numRuns: 500 });
  });

  test('drivers’ nulls and numbers among the headers are passed over', () => {
    const headers = { ...CE_KAFKA, ce_x: null, ce_y: 5, ce_z: [null, 'z'] } as unknown as Headers;
    expect(single({ headers, body: null }, 'kafka').attributes).toEqual({ ...BASE, z: 'z' });
  });

  test('work grows with the bytes, not with their square: ten thousand attributes', () => {
    const many = Array.from({ length: 10_000 }, (_, index) => `"a${index}":null,"b${index}":""`).join(',');
    const decoded = decodeStructured(Buffer.from(`{${BASE_JSON},${many}}`), { maxEventBytes: 1 << 20 });
    expect(Object.keys(event(decoded).attributes)).toHaveLength(10_004);
  });

  test('a rejection never repeats what the event says', () => {
    const secret = 'ana@example.com';
    const bodies = [`"x":"\\u0007${secret}"`, `"time":"${secret}"`, `"datacontenttype":"${secret}"`, `"${secret}":1`, `"identity":"${secret}"`, `"data_base64":"${secret}"`, `"n":{"a":"${secret}"}`];
    for (const json of bodies) {
      const decoded = decodeStructured(Buffer.from(`{${BASE_JSON},${json}}`), OPTIONS);
      expect(decoded.kind === 'rejected' ? JSON.stringify(decoded.rejection) : 'an event').not.toMatch(/ana@|event$/);
    }
  });
});
