// Stored documents → the answers' own shapes: every documented field, in its place; what was not said is null.
import type { JourneyDetail } from '../../schemas/apis/native.ts';
import { type JourneyAnswer, type Revision, seedOutcome, type TransitionAnswer } from '../../schemas/apis/eightbyeight.ts';
import type { Agent, Endpoint, Place, Site } from '../../schemas/facts.ts';
import type { Zone } from './zones.ts';
import { type JourneyDocument, type JourneyRow, type Participant, phoneCodesOf, type Transition } from '../../projections/documents.ts';

export function journeyOf(row: JourneyRow, zone: Zone): JourneyAnswer {
  const { contact } = row;
  return {
    time: zone.print(row.at),
    finishedTime: row.finishedAt === null ? null : zone.print(row.finishedAt),
    journeyId: row.journeyId,
    interactions: row.interactions.map(({ id, direction, type }) => ({ id, direction, type })),
    agents: row.agents.map(agentOf),
    contact: { name: contact.name ?? null, phoneNumber: contact.phoneNumber ?? null, email: contact.email ?? null },
    entryPoint: row.entryPoint === null ? null : { ...endpointOf(row.entryPoint), tenantId: row.entryPoint.tenantId ?? null, site: siteOf(row.entryPoint.site) },
    direction: row.direction,
    transfersCompleted: row.transfersCompleted,
    forwardedToQueue: row.forwardedToQueue,
    forwardedToRingGroup: row.forwardedToRingGroup,
    forwardedToScript: row.forwardedToScript,
    holdDuration: row.holdDuration,
    mediaTypes: row.mediaTypes,
    outcome: row.outcome,
    origin: row.origin === null ? null : { ...endpointOf(row.origin), site: siteOf(row.origin.site) },
    pbxNames: row.pbxNames,
    queues: row.queues.map(placeOf),
    ringGroups: row.ringGroups.map(placeOf),
    scheduleHours: row.scheduleHours,
    schedules: row.schedules.map(({ id, tag, tenantId, result }) => ({ id, tag, tenantId, result })),
    tenantIds: row.tenantIds,
    wrapUpCodes: row.wrapUpCodes,
    outboundPhoneCodes: phoneCodesOf(row).map(({ listName, name, shortCode }) => ({ listName, name, shortCode })),
    ...(row.aiAgentInformation === null ? {} : { aiAgentInformation: row.aiAgentInformation }),
  };
}

/** As a search answers in one revision of the 8x8 API. */
export function searchedJourneyOf(row: JourneyRow, zone: Zone, revision: Revision): JourneyAnswer {
  const answer = journeyOf(row, zone);
  return { ...answer, entryPoint: searchedEntryPoint(answer.entryPoint), outcome: revision === 'seed' ? seedOutcome(answer.outcome) : answer.outcome };
}

/** 8x8 tells whose an entry point is of users alone, and a site only of what has one there (journey-apis-facts.md 1.8). */
function searchedEntryPoint(entryPoint: JourneyAnswer['entryPoint']): JourneyAnswer['entryPoint'] {
  if (entryPoint === null) return null;
  const ofUser = entryPoint.type === 'user' ? {} : { email: null, loginId: null, department: null };
  return { ...entryPoint, ...ofUser, site: SITED.has(entryPoint.type) ? entryPoint.site : null };
}

const SITED: ReadonlySet<string> = new Set<Endpoint['type']>(['call-queue', 'ring-group', 'auto-attendant']);

export function transitionOf(transition: Transition, zone: Zone): TransitionAnswer {
  return {
    time: zone.print(transition.at),
    name: transition.name,
    interactionId: transition.interactionId,
    agents: transition.agents.map(agentOf),
    previousAgents: transition.previousAgents.map(agentOf),
    previousQueue: maybePlace(transition.previousQueue),
    previousRingGroup: maybePlace(transition.previousRingGroup),
    queue: maybePlace(transition.queue),
    ringGroup: maybePlace(transition.ringGroup),
    duration: transition.duration,
    externalNumber: transition.externalNumber,
    mediaType: transition.mediaType,
    autoAttendant: maybePlace(transition.autoAttendant),
    channel: maybePlace(transition.channel),
    // Where a script is the destination of a move, 8x8 shows it in the IN_SCRIPT that follows.
    scripts: transition.name === 'IN_SCRIPT' ? scriptsOf(transition) : [],
  };
}

function scriptsOf({ scripts }: Transition): TransitionAnswer['scripts'] { return scripts.map(({ id, name }) => ({ id, name })); }

export function journeyDetailOf(document: JourneyDocument, transitions: readonly Transition[], zone: Zone): JourneyDetail {
  const { row } = document;
  return {
    ...journeyOf(row, zone),
    waitingDuration: row.waitingDuration,
    talkingDuration: row.talkingDuration,
    wrapUpDuration: row.wrapUpDuration,
    topics: row.topics,
    data: row.data,
    attributes: row.attributes,
    truncated: row.truncated,
    participants: document.participants.map((participant) => participantOf(participant, zone)),
    transitions: transitions.map((transition) => ({ ...transitionOf(transition, zone), scripts: scriptsOf(transition), events: transition.events })),
  };
}

function participantOf({ role, id, interactionId, name, agentId, joined, held, dropped }: Participant, zone: Zone): JourneyDetail['participants'][number] {
  return {
    role, id, interactionId, name, agentId, joined: zone.print(joined),
    held: held.map(({ from, to }) => ({ from: zone.print(from), to: to === null ? null : zone.print(to) })),
    dropped: dropped === null ? null : zone.print(dropped),
  };
}

function agentOf(agent: Agent): JourneyAnswer['agents'][number] {
  return {
    id: agent.id, subscriptionId: agent.subscriptionId ?? null, name: agent.name ?? null, email: agent.email ?? null, loginId: agent.loginId ?? null,
    department: agent.department ?? null, group: agent.group ?? null, site: siteOf(agent.site), type: agent.type ?? null,
  };
}

function endpointOf(endpoint: Endpoint) {
  return {
    type: endpoint.type, id: endpoint.id ?? null, name: endpoint.name ?? null, phoneNumber: endpoint.phoneNumber ?? null, extension: endpoint.extension ?? null,
    email: endpoint.email ?? null, loginId: endpoint.loginId ?? null, department: endpoint.department ?? null, pbx: endpoint.pbx ?? null,
  };
}

function placeOf(place: Place): JourneyAnswer['queues'][number] {
  return { id: place.id, name: place.name ?? null, extension: place.extension ?? null, site: siteOf(place.site) };
}

function maybePlace(place: Place | null): JourneyAnswer['queues'][number] | null { return place === null ? null : placeOf(place); }

function siteOf(site: Site | null | undefined): Site | null { return site ?? null; }
