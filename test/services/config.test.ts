// What a verb was asked to do: flags, variables, and every problem at once.
import { parse, VERBS } from '../../services/config.ts';

const KEY = 'k'.repeat(16);
const options = (argv: readonly string[], environment: Record<string, string> = {}): Record<string, unknown> => {
  const asked = parse(argv, environment);
  if (asked.kind !== 'run') throw new Error(JSON.stringify(asked));
  return { ...asked.options };
};
const problems = (argv: readonly string[], environment: Record<string, string> = {}): readonly string[] => {
  const asked = parse(argv, environment);
  return asked.kind === 'problems' ? asked.problems : [];
};

describe('values', () => {
  test('come from the flag, else the variable, else the default', () => {
    expect(options(['serve'])).toEqual({ data: './data', events: { kind: 'sqlite', folder: './data' }, views: { kind: 'sqlite', folder: './data' }, source: null, host: '127.0.0.1', port: 8080, maxEventBytes: 262_144, '8x8Revision': 'seed', maxRange: 60, rateLimit: { hits: 10, windowMs: 60_000 }, audit: 24, logLevel: 'info', apiKey: null, masterKey: null, workspaceSecret: null });
    expect(options(['serve'], { THROUGHLINE_PORT: '9000', THROUGHLINE_MAX_EVENT_BYTES: '65536' })).toMatchObject({ port: 9000, maxEventBytes: 65_536 });
    expect(options(['serve', '--port', '0', '--data=/srv/x'], { THROUGHLINE_PORT: '9000' })).toMatchObject({ port: 0, data: '/srv/x' });
  });

  test('a variable set to nothing is not set', () => {
    expect(options(['serve'], { THROUGHLINE_API_KEY: '', THROUGHLINE_PORT: '' })).toMatchObject({ apiKey: null, port: 8080 });
  });

  test('secrets come by their variables and are bytes', () => {
    expect(options(['serve'], { THROUGHLINE_API_KEY: KEY, THROUGHLINE_MASTER_KEY: 'ab'.repeat(32) })).toMatchObject({ apiKey: KEY, masterKey: Buffer.from('ab'.repeat(32), 'hex') });
  });

  test('a switch needs no value, and takes one', () => {
    expect(options(['status', '--json'])).toMatchObject({ json: true });
    expect(options(['status', '--json=false'], { THROUGHLINE_JSON: 'true' })).toMatchObject({ json: false });
  });

  test('arguments and actions are read', () => {
    expect(options(['import', 'events.ndjson'])).toMatchObject({ file: 'events.ndjson', to: 'http://127.0.0.1:8080', data: null, workspace: 'default' });
    expect(options(['preview', '-', '--json'])).toMatchObject({ file: '-', json: true, to: null });
    expect(options(['workspaces', 'create', 'shop', '--name', 'The shop'])).toMatchObject({ action: 'create', workspace: 'shop', name: 'The shop' });
    expect(options(['keys', 'revoke', '0a1b2c', '--workspace', 'shop'])).toMatchObject({ action: 'revoke', id: '0a1b2c', workspace: 'shop' });
    expect(options(['keys', 'revoke', '--id', '0a1b2c'])).toMatchObject({ id: '0a1b2c', workspace: 'default' });
    expect(options(['trace', '--identity', '+1 555 010 0100', '--id', 'x'])).toMatchObject({ identity: '+1 555 010 0100', identityType: null });
    expect(options(['demo'], { DEMO_EXIT: '1' })).toMatchObject({ exit: true });
  });

  test('what searches are told is given to whoever answers them', () => {
    for (const verb of ['serve', 'api']) {
      expect(options([verb, '--8x8-revision', 'latest', '--max-range', '3660', '--rate-limit', '600/10m'])).toMatchObject({ '8x8Revision': 'latest', maxRange: 3660, rateLimit: { hits: 600, windowMs: 600_000 } });
      expect(options([verb], { THROUGHLINE_8X8_REVISION: 'latest', THROUGHLINE_MAX_RANGE: '366', THROUGHLINE_RATE_LIMIT: 'off' })).toMatchObject({ '8x8Revision': 'latest', maxRange: 366, rateLimit: 'off' });
    }
  });

  test('a key takes a rate limit by its flag alone: the variable is the servers\'', () => {
    expect(options(['keys', 'create'], { THROUGHLINE_RATE_LIMIT: 'off' })).toMatchObject({ rateLimit: null });
    expect(options(['keys', 'create', '--rate-limit', '100/60s'])).toMatchObject({ rateLimit: { hits: 100, windowMs: 60_000 } });
    expect(options(['workspaces', 'create', 'shop', '--rate-limit', 'off'], { THROUGHLINE_RATE_LIMIT: '1/1s' })).toMatchObject({ rateLimit: 'off' });
    const help = parse(['keys', '--help'], {});
    expect(help.kind === 'help' ? help.text : '').toMatch(/--rate-limit N\/SECONDS(?!.*THROUGHLINE_RATE_LIMIT)/);
  });

  test.each<[string, readonly string[]]>([
    ['a,b', ['a', 'b']], [' a , b,, a ', ['a', 'b']], ['', []], ['["a,b"," c ","a,b"]', ['a,b', ' c ']], ['[]', []], ['a]', ['a]']],
  ])('a list is texts between commas or a JSON array: %j', (given, expected) => {
    expect(options(['workspaces', 'set', 'shop', '--pbx-names', given])).toMatchObject({ action: 'set', workspace: 'shop', pbxNames: expected, tenantIds: null });
    expect(options(['workspaces', 'set', 'shop', `--tenant-ids=${given}`])).toMatchObject({ pbxNames: null, tenantIds: expected });
  });

  test('an import goes to a server or into a folder, and a flag says which whatever the variables say', () => {
    expect(options(['import', 'f', '--data', 'd'])).toMatchObject({ data: 'd', to: null });
    expect(options(['import', 'f', '--data', 'd'], { THROUGHLINE_TO: 'http://there:1' })).toMatchObject({ data: 'd', to: null });
    expect(options(['import', 'f', '--to', 'http://there:1/'], { THROUGHLINE_DATA: 'd' })).toMatchObject({ data: null, to: 'http://there:1' });
    expect(options(['import', 'f'], { THROUGHLINE_DATA: 'd' })).toMatchObject({ data: 'd', to: null });
    expect(options(['import', 'f'], { THROUGHLINE_DATA: 'd', THROUGHLINE_TO: 'http://there:1' })).toMatchObject({ data: null, to: 'http://there:1' });
  });
});

