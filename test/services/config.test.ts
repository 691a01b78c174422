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
    expect(options(['serve'])).toEqual({ data: './data', host: '127.0.0.1', port: 8080, maxEventBytes: 262_144, logLevel: 'info', apiKey: null, masterKey: null, workspaceSecret: null });
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
    ['a file that is missing', ['import'], {}, /import needs a FILE/],
    ['an action that is missing', ['keys'], {}, /keys needs one of: create, list, revoke/],
    ['an action that is none', ['keys', 'burn'], {}, /keys needs one of: create, list, revoke \(not "burn"\)/],
    ['the subject of an action', ['keys', 'revoke'], {}, /--id is missing/],
    ['a required flag', ['trace', '--id', 'x'], {}, /--identity is missing/],
    ['two flags that exclude each other', ['import', 'f', '--to', 'http://x', '--data', 'd'], {}, /--to and --data exclude each other/],
    ['a secret among the arguments', ['serve', '--api-key', KEY], {}, /--api-key is a secret.*THROUGHLINE_API_KEY/],
    ['a server for the events', ['serve', '--events', 'esdb://x'], {}, /--events names an EventStoreDB: this build runs embedded/],
    ['a server by its variable', ['serve'], { THROUGHLINE_VIEWS: 'redis://x' }, /THROUGHLINE_VIEWS names a Redis: this build runs embedded/],
  ])('%s is told', (_, argv, environment, told) => {
    const found = problems(argv, environment);
    expect(found.some((problem) => told.test(problem))).toBe(true);
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
