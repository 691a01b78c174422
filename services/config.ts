// What a verb was asked to do, from its flags and the environment: the only file that reads either. Every flag has a
// variable THROUGHLINE_<FLAG>, unless that would be another program's; flags win; every problem is told at once. One table
// says what there is, to the parser and to `--help`.
import { z } from 'zod';
import { REVISIONS } from '../schemas/apis/eightbyeight.ts';
import { SEARCH_DEFAULTS } from './api/call.ts';
import { type EventsPlace, type Parsed, parseEventsUrl, parseSourceUrl, parseViewsUrl, REDIS_SHARDS_DEFAULT, type ViewsPlace } from './backends.ts';
import { DEFAULT_MAX_EVENT_BYTES } from '../schemas/cloudevent.ts';
import { isWorkspaceId } from '../schemas/identity.ts';
import { jsonOf } from './json.ts';
import { LOG_LEVELS } from './log.ts';
import { parseRate, printRate, RATE_HITS_MAX, RATE_WINDOW_S_MAX } from './rate-limit.ts';
import { API_KEY_LENGTH_MIN, DEFAULT_WORKSPACE, parseSecret } from './workspaces.ts';

// ---- values ----------------------------------------------------------------------------------------------------------

const text = z.string().min(1, 'must not be empty');
const integer = (least: number, most: number) => z.string().regex(/^\d{1,10}$/, 'must be a whole number').transform(Number).pipe(z.number().min(least, `must be at least ${String(least)}`).max(most, `must be at most ${String(most)}`));
const webUrl = z.string().refine((value) => URL.canParse(value) && /^https?:$/.test(new URL(value).protocol), 'must be a URL that begins with http:// or https://').transform((value) => value.replace(/\/+$/, ''));
const secret = z.string().transform((value, context) => {
  const bytes = parseSecret(value);
  if (bytes !== null) return bytes;
  context.addIssue({ code: 'custom', message: 'must be 32 bytes, as 64 hex digits or in base64' });
  return z.NEVER;
});
/** A place by its URL: every problem of it, and nothing that stands in it. */
const place = <T>(parse: (text: string) => Parsed<T>) => z.string().transform((value, context) => {
  const parsed = parse(value);
  if (parsed.kind === 'place') return parsed.place;
  for (const message of parsed.problems) context.addIssue({ code: 'custom', message });
  return z.NEVER;
});
const rate = z.string().transform((value, context) => {
  const parsed = parseRate(value);
  if (parsed !== null) return parsed;
  context.addIssue({ code: 'custom', message: `must be off, or hits and seconds (10/60s) or minutes (600/10m): at most ${String(RATE_HITS_MAX)} hits in at most ${String(RATE_WINDOW_S_MAX)} s` });
  return z.NEVER;
});
/** What stands for the values of a list in `--help`. */
const LIST = 'A,B';
const LIST_MAX = 1000;
/** One append holds them all, which a server takes up to a megabyte of. */
const LIST_CHARACTERS_MAX = 100_000;
/** `a,b`, or a JSON array where a value has a comma in it. Nothing is an empty list; a value twice is once. */
const list = z.string().transform((value, context) => {
  const found = value.startsWith('[') ? z.array(z.string()).safeParse(jsonOf(value)).data ?? null : value.split(',').map((one) => one.trim()).filter((one) => one !== '');
  const values = found === null ? null : [...new Set(found)];
  const problem = values === null || values.includes('') ? 'must be values separated by commas, or a JSON array of texts, none of them empty'
    : values.length > LIST_MAX || values.some((one) => one.length > LIST_MAX) ? `must be at most ${String(LIST_MAX)} values of at most ${String(LIST_MAX)} characters`
      : values.join('').length > LIST_CHARACTERS_MAX ? `must have at most ${String(LIST_CHARACTERS_MAX)} characters in all` : null;
  if (values !== null && problem === null) return values;
  context.addIssue({ code: 'custom', message: problem ?? '' });
  return z.NEVER;
});
const onOff = z.enum(['true', 'false', '1', '0'], 'must be true or false').transform((value) => value === 'true' || value === '1');

interface Flag {
  readonly schema: z.ZodType<unknown, string>;
  /** What stands for the value in `--help`; null for a switch. */
  readonly value: string | null;
  readonly help: string;
  /** Another name for the variable than THROUGHLINE_<FLAG>. */
  readonly variable?: string;
  /** `secret`: arguments can be read by every user of the machine, so it comes by its variable alone. `url`: may hold a password, so it is never shown. */
  readonly hidden?: 'secret' | 'url';
}

/** Of the URLs: a password in an argument is read by every user of the machine. */
const PASSWORD_HINT = 'with a password in it, use the variable';

