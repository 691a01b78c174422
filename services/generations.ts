// Which generation of a group answers, and whose events it was folded from.
import { OperatingError } from './errors.ts';
import type { Generation, ViewStore } from './ports.ts';

/** Null while there is none, or when it was dropped between two looks. */
export async function liveOf(views: ViewStore, group: string): Promise<Generation | null> {
  const live = await views.live(group);
  return live === null ? null : (await views.generations(group)).find(({ id }) => id === live) ?? null;
}

export const FOREIGN_ADVICE = 'give these views their own event store, or these events empty views (another prefix= or database, another folder)';

/** Views say whose events they hold: whoever reads or writes them beside another store would mix two histories. */
export function foreignStore({ group, storeId }: Pick<Generation, 'group' | 'storeId'>, ours: string): OperatingError {
  return new OperatingError('foreignStore', `the views of "${group}" were folded from event store ${storeId}, but this is ${ours}: ${FOREIGN_ADVICE}`);
}
