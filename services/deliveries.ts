// A record of a topic as the door needs it: decoded, with the workspace that it goes to. Shared by ingest, which reads the
// topic, and by the operator's retry of a dead letter, which must judge alike.
import { type Decoded, decodeMessage } from '../schemas/cloudevent.ts';
import type { Delivery } from './ports.ts';

/** What holds for every record of a topic. */
export interface TopicRules {
  /** The workspaces that the topic may write to, at least one. */
  readonly workspaces: readonly string[];
  readonly maxEventBytes: number;
}

/** `workspace` is null where nobody can be told apart as the one it is for: then it is rejected. */
export type ReadDelivery =
  | { readonly workspace: string; readonly decoded: Decoded }
  | { readonly workspace: null; readonly decoded: Extract<Decoded, { kind: 'rejected' }> };

/**
 * Decodes one record (CloudEvents Kafka binding) and chooses its workspace: the only one listed, whose keys the door then
 * checks against the `workspace` extension, or the one among those listed that the extension names (design.md section 7).
 */
export function readDelivery({ headers, value }: Pick<Delivery, 'headers' | 'value'>, { workspaces, maxEventBytes }: TopicRules): ReadDelivery {
  const message = decodeMessage({ headers, body: value }, { binding: 'kafka', maxEventBytes });
  if (message.kind === 'batch') throw new Error('assertion: the Kafka binding has no batches');
  const { decoded } = message;
  const [only, another] = workspaces;
  if (only === undefined) throw new Error('assertion: a topic lists the workspaces that it may write to');
  if (another === undefined) return { workspace: only, decoded };
  if (decoded.kind === 'rejected') return { workspace: null, decoded };
  const named = decoded.event.attributes['workspace'];
  if (named !== undefined && workspaces.includes(String(named))) return { workspace: String(named), decoded };
  const reason = named === undefined
    ? 'the topic is for several workspaces, and the event names none of them in its extension workspace'
    : 'the event names a workspace that the topic may not write to';
  return { workspace: null, decoded: { kind: 'rejected', rejection: { code: 'wrongWorkspace', attribute: 'workspace', reason }, source: decoded.event.source } };
}