const FLAGS = {
  data: { schema: text, value: 'DIR', help: 'data folder of the embedded stores: of the events unless --events names a server, of the views unless --views does' },
  events: { schema: place(parseEventsUrl), value: 'URL', help: `EventStoreDB: esdb://user:password@host:2113?tls=true, or esdb+discover://…; ${PASSWORD_HINT}`, hidden: 'url' },
  views: { schema: place(parseViewsUrl), value: 'URL', help: `Redis: redis://user:password@host:6379/0?prefix=…&shards=${String(REDIS_SHARDS_DEFAULT)} (of views made from now on: as many project processes can share them), rediss:// for TLS (caFile, certFile, keyFile), a Cluster as h1:p1,h2:p2?cluster=true; ${PASSWORD_HINT}`, hidden: 'url' },
  source: { schema: place(parseSourceUrl), value: 'URL', help: `Kafka: kafka://user:password@h1:9092,h2:9092/topic?workspaces=default&group=throughline&tls=true&caFile=…&sasl=scram-sha-512; ${PASSWORD_HINT}`, hidden: 'url' },
  host: { schema: text, value: 'HOST', help: 'address to listen on' },
  port: { schema: integer(0, 65_535), value: 'PORT', help: 'port to listen on; 0 picks a free one' },
  to: { schema: webUrl, value: 'URL', help: 'a running server' },
  json: { schema: onOff, value: null, help: 'answer with JSON' },
  workspace: { schema: z.string().refine(isWorkspaceId, 'must be 1 to 64 of a-z, 0-9 and _'), value: 'ID', help: 'workspace' },
  name: { schema: text, value: 'NAME', help: 'display name' },
  pbxNames: { schema: list, value: LIST, help: 'PBX names of the workspace beside those in its events, instead of those named before; a JSON array where one has a comma in it; an empty text for none' },
  tenantIds: { schema: list, value: LIST, help: 'tenant ids of the workspace beside those in its events, in the same way' },
  label: { schema: text.max(100, 'must have at most 100 characters'), value: 'TEXT', help: 'what the key is for' },
  identity: { schema: text, value: 'VALUE', help: 'e-mail address, phone number, account …' },
  identityType: { schema: text, value: 'TYPE', help: 'its type; left out, those that it may be of are tried' },
  id: { schema: text, value: 'ID', help: 'id of the CloudEvent, of the API key, or of the dead letter (TOPIC/PARTITION/OFFSET)' },
  code: { schema: z.string().regex(/^[A-Za-z0-9]{1,64}$/, 'must be the code of a rejection'), value: 'CODE', help: 'only those that were rejected with it' },
  maxEventBytes: { schema: integer(1024, 16 * 1024 * 1024), value: 'BYTES', help: 'largest event taken in' },
  '8x8Revision': { schema: z.enum(REVISIONS, 'must be seed or latest'), value: 'seed|latest', help: 'revision of the 8x8 Journey API that is answered where the two contradict each other' },
  maxRange: { schema: integer(SEARCH_DEFAULTS.maxRangeDays, 3660), value: 'DAYS', help: 'longest range of one search' },
  rateLimit: { schema: rate, value: 'N/SECONDS', help: 'searches of the 8x8 endpoints that one API key may make in any such stretch of time, or off. For serve and api: of keys that say nothing; for keys create and limit, and workspaces create: of that key' },
  logLevel: { schema: z.enum(LOG_LEVELS, `must be one of ${LOG_LEVELS.join(', ')}`), value: 'LEVEL', help: `least severe line logged: ${LOG_LEVELS.join(', ')}` },
  dryRun: { schema: onOff, value: null, help: 'ends after the comparison' },
  accept: { schema: onOff, value: null, help: 'promotes a generation that differs too' },
  rollback: { schema: onOff, value: null, help: 'back to the generation before, which catches up first; one of another version answers as it is, marked stale; with --dry-run or --rate, and no other' },
  anew: { schema: onOff, value: null, help: 'starts over instead of taking up what a replay left that was interrupted or refused' },
  forget: { schema: onOff, value: null, help: 'drops the generations that do not answer, the one kept for --rollback among them, but not what serve or project builds for an upgrade; alone' },
  journey: { schema: text, value: 'ID', help: 'this journey, by any id that it answers to' },
  person: { schema: z.string().regex(/^[0-9a-f]{24}$/, 'must be the 24 hex digits of a person'), value: 'ID', help: 'this person' },
  count: { schema: integer(1, 1_000_000), value: 'N', help: 'so many journeys, by chance, and as many persons' },
  all: { schema: onOff, value: null, help: 'all of them, of every workspace, by reading the whole log once' },
  audit: { schema: integer(0, 8784), value: 'HOURS', help: 'within so many hours, every journey and person that answers is folded anew and compared; 0: never' },
  rate: { schema: integer(1, 1_000_000), value: 'N', help: 'folds at most so many events a second' },
  exit: { schema: onOff, value: null, help: 'end after printing instead of serving on', variable: 'DEMO_EXIT' },
  apiKey: { schema: z.string().min(API_KEY_LENGTH_MIN, `must have at least ${String(API_KEY_LENGTH_MIN)} characters`), value: 'KEY', help: 'API key: of the server to talk to; for serve, the first key of the workspace made on first start', hidden: 'secret' },
  masterKey: { schema: secret, value: 'KEY', help: 'master key that wraps the secrets of workspaces, 32 bytes as hex or base64; left out, master.key in the data folder; needed where the events are on a server', hidden: 'secret' },
  workspaceSecret: { schema: secret, value: 'SECRET', help: 'secret of the workspace being made, 32 bytes as hex or base64; left out, a random one', hidden: 'secret' },
} as const satisfies Record<string, Flag>;
type FlagName = keyof typeof FLAGS;

