// POST /events: the CloudEvents HTTP binding, in front of the door.
import { decodeMessage, type Rejection } from '../../schemas/cloudevent.ts';
import type { DryRun, Receipt } from '../door.ts';
import type { Position } from '../ports.ts';
import type { Answer, ApiDeps, Call, Outcome } from './call.ts';
import { type Refused, refuse, type Views } from './views.ts';

/** Answers once everything is durable. Of a batch, one bad element fails no other. */
export async function publish({ door, limits }: ApiDeps, views: Views, { raw, keys }: Pick<Call<unknown, unknown, unknown>, 'raw' | 'keys'>, dryRun: boolean): Promise<Outcome> {
  if (door === null) return refuse('publishUnavailable');
  const message = decodeMessage({ headers: raw.headers, body: raw.bytes.length === 0 ? null : raw.bytes }, { binding: 'http', maxEventBytes: limits.maxEventBytes });
  const decoded = message.kind === 'one' ? [message.decoded] : message.elements;
  const results = dryRun ? door.dryRun(keys, decoded) : await door.receive(keys, decoded);
  const printed = results.map((result) => printResult(result, views));
  if (message.kind === 'batch') return batch(printed, results, views);
  const [only] = results;
  const [value] = printed;
  if (only === undefined || value === undefined) throw new Error('assertion: the door answers each event');
  if (only.kind === 'rejected') return saysItIsOne(raw.headers) ? rejected(only.rejection) : refuse('unsupportedMediaType', NOT_AN_EVENT);
  return { kind: 'answer', value, ...positionHeader(results, views) };
}

const NOT_AN_EVENT = { attribute: 'content-type', message: 'Neither the content type (application/cloudevents+json, application/cloudevents-batch+json) nor a ce- header says that this is a CloudEvent.' };

/** Any body is the data of some binary event, so the decoder can only say what is missing; who sent something else than JSON is better told why. */
function saysItIsOne(headers: Readonly<Record<string, string[] | undefined>>): boolean {
  return Object.keys(headers).some((name) => name.startsWith('ce-')) || /^\s*application\/(?:cloudevents|json\b)/i.test(headers['content-type']?.[0] ?? '');
}

type Printed = { readonly result: 'recorded' | 'duplicate' | 'rejected' | 'dryRun' } & Readonly<Record<string, unknown>>;

function printResult(result: Receipt | DryRun, views: Views): Printed {
  switch (result.kind) {
    case 'rejected': {
      const { code, attribute, reason } = result.rejection;
      return { result: 'rejected', code, attribute, message: reason };
    }
    case 'event': {
      const { id, eventId, stream, at, vocabulary, facts, why } = result;
      return { id, eventId, result: 'dryRun', stream, at, vocabulary, facts, reason: why === null ? null : { code: why.code, message: why.reason } };
    }
    case 'recorded':
    case 'duplicate': {
      const { id, eventId, stream, position } = result;
      return { id, eventId, result: result.kind, stream, position: position === null ? null : views.stated(position) };
    }
  }
}

function batch(printed: readonly Printed[], results: readonly (Receipt | DryRun)[], views: Views): Answer {
  const count = (result: Printed['result']): number => printed.filter((one) => one.result === result).length;
  const value = { results: printed.map((one, index) => ({ index, ...one })), recorded: count('recorded'), duplicate: count('duplicate'), rejected: count('rejected') };
  return { kind: 'answer', value, ...positionHeader(results, views) };
}

/** The highest of the positions: who waits for it has everything of the batch. */
function positionHeader(results: readonly (Receipt | DryRun)[], views: Views): Pick<Answer, 'headers'> {
  let highest: Position | null = null;
  for (const result of results) {
    if ((result.kind === 'recorded' || result.kind === 'duplicate') && result.position !== null && (highest === null || result.position > highest)) highest = result.position;
  }
  return highest === null ? {} : { headers: { 'Throughline-Position': views.stated(highest) } };
}

function rejected({ code, attribute, reason }: Rejection): Refused {
  return { kind: 'refused', code, problems: [{ code, message: reason, ...(attribute === null ? {} : { attribute }) }] };
}
