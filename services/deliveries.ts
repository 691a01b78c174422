// A record of a topic as the door needs it: decoded, with the workspace that it goes to. Shared by ingest, which reads the
// topic, and by the operator's retry of a dead letter, which must judge alike.
import { type Decoded, decodeMessage, type Rejection } from '../schemas/cloudevent.ts';
import type { DeliveryOrigin } from '../schemas/recorded.ts';
import { OperatingError } from './errors.ts';
import type { Delivery } from './ports.ts';

/** What holds for every record of a topic. */
export interface TopicRules {
  /** The workspaces that the topic may write to, at least one. */
  readonly workspaces: readonly string[];
  readonly maxEventBytes: number;
}

/** `workspace` is null where nobody can be told apart as the one it is for: then it is rejected. */
type ReadDelivery =
  | { readonly workspace: string; readonly decoded: Decoded }
  | { readonly workspace: null; readonly decoded: Extract<Decoded, { kind: 'rejected' }> };

/**
 * Decodes one record (CloudEvents Kafka binding) and chooses its workspace: the only one listed, or the one among those
 * listed that the extension `workspace` names (design.md section 7). An event that names another is nobody's; where one
 * workspace is listed, it goes to the door as rejected, which counts it there.
 */
function readDelivery({ headers, value }: Pick<Delivery, 'headers' | 'value'>, { workspaces, maxEventBytes }: TopicRules): ReadDelivery {
  const message = decodeMessage({ headers, body: value }, { binding: 'kafka', maxEventBytes });
  if (message.kind === 'batch') throw new Error('assertion: the Kafka binding has no batches');
  const { decoded } = message;
  const [first, another] = workspaces;
  if (first === undefined) throw new Error('assertion: a topic lists the workspaces that it may write to');
  const only = another === undefined ? first : null;
  if (decoded.kind === 'rejected') return { workspace: only, decoded };
  const named = decoded.event.attributes['workspace'] ?? only;
  if (named !== null && workspaces.includes(String(named))) return { workspace: String(named), decoded };
  const reason = named === null
    ? 'the topic is for several workspaces, and the event names none of them in its extension workspace'
    : 'the event names a workspace that the topic may not write to';
  return { workspace: only, decoded: { kind: 'rejected', rejection: { code: 'wrongWorkspace', attribute: 'workspace', reason }, source: decoded.event.source, received: decoded.received } };
}

/** What goes to the door in one call: of one workspace, in the order given. `of`: what the caller knows each by. */
export interface WorkspaceDeliveries<T> { readonly of: T[]; readonly decoded: Decoded[]; readonly origins: DeliveryOrigin[] }
interface Read<T> { readonly of: T; readonly delivery: Pick<Delivery, 'headers' | 'value'>; readonly origin: DeliveryOrigin }

/** Reads them and parts them by workspace. What is nobody's is rejected at once. */
export function byWorkspace<T>(deliveries: Iterable<Read<T>>, rules: TopicRules, onRejected: (of: T, rejection: Rejection) => void): ReadonlyMap<string, WorkspaceDeliveries<T>> {
  const groups = new Map<string, WorkspaceDeliveries<T>>();
  for (const { of, delivery, origin } of deliveries) {
    const { workspace, decoded } = readDelivery(delivery, rules);
    if (workspace === null) {
      onRejected(of, decoded.rejection);
      continue;
    }
    let group = groups.get(workspace);
    if (group === undefined) groups.set(workspace, group = { of: [], decoded: [], origins: [] });
    group.of.push(of);
    group.decoded.push(decoded);
    group.origins.push(origin);
  }
  return groups;
}

/** The topic lists a workspace that was never made. */
export function workspaceMissing(workspace: string): OperatingError {
  return new OperatingError('workspaceMissing', `the topic writes to workspace ${workspace}, which is not there: make it with throughline workspaces create ${workspace}`);
}