interface Verb {
  readonly help: string;
  /** Words after the verb that must be one of these. */
  readonly actions?: readonly string[];
  /** Which of them it is where none is said. */
  readonly action?: string;
  /** Name of the argument that must follow, per action where there are actions. */
  readonly argument?: string;
  readonly flags: readonly FlagName[];
  readonly required?: readonly FlagName[];
  /** By action, where only some need it. */
  readonly requiredFor?: Readonly<Partial<Record<string, readonly FlagName[]>>>;
  /** Whose variables are not read: they are set for another program. */
  readonly bare?: readonly FlagName[];
  readonly defaults: Readonly<Partial<Record<FlagName, string>>>;
  /** A flag and a set of flags that exclude each other: a flag wins over the others' variables, and of variables the first named here. Without any, the first has URL_DEFAULT. */
  readonly either?: readonly [FlagName, readonly FlagName[]];
  /** Flags that say nothing beside one of these, or the opposite of it: told, whether they came as flags or as variables, so that none is left out in silence. */
  readonly apart?: readonly (readonly [FlagName, readonly FlagName[]])[];
  /** The stores that it opens, each in the data folder unless its flag names a server. */
  readonly stores?: readonly ('events' | 'views')[];
  /** What is wrong with its values together, each of which is good by itself. */
  readonly check?: (options: Readonly<Record<string, unknown>>) => readonly string[];
  /** It opens secrets of workspaces (with actions: those that do). */
  readonly secrets?: true | readonly string[];
}

const DATA_DEFAULT = './data';
const URL_DEFAULT = 'http://127.0.0.1:8080';
const EVENT_BYTES = String(DEFAULT_MAX_EVENT_BYTES);

const LISTENING = { host: '127.0.0.1', logLevel: 'info' } as const;
/** Ports of their own, so that all four run beside each other on one machine. */
const PORTS = { api: '8080', ingest: '8081', project: '8082' } as const;

/** What whoever answers searches is told of them. */
const SEARCHES = ['8x8Revision', 'maxRange', 'rateLimit'] as const;
const SEARCHING = { '8x8Revision': SEARCH_DEFAULTS.revision, maxRange: String(SEARCH_DEFAULTS.maxRangeDays), rateLimit: printRate(SEARCH_DEFAULTS.rateLimit) } as const;

function checkDeadLetters({ action, id, source, workspace }: Readonly<Record<string, unknown>>): readonly string[] {
  return [
    ...(typeof id === 'string' && !/^([^/\s]+\/)?\d{1,10}\/\d{1,19}$/.test(id) ? [`a dead letter is named TOPIC/PARTITION/OFFSET, or PARTITION/OFFSET of whatever topic (not ${quoted(id)})`] : []),
    ...(action === 'list' && id !== null && source === null ? ['--id names a dead letter of a topic: name the topic with --source'] : []),
    ...(source !== null && workspace !== null ? ['the dead letters of a topic are not parted by workspace: leave out --workspace, or --source for what was counted'] : []),
  ];
}

