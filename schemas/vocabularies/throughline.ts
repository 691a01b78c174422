// Our own event types, for a platform that publishes to Throughline directly: one per kind of fact. What each must hold
// is its zod schema here; schemas/README.md shows the same as JSON Schema, made from these (test/schemas/readme.ts).
//
// Strict about what is needed, tolerant of the rest: unknown members are left aside, a null where nothing is said counts
// as a missing member, and a number where a text belongs is its digits (as they are spelt, however many).
import { z } from 'zod';
import type { FactBody, InteractionFactBody } from '../facts.ts';
import type { RecordedCloudEvent } from '../recorded.ts';
import type { Vocabulary } from './vocabulary.ts';
import { MAX_ID_LENGTH, exactJson, interactionId, medium, unreadable } from './vocabulary.ts';

const NAME = 'throughline';
/** No honest event lists more; what one event may add to a view stays bounded. */
const MAX_ITEMS = 100;

// ---- the parts that several types share ---------------------------------------------------------------------------------

/** JSON has no undefined, so a member that is not there is all that "optional" can mean. Said to the types alone: zod's own `exactOptional` runs the inner schema on each absent member, which doubles the time of an event. */
const optional = <T extends z.ZodType>(schema: T): z.ZodExactOptional<T> => z.optional(schema) as unknown as z.ZodExactOptional<T>;
const word = z.string().max(1000);
const maybe = optional(z.nullable(word));
const id = z.string().max(MAX_ID_LENGTH);
const maybeId = z.nullable(id).default(null);
const maybeWord = z.nullable(word).default(null);
const list = <T extends z.ZodType>(item: T) => z.array(item).max(MAX_ITEMS);

const Site = z.object({ id: maybeId, name: maybeWord });
const site = optional(z.nullable(Site));
const Group = z.object({ id: maybeId, name: maybeWord });
const Agent = z.object({
  id, name: maybe, email: maybe, loginId: maybe, department: maybe, subscriptionId: optional(z.nullable(id)),
  group: optional(z.nullable(Group)), site, type: optional(z.enum(['HUMAN', 'AI'])),
});
const Place = z.object({ id: maybeId, name: maybe, extension: maybe, site });
const Contact = z.object({ name: maybe, phoneNumber: maybe, email: maybe });
const Endpoint = z.object({
  type: z.enum(['cc-channel', 'call-queue', 'ring-group', 'auto-attendant', 'user', 'ai-studio']),
  id: optional(z.nullable(id)), name: maybe, phoneNumber: maybe, extension: maybe, email: maybe, loginId: maybe, department: maybe,
  pbx: maybe, tenantId: optional(z.nullable(id)), site,
});
const Script = z.object({ id: maybeId, name: maybeWord });
const Schedule = z.object({ id: maybeId, tag: maybeWord, tenantId: maybeId, result: word });
const PhoneCode = z.object({ listName: maybeWord, name: maybeWord, shortCode: maybeWord });
const AiTool = z.object({ name: word, success: z.boolean() });
const Identifier = z.object({ type: z.string().min(1).max(64), value: z.string().min(1).max(1000) });

const agents = optional(list(Agent));
const place = optional(z.nullable(Place));
const role = z.enum(['customer', 'agent', 'supervisor', 'bot', 'treatment']);
const Destination = z.object({
  agents, queue: place, ringGroup: place, autoAttendant: place, channel: place, script: optional(z.nullable(Script)), externalNumber: maybe,
});
const Origin = z.object({ agents, queue: place, ringGroup: place });
const platformName = z.string().regex(/^[a-z0-9]{1,32}$/);

/** What every event of an interaction may say besides its own matter: `linkedTo` is another interaction's id, of this platform or of the vocabulary that `linkedPlatform` names. */
const interaction = { interactionId: id, journeyId: optional(id), linkedTo: optional(id), linkedPlatform: optional(platformName) };

// ---- the types ----------------------------------------------------------------------------------------------------------

interface EventType {
  /** One sentence for the README. */
  readonly about: string;
  readonly schema: z.ZodType;
  /** Of data that the schema gave back. */
  readonly facts: (data: never) => readonly FactBody[];
}

function ofInteraction<S extends z.ZodRawShape>(about: string, shape: S, say: (said: z.output<z.ZodObject<S>>) => InteractionFactBody | null): EventType {
  const schema = z.object({ ...interaction, ...shape });
  const facts = ({ interactionId: own, journeyId, linkedTo, linkedPlatform, ...said }: z.output<z.ZodObject<typeof interaction>>): readonly FactBody[] => {
    const to = interactionId(NAME, own);
    const found: FactBody[] = [];
    // The rest of an object that the schema made is exactly the type's own shape.
    const body = say(said as z.output<z.ZodObject<S>>);
    if (body !== null) found.push({ ...body, interaction: to });
    if (linkedTo !== undefined) found.push({ kind: 'linked', to: interactionId(linkedPlatform ?? NAME, linkedTo), interaction: to });
    if (journeyId !== undefined) found.push({ kind: 'journey', journeyId, interaction: to });
    return found;
  };
  return { about, schema, facts };
}

