// What a verb was asked to do, from its flags and the environment: the only file that reads either. Every flag has a
// variable THROUGHLINE_<FLAG>; flags win; every problem is told at once. One table says what there is, to the parser and
// to `--help`.
import { z } from 'zod';
import { DEFAULT_MAX_EVENT_BYTES } from '../schemas/cloudevent.ts';
import { isWorkspaceId } from '../schemas/identity.ts';
import { LOG_LEVELS } from './log.ts';
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
const onOff = z.enum(['true', 'false', '1', '0'], 'must be true or false').transform((value) => value === 'true' || value === '1');

interface Flag {
  readonly schema: z.ZodType<unknown, string>;
  /** What stands for the value in `--help`; null for a switch. */
  readonly value: string | null;
  readonly help: string;
  /** Another name for the variable than THROUGHLINE_<FLAG>. */
  readonly variable?: string;
  /** A secret: arguments can be read by every user of the machine, so it comes by its variable alone. */
  readonly secret?: true;
}

const FLAGS = {
  data: { schema: text, value: 'DIR', help: 'data folder of the embedded stores' },
  host: { schema: text, value: 'HOST', help: 'address to listen on' },
  port: { schema: integer(0, 65_535), value: 'PORT', help: 'port to listen on; 0 picks a free one' },
  to: { schema: webUrl, value: 'URL', help: 'a running server' },
  json: { schema: onOff, value: null, help: 'answer with JSON' },
  workspace: { schema: z.string().refine(isWorkspaceId, 'must be 1 to 64 of a-z, 0-9 and _'), value: 'ID', help: 'workspace' },
  name: { schema: text, value: 'NAME', help: 'display name' },
  label: { schema: text.max(100, 'must have at most 100 characters'), value: 'TEXT', help: 'what the key is for' },
  identity: { schema: text, value: 'VALUE', help: 'e-mail address, phone number, account …' },
  identityType: { schema: text, value: 'TYPE', help: 'its type; left out, those that it may be of are tried' },
  id: { schema: text, value: 'ID', help: 'id of the CloudEvent' },
  maxEventBytes: { schema: integer(1024, 16 * 1024 * 1024), value: 'BYTES', help: 'largest event taken in' },
  logLevel: { schema: z.enum(LOG_LEVELS, `must be one of ${LOG_LEVELS.join(', ')}`), value: 'LEVEL', help: `least severe line logged: ${LOG_LEVELS.join(', ')}` },
  exit: { schema: onOff, value: null, help: 'end after printing instead of serving on', variable: 'DEMO_EXIT' },
  apiKey: { schema: z.string().min(API_KEY_LENGTH_MIN, `must have at least ${String(API_KEY_LENGTH_MIN)} characters`), value: 'KEY', help: 'API key: of the server to talk to; for serve, the first key of the workspace made on first start', secret: true },
  masterKey: { schema: secret, value: 'KEY', help: 'master key that wraps the secrets of workspaces, 32 bytes as hex or base64; left out, master.key in the data folder', secret: true },
  workspaceSecret: { schema: secret, value: 'SECRET', help: 'secret of the workspace being made, 32 bytes as hex or base64; left out, a random one', secret: true },
} as const satisfies Record<string, Flag>;
type FlagName = keyof typeof FLAGS;

/** Backends that a later version takes: told apart from a misspelt flag. */
const SERVERS = { events: 'an EventStoreDB', views: 'a Redis', source: 'a Kafka topic' } as const;

interface Verb {
  readonly help: string;
  /** Words after the verb that must be one of these. */
  readonly actions?: readonly string[];
  /** Name of the argument that must follow, per action where there are actions. */
  readonly argument?: string;
  readonly flags: readonly FlagName[];
  readonly required?: readonly FlagName[];
  readonly defaults: Readonly<Partial<Record<FlagName, string>>>;
  /** Flags that exclude each other: a flag wins over the other's variable, and of two variables the first named here. */
  readonly either?: readonly [FlagName, FlagName];
}

const DATA_DEFAULT = './data';
const URL_DEFAULT = 'http://127.0.0.1:8080';
const EVENT_BYTES = String(DEFAULT_MAX_EVENT_BYTES);