export const VERBS = {
  serve: {
    help: 'everything in one process: publish, project, query; with --source, read Kafka too. Stores are in --data unless --events and --views name servers',
    flags: ['data', 'events', 'views', 'source', 'host', 'port', 'maxEventBytes', ...SEARCHES, 'audit', 'logLevel', 'apiKey', 'masterKey', 'workspaceSecret'],
    defaults: { data: DATA_DEFAULT, ...LISTENING, port: PORTS.api, maxEventBytes: EVENT_BYTES, ...SEARCHING, audit: '24' }, stores: ['events', 'views'], secrets: true,
  },
  ingest: {
    help: 'a topic into the event store; several share its partitions. Health and metrics on --port',
    flags: ['source', 'data', 'events', 'views', 'host', 'port', 'maxEventBytes', 'logLevel', 'masterKey'], required: ['source'],
    defaults: { data: DATA_DEFAULT, ...LISTENING, port: PORTS.ingest, maxEventBytes: EVENT_BYTES }, stores: ['events', 'views'], secrets: true,
  },
  project: {
    help: 'the event store into the views; several share the shards, and one takes over what another leaves. Health and metrics on --port',
    flags: ['data', 'events', 'views', 'host', 'port', 'audit', 'logLevel', 'masterKey'],
    defaults: { data: DATA_DEFAULT, ...LISTENING, port: PORTS.project, audit: '24' }, stores: ['events', 'views'], secrets: true,
  },
  api: {
    help: 'every path over HTTP, publish included; folds nothing, so a project has to run somewhere',
    flags: ['data', 'events', 'views', 'host', 'port', 'maxEventBytes', ...SEARCHES, 'logLevel', 'apiKey', 'masterKey', 'workspaceSecret'],
    defaults: { data: DATA_DEFAULT, ...LISTENING, port: PORTS.api, maxEventBytes: EVENT_BYTES, ...SEARCHING }, stores: ['events', 'views'], secrets: true,
  },
  import: {
    help: 'CloudEvents from a file (NDJSON or a JSON array; - reads stdin), or a log that export wrote, into a running server, or straight into the stores: a folder that no serve holds, or servers',
    argument: 'FILE', flags: ['to', 'data', 'events', 'views', 'workspace', 'json', 'maxEventBytes', 'apiKey', 'masterKey', 'workspaceSecret'],
    defaults: { workspace: DEFAULT_WORKSPACE, json: 'false', maxEventBytes: EVENT_BYTES }, either: ['to', ['data', 'events', 'views']], stores: ['events', 'views'], secrets: true,
  },
  publish: {
    help: 'the events of a file (NDJSON or a JSON array; - reads stdin) onto the topic, byte for byte, keyed by identity',
    argument: 'FILE', flags: ['source', 'json', 'maxEventBytes'], required: ['source'], defaults: { json: 'false', maxEventBytes: EVENT_BYTES },
  },
  'dead-letters': {
    help: 'what could not be recorded. With --source, of the topic: list it, show one record (which prints a customer\'s data: key, headers and body), retry all or some through the door. Without, what was refused from imports, publishers and topics: counts by source and code, and hashes of the last', actions: ['list', 'show', 'retry'], action: 'list',
    flags: ['source', 'workspace', 'id', 'code', 'data', 'events', 'views', 'json', 'maxEventBytes', 'masterKey'], requiredFor: { show: ['source'], retry: ['source'] },
    defaults: { data: DATA_DEFAULT, json: 'false', maxEventBytes: EVENT_BYTES }, stores: ['events', 'views'], secrets: ['retry'], check: checkDeadLetters,
  },
  export: {
    help: 'the log, word for word, as NDJSON (- writes stdout), also beside a running serve; import takes it back into the stores of any backend, under the same master key. Without --workspace, all of them',
    argument: 'FILE', flags: ['data', 'events', 'workspace', 'json'], defaults: { data: DATA_DEFAULT, json: 'false' }, stores: ['events'],
  },
  backup: {
    help: 'a data folder, copied to DIR as it is at this moment, also beside a running serve; its master.key goes along', argument: 'DIR', flags: ['data', 'json'], defaults: { data: DATA_DEFAULT, json: 'false' },
  },
  restore: {
    help: 'what backup wrote to DIR, put back as a data folder that is not there yet', argument: 'DIR', flags: ['data', 'json'], defaults: { data: DATA_DEFAULT, json: 'false' },
  },
  preview: {
    help: 'what the events of a file would become; nothing is stored. Without --to, under a throw-away secret: the streams have other names than they will have',
    argument: 'FILE', flags: ['to', 'json', 'maxEventBytes', 'apiKey'], defaults: { json: 'false', maxEventBytes: EVENT_BYTES },
  },
  trace: {
    help: 'what became of an event: recorded or not, its position, facts and journey; also beside a running serve',
    flags: ['identity', 'identityType', 'id', 'data', 'events', 'views', 'workspace', 'json', 'masterKey'], required: ['identity', 'id'],
    defaults: { data: DATA_DEFAULT, workspace: DEFAULT_WORKSPACE, json: 'false' }, stores: ['events', 'views'], secrets: true,
  },
  status: {
    help: 'events, gap and lag of every group, generations, shards, rejections, disk; with --source also what is left on the topic. Also beside a running serve',
    flags: ['data', 'events', 'views', 'source', 'json'], defaults: { data: DATA_DEFAULT, json: 'false' }, stores: ['events', 'views'],
  },
  doctor: {
    help: 'looks at every backend that is named: reachable, version, settings, whose it is, clock, disk, keys; says what to do. Exit code 1 when something is bad',
    flags: ['data', 'events', 'views', 'source', 'json', 'masterKey'], defaults: { data: DATA_DEFAULT, json: 'false' }, stores: ['events', 'views'],
  },
  verify: {
    help: 'fold random journeys and persons, or the one named, anew from the log alone and compare them with what answers; --all reads the whole log once and compares everything (its scratch files stand in TMPDIR). Beside running programs; exit code 1 when something differs',
    flags: ['data', 'events', 'views', 'journey', 'person', 'count', 'all', 'workspace', 'json', 'masterKey'], defaults: { data: DATA_DEFAULT, count: '100', all: 'false', json: 'false' }, stores: ['events', 'views'], secrets: true,
    apart: [['all', ['journey', 'person', 'count', 'workspace']], ['count', ['journey', 'person']]],
  },
  replay: {
    help: 'fold a group anew from the log beside the live generation, compare, promote: beside running programs, which notice nothing. A difference is shown and refused. Taken up again where it was interrupted',
    actions: ['journeys', 'persons'], flags: ['data', 'events', 'views', 'dryRun', 'accept', 'rollback', 'anew', 'forget', 'rate', 'json', 'masterKey'],
    defaults: { data: DATA_DEFAULT, dryRun: 'false', accept: 'false', rollback: 'false', anew: 'false', forget: 'false', json: 'false' }, stores: ['events', 'views'], secrets: true,
    apart: [['forget', ['dryRun', 'accept', 'rollback', 'anew', 'rate']], ['rollback', ['accept', 'anew']]],
  },
  workspaces: {
    help: 'make and list workspaces, set what is known of one; also beside a running serve', actions: ['create', 'list', 'set'],
    flags: ['data', 'events', 'workspace', 'name', 'rateLimit', 'pbxNames', 'tenantIds', 'json', 'masterKey', 'workspaceSecret'], bare: ['rateLimit'], defaults: { data: DATA_DEFAULT, json: 'false' }, stores: ['events'], secrets: ['create'],
  },
  keys: {
    help: 'make, list and revoke API keys, and say how often one may search; also beside a running serve', actions: ['create', 'list', 'limit', 'revoke'],
    flags: ['data', 'events', 'workspace', 'label', 'rateLimit', 'id', 'json'], bare: ['rateLimit'], requiredFor: { limit: ['rateLimit'] }, defaults: { data: DATA_DEFAULT, workspace: DEFAULT_WORKSPACE, label: 'made by hand', json: 'false' }, stores: ['events'],
  },
  demo: {
    help: 'serve an empty folder, import examples, ask questions. Where THROUGHLINE_SOURCE, THROUGHLINE_EVENTS or THROUGHLINE_VIEWS name servers, the same on those, the examples published on the topic',
    flags: ['host', 'port', 'exit'], defaults: { host: '127.0.0.1', port: '0', exit: 'false' },
  },
} as const satisfies Record<string, Verb>;
export type VerbName = keyof typeof VERBS;