function ofCustomer<S extends z.ZodRawShape>(about: string, shape: S, say: (said: z.output<z.ZodObject<S>>) => FactBody): EventType {
  return { about, schema: z.object(shape), facts: (data: z.output<z.ZodObject<S>>) => [say(data)] };
}

const inState = { agents, queue: place };

/** Type → what it means. */
export const TYPES: Readonly<Record<string, EventType>> = {
  'org.throughline.interaction.started': ofInteraction(
    'An interaction with a customer began; sent again, it fills what was not said before.',
    {
      direction: optional(z.enum(['Inbound', 'Outbound', 'Internal'])), medium: optional(z.string().min(1).max(64).overwrite(medium)),
      contact: optional(Contact), entryPoint: optional(Endpoint), origin: optional(Endpoint),
      pbx: optional(word), tenant: optional(word), platform: optional(word),
    },
    (said) => ({ kind: 'started', ...said }),
  ),
  'org.throughline.interaction.linked': ofInteraction(
    'The interaction belongs to the same journey as another one, of this platform or of another that Throughline knows.',
    { linkedTo: id }, () => null,
  ),
  'org.throughline.interaction.script.entered': ofInteraction(
    'The customer is in IVR scripts or an auto attendant; schedules met on the way are said here too.',
    { scripts: optional(list(Script)), autoAttendant: place, scheduleHours: optional(list(word)), schedules: optional(list(Schedule)) },
    (said) => ({ kind: 'script', ...said }),
  ),
  'org.throughline.interaction.dialled': ofInteraction(
    'Somebody calls out to the customer: an outbound call, or one attempt of a callback (with the queue it waited on).',
    inState, (said) => ({ kind: 'dialling', ...said }),
  ),
  'org.throughline.interaction.waiting': ofInteraction(
    'The customer waits in a queue, for a ring group, or while the phones of the agents named are ringing.',
    { queue: place, ringGroup: place, agents }, (said) => ({ kind: 'waiting', ...said }),
  ),
  'org.throughline.interaction.forwarded': ofInteraction(
    'The system sent the interaction on: to agents, a queue, a ring group, an auto attendant, a script, a channel or an external number.',
    { to: Destination, from: optional(Origin) }, (said) => ({ kind: 'forwarded', ...said }),
  ),
  'org.throughline.interaction.transferred': ofInteraction(
    'The agent who handles the customer sent the interaction on.',
    { to: Destination, from: optional(Origin) }, (said) => ({ kind: 'transferred', ...said }),
  ),
  'org.throughline.interaction.answered': ofInteraction(
    'Agents (people or AI) and the customer are talking or writing to each other from now on.',
    inState, (said) => ({ kind: 'talking', ...said }),
  ),
  'org.throughline.interaction.held': ofInteraction(
    'The agents named put the customer on hold.',
    { agents, participantId: optional(id) }, (said) => ({ kind: 'held', ...said }),
  ),
  'org.throughline.interaction.resumed': ofInteraction(
    'The hold is over.',
    { agents, participantId: optional(id) }, (said) => ({ kind: 'resumed', ...said }),
  ),
  'org.throughline.interaction.voicemail.left': ofInteraction(
    'The customer reached a mailbox: of an agent, a queue or a ring group.',
    { agents, queue: place, ringGroup: place }, (said) => ({ kind: 'voicemail', ...said }),
  ),
  'org.throughline.interaction.followup.pending': ofInteraction(
    'A voicemail or a requested callback waits on a queue for somebody to follow it up.',
    { reason: z.enum(['voicemail', 'callback']), queue: place }, (said) => ({ kind: 'followUp', ...said }),
  ),
  'org.throughline.interaction.processing.started': ofInteraction(
    'An agent works on the interaction without the customer, such as listening to a voicemail.',
    inState, (said) => ({ kind: 'processing', ...said }),
  ),
  'org.throughline.interaction.phonecodes.set': ofInteraction(
    'The outbound phone codes that an agent chose for a call out.',
    { codes: list(PhoneCode) }, (said) => ({ kind: 'phoneCodes', ...said }),
  ),
  'org.throughline.interaction.aiagent.reported': ofInteraction(
    'What an AI agent used: credits, and its tools with whether each succeeded.',
    { creditConsumption: optional(z.number()), tools: optional(list(AiTool)) }, (said) => ({ kind: 'aiAgent', ...said }),
  ),
  'org.throughline.interaction.described': ofInteraction(
    'Topics, data and attributes of the conversation.',
    { topics: optional(list(word)), data: optional(z.record(z.string().max(100), word)), attributes: optional(list(word)) },
    (said) => ({ kind: 'described', ...said }),
  ),
  'org.throughline.interaction.wrapup.completed': ofInteraction(
    'The agents named finished their work after the conversation, with the codes they chose.',
    { agents, wrapUpCodes: optional(list(word)) }, (said) => ({ kind: 'wrappedUp', ...said }),
  ),
  'org.throughline.interaction.ended': ofInteraction(
    'The interaction ended; `final: false` when the platform may yet go on with it. What waits to be followed up waits on, until an end with `outcome: callbackExpired`, or a second one `by` an agent or the system.',
    { by: optional(z.enum(['customer', 'agent', 'system'])), outcome: optional(z.enum(['forwardedExternal', 'callbackExpired'])), final: z.boolean().default(true) },
    (said) => ({ kind: 'ended', ...said }),
  ),
  'org.throughline.participant.joined': ofInteraction(
    'Somebody joined the interaction: the customer, an agent, a supervisor, a bot or a treatment such as music.',
    { role, participantId: id, agent: optional(Agent), name: optional(word) }, (said) => ({ kind: 'joined', ...said }),
  ),
  'org.throughline.participant.held': ofInteraction(
    'One participant was put on hold.', { participantId: id, agents }, (said) => ({ kind: 'held', ...said }),
  ),
  'org.throughline.participant.resumed': ofInteraction(
    'One participant is back from hold.', { participantId: id, agents }, (said) => ({ kind: 'resumed', ...said }),
  ),
  'org.throughline.participant.dropped': ofInteraction(
    'A participant left the interaction, which may go on without. With the last agent who talks, the talk is over.', { participantId: id, role: optional(role) }, (said) => ({ kind: 'dropped', ...said }),
  ),
  'org.throughline.customer.identified': ofCustomer(
    'These identifiers, too, are the customer\'s own (never a queue\'s, an agent\'s or a dialled number): evidence that joins identities.',
    { identifiers: list(Identifier).min(1) }, (said) => ({ kind: 'identifiers', ...said }),
  ),
  'org.throughline.customer.named': ofCustomer(
    'The customer\'s name.', { firstName: maybe, lastName: maybe, name: maybe }, (said) => ({ kind: 'named', ...said }),
  ),
  'org.throughline.customer.web.visited': ofCustomer(
    'The customer did something on a web page or in an app.', { name: word, url: optional(word) }, (said) => ({ kind: 'webActivity', ...said }),
  ),
};