export const VERBS = {
  serve: {
    help: 'everything in one process: publish, project, query',
    flags: ['data', 'host', 'port', 'maxEventBytes', 'logLevel', 'apiKey', 'masterKey', 'workspaceSecret'],
    defaults: { data: DATA_DEFAULT, host: '127.0.0.1', port: '8080', maxEventBytes: EVENT_BYTES, logLevel: 'info' },
  },
  import: {
    help: 'CloudEvents from a file (NDJSON or a JSON array; - reads stdin) into a running server, or into a folder that no server holds',
    argument: 'FILE', flags: ['to', 'data', 'workspace', 'json', 'maxEventBytes', 'apiKey', 'masterKey', 'workspaceSecret'],
    defaults: { workspace: DEFAULT_WORKSPACE, json: 'false', maxEventBytes: EVENT_BYTES }, either: ['to', 'data'],
  },
  preview: {
    help: 'what the events of a file would become; nothing is stored. Without --to, under a throw-away secret: the streams have other names than they will have',
    argument: 'FILE', flags: ['to', 'json', 'maxEventBytes', 'apiKey'], defaults: { json: 'false', maxEventBytes: EVENT_BYTES },
  },
  trace: {
    help: 'what became of an event: recorded or not, its position, facts and journey; also beside a running serve',
    flags: ['identity', 'identityType', 'id', 'data', 'workspace', 'json', 'masterKey'], required: ['identity', 'id'],
    defaults: { data: DATA_DEFAULT, workspace: DEFAULT_WORKSPACE, json: 'false' },
  },
  status: {
    help: 'events, gap and lag of every group, generations, rejections, disk; also beside a running serve',
    flags: ['data', 'json'], defaults: { data: DATA_DEFAULT, json: 'false' },
  },
  workspaces: {
    help: 'make and list workspaces; also beside a running serve', actions: ['create', 'list'],
    flags: ['data', 'workspace', 'name', 'json', 'masterKey', 'workspaceSecret'], defaults: { data: DATA_DEFAULT, json: 'false' },
  },
  keys: {
    help: 'make, list and revoke API keys; also beside a running serve', actions: ['create', 'list', 'revoke'],
    flags: ['data', 'workspace', 'label', 'id', 'json'], defaults: { data: DATA_DEFAULT, workspace: DEFAULT_WORKSPACE, label: 'made by hand', json: 'false' },
  },
  demo: {
    help: 'serve an empty folder, import examples, ask questions',
    flags: ['host', 'port', 'exit'], defaults: { host: '127.0.0.1', port: '0', exit: 'false' },
  },
} as const satisfies Record<string, Verb>;
export type VerbName = keyof typeof VERBS;

type Value<F extends FlagName> = z.output<(typeof FLAGS)[F]['schema']>;
/** A flag that is required or has a default is never null. */
type Certain<V extends VerbName> = keyof (typeof VERBS)[V]['defaults'] | ((typeof VERBS)[V] extends { readonly required: readonly (infer R)[] } ? R : never);
type Flags<V extends VerbName> = { readonly [F in (typeof VERBS)[V]['flags'][number]]: F extends Certain<V> ? Value<F> : Value<F> | null };
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
  const values = readValues(verb, withSubject(name, words, given.flags), environment);
  const problems = [...given.problems, ...words.problems, ...values.problems];
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
  return flag === undefined ? isServer(dashed) : FLAGS[flag].value !== null;
}

function unknownFlag(verb: Verb, dashed: string): string {
  if (isServer(dashed)) return `--${dashed} names ${SERVERS[dashed]}: this build runs embedded and takes no servers yet`;
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
    const action = rest.shift();
    if (action === undefined || !verb.actions.includes(action)) problems.push(`${name} needs one of: ${verb.actions.join(', ')}${action === undefined ? '' : ` (not ${JSON.stringify(action)})`}`);
    else options = { action };
    subject = SUBJECTS[`${name} ${action ?? ''}`] === undefined ? null : rest.shift() ?? null;
  }
  if (verb.argument !== undefined) {
    const file = rest.shift();
    if (file === undefined) problems.push(`${name} needs a ${verb.argument}`);
    else options = { ...options, file };
  }
  for (const word of rest) problems.push(`what is ${JSON.stringify(word)}? Nothing more was expected`);
  return { options, subject, problems };
}

/** Actions whose subject may stand as a word, and the flag that it stands for; without either it is missing. */
const SUBJECTS: Readonly<Partial<Record<string, FlagName>>> = { 'workspaces create': 'workspace', 'keys revoke': 'id' };