type Value<F extends FlagName> = z.output<(typeof FLAGS)[F]['schema']>;
/** A flag that is required or has a default is never null. */
type Certain<V extends VerbName> = keyof (typeof VERBS)[V]['defaults'] | ((typeof VERBS)[V] extends { readonly required: readonly (infer R)[] } ? R : never);
/** A store that a verb opens is somewhere, if not on a server then in the data folder; the folder itself is null where nothing stands in it. */
type Opened<V extends VerbName> = (typeof VERBS)[V] extends { readonly stores: readonly (infer S)[] } ? S : never;
type Places = { readonly events: EventsPlace; readonly views: ViewsPlace };
type Flags<V extends VerbName> = {
  readonly [F in (typeof VERBS)[V]['flags'][number]]:
    F extends keyof Places ? (F extends Opened<V> ? (V extends 'import' ? Places[F] | null : Places[F]) : Value<F> | null)
      : F extends 'data' ? (Opened<V> extends never ? string : string | null)
        : F extends Certain<V> ? Value<F> : Value<F> | null
};
type Action<V extends VerbName> = (typeof VERBS)[V] extends { readonly actions: readonly (infer A)[] } ? { readonly action: A } : unknown;
type Argument<V extends VerbName> = (typeof VERBS)[V] extends { readonly argument: string } ? { readonly file: string } : unknown;
/** What the verb's function is called with. `workspaces create ID` and `keys revoke ID` may name their subject without a flag. */
export type Options<V extends VerbName> = Flags<V> & Action<V> & Argument<V>;

export type Asked =
  | { readonly [V in VerbName]: { readonly kind: 'run'; readonly verb: V; readonly options: Options<V> } }[VerbName]
  | { readonly kind: 'help'; readonly text: string }
  | { readonly kind: 'version' }
  | { readonly kind: 'problems'; readonly problems: readonly string[]; readonly hint: string };