describe('problems', () => {
  test('are told all at once', () => {
    const told = problems(['import', '--prot', '1', '--max-event-bytes', 'many', '--to', 'ftp://x', 'a', 'b', '--workspace', 'Not An Id'], { THROUGHLINE_API_KEY: 'short', THROUGHLINE_MASTER_KEY: 'zz', THROUGHLINE_JSON: 'maybe' });
    expect(told).toEqual([
      'there is no flag --prot',
      'what is "a"? Nothing more was expected',
      'what is "b"? Nothing more was expected',
      expect.stringMatching(/^--to must be a URL.*"ftp:\/\/x"/),
      expect.stringMatching(/^--workspace must be 1 to 64/),
      'THROUGHLINE_JSON must be true or false (it is "maybe")',
      expect.stringMatching(/^--max-event-bytes must be a whole number/),
      'THROUGHLINE_API_KEY must have at least 16 characters',
      'THROUGHLINE_MASTER_KEY must be 32 bytes, as 64 hex digits or in base64',
    ]);
  });

  test.each<[string, readonly string[], Record<string, string>, RegExp]>([
    ['a misspelt verb', ['serv'], {}, /there is no verb "serv"\. Did you mean serve\?/],
    ['a misspelt flag', ['serve', '--prot', '1'], {}, /there is no flag --prot\. Did you mean --port\?/],
    ['a flag of another verb', ['status', '--port', '1'], {}, /there is no flag --port$/],
    ['a flag without its value', ['serve', '--port'], {}, /--port needs a value: --port PORT/],
    ['a flag followed by a flag', ['serve', '--port', '--data', 'x'], {}, /--port needs a value/],
    ['a flag given twice', ['serve', '--port', '1', '--port', '2'], {}, /--port is given twice/],
    ['a port that is none', ['serve', '--port', '70000'], {}, /--port must be at most 65535 \(it is "70000"\)/],
    ['a log level that is none', ['serve', '--log-level', 'loud'], {}, /--log-level must be one of debug, info/],
    ['a revision that is none', ['serve', '--8x8-revision', 'newest'], {}, /--8x8-revision must be seed or latest \(it is "newest"\)/],
    ['a range shorter than the standard', ['api', '--max-range', '59'], {}, /--max-range must be at least 60/],
    ['a range longer than ten years', ['api'], { THROUGHLINE_MAX_RANGE: '3661' }, /THROUGHLINE_MAX_RANGE must be at most 3660/],
    ['a rate limit that is none', ['serve', '--rate-limit', '10 a minute'], {}, /--rate-limit must be off, or hits and seconds \(10\/60s\) or minutes .*at most 10000 hits in at most 86400 s \(it is "10 a minute"\)/],
    ['a rate limit past its bounds', ['keys', 'create', '--rate-limit', '10001/60s'], {}, /--rate-limit must be off/],
    ['a list that is no JSON', ['workspaces', 'set', 'shop', '--pbx-names', '["a'], {}, /--pbx-names must be values separated by commas, or a JSON array/],
    ['a list of other things than texts', ['workspaces', 'set', 'shop', '--tenant-ids', '["a",1]'], {}, /--tenant-ids must be values/],
    ['a list with an empty text', ['workspaces', 'set', 'shop', '--tenant-ids', '["a",""]'], {}, /--tenant-ids must be values .*none of them empty/],
    ['a list with too many', ['workspaces', 'set', 'shop', '--tenant-ids', Array.from({ length: 1001 }, (_, i) => i).join()], {}, /--tenant-ids must be at most 1000 values of at most 1000 characters \(it is "0,1,.*…\)$/],
    ['a list with a text too long', ['workspaces', 'set', 'shop', '--pbx-names', 'x'.repeat(1001)], {}, /--pbx-names must be at most 1000 values of at most 1000 characters/],
    ['a list that is too long in all', ['workspaces', 'set', 'shop', '--pbx-names', Array.from({ length: 101 }, (_, i) => String(i).padEnd(1000, 'x')).join()], {}, /--pbx-names must have at most 100000 characters in all/],
    ['a workspace that is missing', ['workspaces', 'set'], {}, /--workspace is missing/],
    ['a file that is missing', ['import'], {}, /import needs a FILE/],
    ['an action that is missing', ['keys'], {}, /keys needs one of: create, list, limit, revoke/],
    ['an action that is none', ['keys', 'burn'], {}, /keys needs one of: create, list, limit, revoke \(not "burn"\)/],
    ['the subject of an action', ['keys', 'revoke'], {}, /--id is missing/],
    ['what an action is for', ['keys', 'limit', '0a1b2c'], {}, /--rate-limit is missing/],
    ['the id of a dead letter that is none', ['dead-letters', 'show', 'foo', '--source', 'kafka://h/t'], {}, /^a dead letter is named TOPIC\/PARTITION\/OFFSET, or PARTITION\/OFFSET of whatever topic \(not "foo"\)$/],
    ['a dead letter of no topic', ['dead-letters', 'list', '--id', '0/1'], {}, /^--id names a dead letter of a topic: name the topic with --source$/],
    ['dead letters of a topic and a workspace', ['dead-letters', '--source', 'kafka://h/t', '--workspace', 'shop'], {}, /^the dead letters of a topic are not parted by workspace/],
    ['a required flag', ['trace', '--id', 'x'], {}, /--identity is missing/],
    ['two flags that exclude each other', ['import', 'f', '--to', 'http://x', '--data', 'd'], {}, /--to and --data exclude each other/],
    ['a secret among the arguments', ['serve', '--api-key', KEY], {}, /--api-key is a secret.*THROUGHLINE_API_KEY/],
  ])('%s is told', (_, argv, environment, told) => {
    const found = problems(argv, environment);
    expect(found.some((problem) => told.test(problem))).toBe(true);
  });

  test.each<[readonly string[], Record<string, string>, readonly string[]]>([
    [['replay', 'journeys', '--forget', '--dry-run'], {}, ['--forget and --dry-run exclude each other']],
    [['replay', 'journeys', '--forget', '--rollback', '--accept', '--rate', '5'], {}, ['--forget and --accept exclude each other', '--forget and --rollback exclude each other', '--forget and --rate exclude each other', '--rollback and --accept exclude each other']],
    [['replay', 'persons', '--rollback', '--accept', '--anew', '--rate', '5'], {}, ['--rollback and --accept exclude each other', '--rollback and --anew exclude each other']],
    [['replay', 'persons', '--forget'], { THROUGHLINE_DRY_RUN: 'true' }, ['--forget and THROUGHLINE_DRY_RUN exclude each other']],
    [['verify', '--all', '--journey', 'x', '--person', 'p', '--count', '5', '--workspace', 'shop'], {}, [
      expect.stringMatching(/^--person must be the 24 hex digits/) as string, '--all and --journey exclude each other', '--all and --person exclude each other', '--all and --count exclude each other', '--all and --workspace exclude each other', '--count and --journey exclude each other', '--count and --person exclude each other']],
    [['verify', '--count', '5'], { THROUGHLINE_ALL: '1' }, ['THROUGHLINE_ALL and --count exclude each other']],
  ])('flags that exclude each other are told, each pair: %j %j', (argv, environment, told) => {
    expect(problems(argv, environment)).toEqual(told);
  });

  test('what goes together is taken: a rollback at a rate, as a dry run; one of a workspace; a switch that is off', () => {
    expect(options(['replay', 'journeys', '--rollback', '--dry-run', '--rate', '5'])).toMatchObject({ rollback: true, dryRun: true, rate: 5 });
    expect(options(['replay', 'journeys', '--forget', '--dry-run=false', '--json'], { THROUGHLINE_ACCEPT: 'false' })).toMatchObject({ forget: true, dryRun: false });
    expect(options(['verify', '--journey', 'x', '--workspace', 'shop'])).toMatchObject({ journey: 'x', workspace: 'shop', count: 100, all: false });
    expect(options(['verify', '--all=false', '--count', '5'])).toMatchObject({ all: false, count: 5 });
    expect(options(['verify', '--all'])).toMatchObject({ all: true });
  });

  test('a misspelt flag takes its value along', () => {
    expect(problems(['serve', '--prot', '1'])).toEqual(['there is no flag --prot. Did you mean --port?']);
  });

  test('never show a secret', () => {
    const told = problems(['serve', '--api-key', 'sesame'], { THROUGHLINE_MASTER_KEY: 'open-sesame', THROUGHLINE_API_KEY: 'sesame-too' });
    expect(told.length).toBeGreaterThanOrEqual(3);
    expect(told.join('\n')).not.toContain('sesame');
  });
});

const ESDB = 'esdb://admin:changeit@store.example:2113?tls=true';
const REDIS = 'redis://reader:sesame@views.example:6380/2?prefix=cc&shards=4';
const KAFKA = 'kafka://line:sesame@b1.example:9092,b2.example/calls?workspaces=shop,bank&group=cc&sasl=SCRAM-SHA-512&tls=true&caFile=/etc/ca.pem';
const MASTER = { THROUGHLINE_MASTER_KEY: 'ab'.repeat(32) };
const folder = (name: string) => ({ kind: 'sqlite', folder: name });

describe('servers by URL', () => {
  test('are parsed without their drivers, defaults filled in', () => {
    expect(options(['serve'], { ...MASTER, THROUGHLINE_EVENTS: ESDB, THROUGHLINE_VIEWS: REDIS, THROUGHLINE_SOURCE: KAFKA })).toMatchObject({
      data: null,
      events: { kind: 'eventstoredb', url: ESDB },
      views: { kind: 'redis', nodes: [{ host: 'views.example', port: 6380 }], cluster: false, username: 'reader', password: 'sesame', db: 2, tls: null, prefix: 'cc', shards: 4 },
      source: {
        kind: 'kafka', brokers: ['b1.example:9092', 'b2.example:9092'], topic: 'calls', group: 'cc', workspaces: ['shop', 'bank'],
        tls: { caFile: '/etc/ca.pem', certFile: null, keyFile: null, verify: true }, sasl: { mechanism: 'scram-sha-512', username: 'line', password: 'sesame' },
      },
    });
    expect(options(['serve', '--views', 'redis://localhost'])).toMatchObject({ views: { nodes: [{ host: 'localhost', port: 6379 }], username: null, password: null, db: 0, shards: 8, prefix: 'throughline' } });
    expect(options(['ingest', '--source', 'kafka://localhost/calls'])).toMatchObject({ port: 8081, source: { brokers: ['localhost:9092'], group: 'throughline', workspaces: ['default'], tls: null, sasl: null } });
  });

  test.each<[string, readonly string[], Record<string, unknown>]>([
    ['a Cluster', ['--views', 'redis://h1:1,h2:2,h3?cluster=true'], { views: { cluster: true, nodes: [{ host: 'h1', port: 1 }, { host: 'h2', port: 2 }, { host: 'h3', port: 6379 }] } }],
    ['TLS and a password alone', ['--views', 'rediss://:p%40ss%2Fw%3Ford@h?caFile=ca.pem&verify=false'], { views: { username: null, password: 'p@ss/w?ord', tls: { caFile: 'ca.pem', certFile: null, keyFile: null, verify: false } } }],
    ['an IPv6 address', ['--views', 'redis://[::1]:6380'], { views: { nodes: [{ host: '::1', port: 6380 }] } }],
    ['brokers with IPv6 addresses', ['--source', 'kafka://[::1]:1,b:2/t'], { source: { brokers: ['[::1]:1', 'b:2'] } }],
    ['a path that ends in a slash', ['--views', 'redis://h/3/'], { views: { db: 3 } }],
  ])('%s', (_, argv, expected) => {
    expect(options(['serve', ...argv])).toMatchObject(expected);
  });

  test.each<[string, readonly string[], Record<string, string>, Record<string, unknown>]>([
    ['events in the folder, views on Redis', ['serve', '--views', REDIS], {}, { data: './data', events: folder('./data'), views: { kind: 'redis' } }],
    ['events in the folder, from Kafka', ['ingest', '--source', KAFKA, '--data', 'd'], {}, { data: 'd', events: folder('d'), views: folder('d') }],
    ['events on EventStoreDB, views in the folder', ['serve', '--events', ESDB, '--data', 'd'], MASTER, { data: 'd', events: { kind: 'eventstoredb' }, views: folder('d') }],
    ['a folder that a variable names, and nothing to put into it', ['project', '--events', ESDB, '--views', REDIS], { ...MASTER, THROUGHLINE_DATA: 'd' }, { data: null, port: 8082 }],
    ['what opens no views', ['keys', 'list', '--events', ESDB], {}, { data: null, events: { kind: 'eventstoredb' } }],
    ['what opens no secret needs no master key', ['workspaces', 'list', '--events', ESDB], {}, { data: null }],
    ['an import straight into servers', ['import', 'f', '--events', ESDB, '--views', REDIS], MASTER, { to: null, data: null, events: { kind: 'eventstoredb' }, views: { kind: 'redis' } }],
    ['an import to a server, whatever the variables say', ['import', 'f', '--to', 'http://there:1'], { THROUGHLINE_EVENTS: ESDB }, { to: 'http://there:1', events: null, views: null }],
    ['an import into a folder', ['import', 'f', '--data', 'd'], {}, { to: null, data: 'd', events: folder('d'), views: folder('d') }],
  ])('%s', (_, argv, environment, expected) => {
    expect(options(argv, environment)).toMatchObject(expected);
  });

  test.each<[string, readonly string[], Record<string, string>, readonly RegExp[]]>([
    ['another scheme', ['serve', '--events', 'http://sesame:sesame@h'], {}, [/^--events must be a URL that begins with esdb:\/\/ or esdb\+discover:\/\/$/, /^THROUGHLINE_MASTER_KEY is missing/]],
    ['what is no URL', ['serve', '--views', 'sesame'], {}, [/^--views must be a URL/]],
    ['a # in a password', ['serve', '--views', 'redis://:ses#ame@h'], {}, [/^--views must be .*without # \(in a password: %23\)$/]],
    ['an @ where none belongs', ['serve', '--views', 'redis://:ses/ame@h'], {}, [/^--views has an @ behind its hosts/]],
    ['a question mark in a password', ['serve', '--source', 'kafka://u:ses?ame@h/t'], {}, [/^--source has an @ behind its hosts/]],
    ['everything at once', ['serve', '--views', 'redis://h1:0,h2/x?shards=0&prefix={a}&cluster=maybe&certFile=c&wat=1&wat=2'], {}, [
      /host that is not name:port/, /has a parameter twice/, /cluster must be true or false/, /no database number/, /prefix must be/, /shards must be a number from 1 to 256/, /certFile and keyFile together/,
      /settings of TLS without TLS: add the scheme rediss:\/\//, /unknown parameter wat/]],
    ['several hosts that are no Cluster', ['serve', '--views', 'redis://h1,h2'], {}, [/several hosts: that is a Cluster/]],
    ['a database of a Cluster', ['serve', '--views', 'redis://h1/1?cluster=true'], {}, [/a Cluster has only database 0/]],
    ['a topic that is missing', ['ingest', '--source', 'kafka://h'], {}, [/has no topic/]],
    ['a topic that is none', ['ingest', '--source', 'kafka://h/a/b'], {}, [/no topic: 1 to 237 of/]],
    ['a way to log in without a user', ['ingest', '--source', 'kafka://h/t?sasl=plain'], {}, [/sasl without user:password@/]],
    ['a user without the way to log in', ['ingest', '--source', 'kafka://u:sesame@h/t'], {}, [/a user without the way to log in: add sasl=plain or/]],
    ['a way to log in that is none', ['ingest', '--source', 'kafka://u:sesame@h/t?sasl=gssapi'], {}, [/sasl must be one of plain, scram-sha-256, scram-sha-512/]],
    ['workspaces that are none', ['ingest', '--source', 'kafka://h/t?workspaces=A,b'], {}, [/workspaces must be ids/]],
    ['what the driver would take and not do', ['serve', '--events', 'esdb://u:ses:ame@[::1]:1/x?tlsVerifyCert=false&throwOnAppendFailure=false&keepAliveInterval=soon&keepalive=1'], MASTER, [
      /keepAliveInterval must be a whole number/, /tlsVerifyCert=false is not supported/, /throwOnAppendFailure=false is not supported/, /colon in its password: write it as %3A/, /IPv6/, /has a path/, /unknown parameter keepalive/]],
    ['a source that is missing', ['ingest'], {}, [/^--source is missing/]],
    ['a folder with nothing to hold', ['serve', '--data', 'd', '--events', ESDB, '--views', REDIS], MASTER, [/^--data would hold nothing/]],
    ['a master key that is missing', ['api', '--events', ESDB], {}, [/^THROUGHLINE_MASTER_KEY is missing: .*the same for every process/]],
    ['a master key that is missing, to make a workspace', ['workspaces', 'create', 'shop', '--events', ESDB], {}, [/^THROUGHLINE_MASTER_KEY is missing/]],
    ['an import to a server and into stores', ['import', 'f', '--to', 'http://x', '--events', ESDB], MASTER, [/--to and --events exclude each other/]],
    ['an import with nowhere to count', ['import', 'f', '--events', ESDB], MASTER, [/^--data is missing: where the views are, unless --views names a server$/]],
  ])('%s is told', (_, argv, environment, told) => {
    const found = problems(argv, environment);
    for (const one of told) expect(found.filter((problem) => one.test(problem))).toHaveLength(1);
    expect(found).toHaveLength(told.length);
    expect(found.join('\n')).not.toMatch(/ses(ame)?|changeit|example/);
  });

  test('a variable that is set to nothing names no server', () => {
    expect(options(['serve'], { THROUGHLINE_EVENTS: '', THROUGHLINE_VIEWS: '', THROUGHLINE_SOURCE: '' })).toMatchObject({ events: folder('./data'), source: null });
  });
});

describe('help', () => {
  test('lists every verb, and each verb every flag with its variable and default', () => {
    const overview = parse(['--help'], {});
    for (const verb of Object.keys(VERBS)) {
      expect(overview).toMatchObject({ kind: 'help', text: expect.stringContaining(verb) });
      const own = parse([verb, '--help'], {});
      expect(own).toMatchObject({ kind: 'help', text: expect.stringContaining(`throughline ${verb}`) });
    }
    const serve = parse(['help', 'serve'], {});
    expect(serve.kind === 'help' ? serve.text : '').toMatch(/--max-event-bytes BYTES\s.*default 262144.*\[THROUGHLINE_MAX_EVENT_BYTES\]/);
    expect(parse(['--version'], {})).toEqual({ kind: 'version' });
  });
});