/** By name, for the JSON Schemas of the README: shared parts are said once. */
export const PARTS: Readonly<Record<string, z.ZodType>> = {
  Interaction: z.object(interaction), Agent, Place, Site, Group, Contact, Endpoint, Destination, Origin, Script, Schedule, PhoneCode, AiTool, Identifier,
};

// ---- reading ------------------------------------------------------------------------------------------------------------

// A Map, because a type may be called `constructor`.
const BY_TYPE: ReadonlyMap<string, EventType> = new Map(Object.entries(TYPES));

/** Where it went wrong, in the schema's own words: the first member's name and the rule, never a value. */
function reasonOf(error: z.ZodError): string {
  const issue = error.issues[0];
  const at = issue?.path[0];
  return `${typeof at === 'string' ? at : 'data'}: ${issue?.code ?? 'invalid'}`;
}

/**
 * Mends, in a copy of its own, what producers get wrong harmlessly: a serialiser's `"medium": null` says the same as no
 * member, and a number where a text belongs (an id, mostly) is the text of its digits.
 */
function mended(event: RecordedCloudEvent, error: z.ZodError): unknown {
  const data = exactJson(event);
  for (const issue of error.issues) {
    const owner = issue.path.slice(0, -1).reduce<unknown>((at, key) => (at as Record<PropertyKey, unknown> | null | undefined)?.[key], data);
    const key = issue.path.at(-1);
    if (typeof owner !== 'object' || owner === null || key === undefined) continue;
    const value: unknown = Reflect.get(owner, key);
    if (value === null && !Array.isArray(owner)) Reflect.deleteProperty(owner, key);
    else if (typeof value === 'number' && issue.code === 'invalid_type' && issue.expected === 'string') Reflect.set(owner, key, String(value));
  }
  return data;
}

function facts(event: RecordedCloudEvent): readonly FactBody[] {
  const type = BY_TYPE.get(event.event.type);
  if (type === undefined) return [];
  let read = type.schema.safeParse(event.json());
  if (!read.success) read = type.schema.safeParse(mended(event, read.error));
  return read.success ? type.facts(read.data as never) : unreadable(reasonOf(read.error));
}

export const throughline: Vocabulary = { name: NAME, knows: (event) => BY_TYPE.has(event.event.type), facts };