export type Environment = Readonly<Record<string, string | undefined>>;

/** What this process was asked to do. */
export function askedOfProcess(): Asked { return parse(process.argv.slice(2), process.env); }
/** For a program that starts another one (`demo`). */
export function environmentOfProcess(): Environment { return process.env; }

// ---- parsing ---------------------------------------------------------------------------------------------------------

interface Given { readonly words: readonly string[]; readonly flags: ReadonlyMap<string, string>; readonly problems: readonly string[] }

/** Never throws: every problem of flags and variables is in the answer. */
export function parse(argv: readonly string[], environment: Environment): Asked {
  const [name, ...rest] = argv;
  if (name === undefined || name === 'help' || name === '--help' || name === '-h') {
    const about = rest[0];
    return { kind: 'help', text: about !== undefined && isVerb(about) ? verbHelp(about) : overview() };
  }
  if (name === '--version' || name === 'version') return { kind: 'version' };
  if (!isVerb(name)) return { kind: 'problems', problems: [`there is no verb ${JSON.stringify(name)}${suggestion(name, Object.keys(VERBS), '')}`], hint: 'throughline --help lists the verbs' };
  if (rest.includes('--help') || rest.includes('-h')) return { kind: 'help', text: verbHelp(name) };
  return parseVerb(name, rest, environment);
}

function parseVerb(name: VerbName, argv: readonly string[], environment: Environment): Asked {
  const verb: Verb = VERBS[name];
  const given = splitArguments(verb, argv);
  const words = readWords(name, verb, given.words);
  const values = readValues(verb, withSubject(name, words, given.flags), words.options.action, environment);
  const problems = [...given.problems, ...words.problems, ...values.problems, ...(values.problems.length > 0 ? [] : verb.check?.({ ...values.options, ...words.options }) ?? [])];
  if (problems.length > 0) return { kind: 'problems', problems, hint: `throughline ${name} --help lists what it takes` };
  // The table made both the type and the value: every flag of the verb is there, checked by its own schema.
  return { kind: 'run', verb: name, options: { ...values.options, ...words.options } } as Asked;
}

function splitArguments(verb: Verb, argv: readonly string[]): Given {
  const words: string[] = [];
  const flags = new Map<string, string>();
  const problems: string[] = [];
  for (let i = 0; i < argv.length; i += 1) {
    const argument = argv[i] ?? '';
    if (!argument.startsWith('--')) { words.push(argument); continue; }
    const equals = argument.indexOf('=');
    const dashed = argument.slice(2, equals < 0 ? undefined : equals);
    const flag = verb.flags.find((one) => dash(one) === dashed && !isSecret(one));
    const inline = equals < 0 ? null : argument.slice(equals + 1);
    const next = argv[i + 1];
    const takesNext = inline === null && next !== undefined && !next.startsWith('--') && takesValue(verb, dashed);
    if (takesNext) i += 1;
    if (flag === undefined) { problems.push(unknownFlag(verb, dashed)); continue; }
    const value = inline ?? (takesNext ? next : FLAGS[flag].value === null ? 'true' : null);
    if (value === null) problems.push(`--${dashed} needs a value: --${dashed} ${FLAGS[flag].value ?? ''}`);
    else if (flags.has(flag)) problems.push(`--${dashed} is given twice`);
    else flags.set(flag, value);
  }
  return { words, flags, problems };
}

/** Also of a flag that is refused or misspelt: its value, a secret perhaps, is no word of its own then. */
function takesValue(verb: Verb, dashed: string): boolean {
  const flag = verb.flags.find((one) => dash(one) === dashed) ?? verb.flags.find((one) => dash(one) === nearest(dashed, verb.flags.map(dash)));
  return flag !== undefined && FLAGS[flag].value !== null;
}

function unknownFlag(verb: Verb, dashed: string): string {
  const secretFlag = verb.flags.find((one) => dash(one) === dashed);
  if (secretFlag !== undefined) return `--${dashed} is a secret, which other users could read from the list of processes: set ${variableOf(secretFlag)} instead`;
  return `there is no flag --${dashed}${suggestion(dashed, verb.flags.filter((one) => !isSecret(one)).map(dash), '--')}`;
}

interface Words { readonly options: { readonly action?: string; readonly file?: string }; readonly subject: string | null; readonly problems: readonly string[] }