function withSubject(name: VerbName, words: Words, flags: ReadonlyMap<string, string>): { readonly flags: ReadonlyMap<string, string>; readonly required: readonly FlagName[] } {
  const flag = SUBJECTS[`${name} ${words.options.action ?? ''}`];
  if (flag === undefined) return { flags, required: [] };
  return { flags: words.subject === null ? flags : new Map(flags).set(flag, words.subject), required: [flag] };
}

function readValues(verb: Verb, given: ReturnType<typeof withSubject>, environment: Environment): { readonly options: Record<string, unknown>; readonly problems: readonly string[] } {
  const problems: string[] = [];
  const options: Record<string, unknown> = {};
  const dropped = excluded(verb, given.flags, environment, problems);
  for (const [server, what] of Object.entries(SERVERS)) {
    const variable = variableOfText(server);
    if (verb.flags.includes('data') && (environment[variable] ?? '') !== '') problems.push(`${variable} names ${what}: this build runs embedded and takes no servers yet`);
  }
  for (const flag of verb.flags) {
    const asFlag = given.flags.get(flag);
    // A variable that is set to nothing is not set: that is how one is cleared in a shell or a compose file.
    const asVariable = environment[variableOf(flag)] === '' ? undefined : environment[variableOf(flag)];
    const value = flag === dropped ? undefined : asFlag ?? asVariable ?? verb.defaults[flag];
    options[flag] = null;
    if (value === undefined) {
      if (verb.required?.includes(flag) === true || given.required.includes(flag)) problems.push(`--${dash(flag)} is missing: ${FLAGS[flag].help}`);
      continue;
    }
    const parsed = FLAGS[flag].schema.safeParse(value);
    if (parsed.success) options[flag] = parsed.data;
    // Not the value itself: it may be a secret.
    else problems.push(`${asFlag === undefined ? variableOf(flag) : `--${dash(flag)}`} ${parsed.error.issues[0]?.message ?? 'is not valid'}${isSecret(flag) ? '' : ` (it is ${JSON.stringify(value)})`}`);
  }
  if (verb.either?.every((flag) => options[flag] === null) === true && problems.length === 0) options[verb.either[0]] = URL_DEFAULT;
  return { options, problems };
}

/** Of two flags that exclude each other, the one to leave out. */
function excluded(verb: Verb, flags: ReadonlyMap<string, string>, environment: Environment, problems: string[]): FlagName | null {
  if (verb.either === undefined) return null;
  const [first, second] = verb.either;
  if (flags.has(first) && flags.has(second)) {
    problems.push(`--${dash(first)} and --${dash(second)} exclude each other`);
    // Neither is left out, so that what is wrong with either is told as well.
    return null;
  }
  if (flags.has(second)) return first;
  return flags.has(first) || (environment[variableOf(first)] ?? '') !== '' ? second : null;
}

const isVerb = (name: string): name is VerbName => Object.hasOwn(VERBS, name);
const isServer = (name: string): name is keyof typeof SERVERS => Object.hasOwn(SERVERS, name);
const isSecret = (flag: FlagName): boolean => (FLAGS[flag] as Flag).secret === true;
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
  return ['Throughline, an event-sourced customer-journey store', '', 'throughline VERB [flags]', '', ...verbs, '', 'throughline VERB --help lists its flags. Every flag has a variable THROUGHLINE_<FLAG>; flags win.', ''].join('\n');
}

function verbHelp(name: VerbName): string {
  const verb: Verb = VERBS[name];
  const usage = [`throughline ${name}`, ...(verb.actions === undefined ? [] : [verb.actions.join('|')]), ...(verb.argument === undefined ? [] : [verb.argument]), '[flags]'].join(' ');
  const rows = verb.flags.map((flag) => {
    const { value, help }: Flag = FLAGS[flag];
    const standard = verb.defaults[flag];
    const notes = [...(verb.required?.includes(flag) === true ? ['required'] : []), ...(standard === undefined || value === null ? [] : [`default ${standard}`])];
    const left = isSecret(flag) ? variableOf(flag) : `--${dash(flag)}${value === null ? '' : ` ${value}`}`;
    return { left, right: `${help}${notes.length === 0 ? '' : ` (${notes.join(', ')})`}${isSecret(flag) ? '' : ` [${variableOf(flag)}]`}` };
  });
  const width = Math.max(...rows.map(({ left }) => left.length));
  return [usage, '', verb.help, '', ...rows.map(({ left, right }) => `  ${left.padEnd(width)}  ${right}`), ''].join('\n');
}