function readWords(name: VerbName, verb: Verb, words: readonly string[]): Words {
  const problems: string[] = [];
  const rest = [...words];
  let options: Words['options'] = {};
  let subject: string | null = null;
  if (verb.actions !== undefined) {
    const action = rest.shift() ?? verb.action;
    if (action === undefined || !verb.actions.includes(action)) problems.push(`${name} needs one of: ${verb.actions.join(', ')}${action === undefined ? '' : ` (not ${JSON.stringify(action)})`}`);
    else options = { action };
    subject = SUBJECTS[`${name} ${action ?? ''}`] === undefined ? null : rest.shift() ?? null;
  }
  if (verb.argument !== undefined) {
    const file = rest.shift();
    if (file === undefined) problems.push(`${name} needs a ${verb.argument}`);
    else options = { ...options, file };
  }
  for (const word of rest) problems.push(`what is ${shown(word)}? Nothing more was expected`);
  return { options, subject, problems };
}

/** A word that nobody expected may be the value of a flag that was misspelt beyond recognition, a URL with a password in it. */
const shown = (word: string): string => (/:\/\/.*@/.test(word) ? 'this URL' : JSON.stringify(word));

/** Actions whose subject may stand as a word, and the flag that it stands for; without either it is missing. */
const SUBJECTS: Readonly<Partial<Record<string, FlagName>>> = { 'workspaces create': 'workspace', 'workspaces set': 'workspace', 'keys revoke': 'id', 'keys limit': 'id', 'dead-letters show': 'id' };

function withSubject(name: VerbName, words: Words, flags: ReadonlyMap<string, string>): { readonly flags: ReadonlyMap<string, string>; readonly required: readonly FlagName[] } {
  const flag = SUBJECTS[`${name} ${words.options.action ?? ''}`];
  if (flag === undefined) return { flags, required: [] };
  return { flags: words.subject === null ? flags : new Map(flags).set(flag, words.subject), required: [flag] };
}

function readValues(verb: Verb, given: ReturnType<typeof withSubject>, action: string | undefined, environment: Environment): { readonly options: Record<string, unknown>; readonly problems: readonly string[] } {
  const problems: string[] = [];
  const options: Record<string, unknown> = {};
  const dropped = excluded(verb, given.flags, environment, problems);
  for (const flag of verb.flags) {
    const asFlag = given.flags.get(flag);
    const value = dropped.includes(flag) ? undefined : asFlag ?? (verb.bare?.includes(flag) === true ? undefined : variable(flag, environment)) ?? verb.defaults[flag];
    options[flag] = null;
    if (value === undefined) {
      if (verb.required?.includes(flag) === true || verb.requiredFor?.[action ?? '']?.includes(flag) === true || given.required.includes(flag)) problems.push(`--${dash(flag)} is missing: ${FLAGS[flag].help}`);
      continue;
    }
    const parsed = FLAGS[flag].schema.safeParse(value);
    const name = asFlag === undefined ? variableOf(flag) : `--${dash(flag)}`;
    // Not the value itself where it may be a secret or hold one.
    if (!parsed.success) problems.push(...parsed.error.issues.map(({ message }) => `${name} ${message}${isHidden(flag) ? '' : ` (it is ${quoted(value)})`}`));
    else options[flag] = parsed.data;
  }
  problems.push(...contradictions(verb, options, given.flags, environment));
  const [to, stores] = verb.either ?? [];
  const toServer = to !== undefined && stores !== undefined && !stores.some((flag) => !dropped.includes(flag) && (given.flags.has(flag) || variable(flag, environment) !== undefined));
  if (toServer && options[to] === null && problems.length === 0) options[to] = URL_DEFAULT;
  if (!toServer && (to === undefined || options[to] === null)) problems.push(...settleStores(verb, options, given.flags, action, environment));
  return { options, problems };
}

const QUOTED_MAX = 200;
const quoted = (value: string): string => (value.length > QUOTED_MAX ? `${JSON.stringify(value.slice(0, QUOTED_MAX))}…` : JSON.stringify(value));

/** A variable that is set to nothing is not set: that is how one is cleared in a shell or a compose file. */
function variable(flag: FlagName, environment: Environment): string | undefined {
  const value = environment[variableOf(flag)];
  return value === '' ? undefined : value;
}

/** Puts each store that is not on a server into the data folder, and says what such a set of stores lacks. */
function settleStores(verb: Verb, options: Record<string, unknown>, flags: ReadonlyMap<string, string>, action: string | undefined, environment: Environment): readonly string[] {
  const problems: string[] = [];
  const named = (flag: FlagName): boolean => flags.has(flag) || variable(flag, environment) !== undefined;
  const inFolder = (verb.stores ?? []).filter((store) => !named(store));
  const folder = options['data'];
  for (const store of inFolder) {
    if (typeof folder === 'string') options[store] = { kind: 'sqlite', folder };
    else if (!named('data')) problems.push(`--data is missing: where the ${store} are, unless --${store} names a server`);
  }
  if (verb.stores !== undefined && inFolder.length === 0) {
    if (flags.has('data')) problems.push('--data would hold nothing: the stores are on servers');
    options['data'] = null;
  }
  const needsKey = verb.secrets === true || (action !== undefined && verb.secrets?.includes(action) === true);
  if (needsKey && named('events') && variable('masterKey', environment) === undefined) problems.push('THROUGHLINE_MASTER_KEY is missing: it opens the secrets of the workspaces, and with the events on a server there is no data folder to keep it in; 32 bytes as hex or base64, the same for every process');
  return problems;
}

/** Of flags that exclude each other, those to leave out. */
function excluded(verb: Verb, flags: ReadonlyMap<string, string>, environment: Environment, problems: string[]): readonly FlagName[] {
  if (verb.either === undefined) return [];
  const [first, others] = verb.either;
  const other = others.find((flag) => flags.has(flag));
  if (flags.has(first) && other !== undefined) {
    problems.push(`--${dash(first)} and --${dash(other)} exclude each other`);
    // Neither is left out, so that what is wrong with either is told as well.
    return [];
  }
  if (other !== undefined) return [first];
  return flags.has(first) || variable(first, environment) !== undefined ? others : [];
}

function contradictions(verb: Verb, options: Readonly<Record<string, unknown>>, flags: ReadonlyMap<string, string>, environment: Environment): readonly string[] {
  const isSaid = (flag: FlagName): boolean => (FLAGS[flag].value === null ? options[flag] === true : flags.has(flag) || variable(flag, environment) !== undefined);
  const nameOf = (flag: FlagName): string => (flags.has(flag) ? `--${dash(flag)}` : variableOf(flag));
  return (verb.apart ?? []).flatMap(([one, others]) => (isSaid(one) ? others.filter(isSaid).map((other) => `${nameOf(one)} and ${nameOf(other)} exclude each other`) : []));
}

const isVerb = (name: string): name is VerbName => Object.hasOwn(VERBS, name);
const isSecret = (flag: FlagName): boolean => (FLAGS[flag] as Flag).hidden === 'secret';
const isHidden = (flag: FlagName): boolean => (FLAGS[flag] as Flag).hidden !== undefined;
const dash = (name: string): string => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
const variableOfText = (name: string): string => `THROUGHLINE_${dash(name).replaceAll('-', '_').toUpperCase()}`;
const variableOf = (flag: FlagName): string => (FLAGS[flag] as Flag).variable ?? variableOfText(flag);

function suggestion(name: string, known: readonly string[], prefix: string): string {
  const meant = nearest(name, known);
  return meant === null ? '' : `. Did you mean ${prefix}${meant}?`;
}

/** The known name at the fewest edits, if at most two. */
function nearest(name: string, known: readonly string[]): string | null {
  const [best] = known.map((one) => ({ one, distance: editDistance(name, one) })).sort((a, b) => a.distance - b.distance);
  return best !== undefined && best.distance <= 2 ? best.one : null;
}

/** Levenshtein's, row by row. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      next.push(Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

// ---- help ------------------------------------------------------------------------------------------------------------

function overview(): string {
  const width = Math.max(...Object.keys(VERBS).map((name) => name.length));
  const verbs = Object.entries(VERBS).map(([name, { help }]) => `  ${name.padEnd(width)}  ${help}`);
  return ['Throughline, an event-sourced customer-journey store', '', 'throughline VERB [flags]', '', ...verbs, '', 'throughline VERB --help lists its flags, each with its variable THROUGHLINE_<FLAG>; flags win.', ''].join('\n');
}

function verbHelp(name: VerbName): string {
  const verb: Verb = VERBS[name];
  const actions = verb.actions?.map((action) => `${action}${SUBJECTS[`${name} ${action}`] === undefined ? '' : ' ID'}`);
  const usage = [`throughline ${name}`, ...(actions === undefined ? [] : [actions.join('|')]), ...(verb.argument === undefined ? [] : [verb.argument]), '[flags]'].join(' ');
  const rows = verb.flags.map((flag) => {
    const { value, help }: Flag = FLAGS[flag];
    const standard = verb.defaults[flag];
    const notes = [...(verb.required?.includes(flag) === true ? ['required'] : []), ...(standard === undefined || value === null ? [] : [`default ${standard}`])];
    const left = isSecret(flag) ? variableOf(flag) : `--${dash(flag)}${value === null ? '' : ` ${value}`}`;
    return { left, right: `${help}${notes.length === 0 ? '' : ` (${notes.join(', ')})`}${isSecret(flag) || verb.bare?.includes(flag) === true ? '' : ` [${variableOf(flag)}]`}` };
  });
  const width = Math.max(...rows.map(({ left }) => left.length));
  return [usage, '', verb.help, '', ...rows.map(({ left, right }) => `  ${left.padEnd(width)}  ${right}`), ''].join('\n');
}
