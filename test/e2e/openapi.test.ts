// The running server held to its own OpenAPI document by Schemathesis: examples, bounds of every parameter, and requests made at
// random, right and wrong ones. No 5xx, no status, type or header that is not documented, no answer that breaks its schema, no
// answer without a key. Bounded by time; OPENAPI_SECONDS=… takes longer, OPENAPI_SEED=… repeats a run.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { describeOn } from '../support/local-server.ts';
import { removeFolder, ROOT, serve, type Served, temporaryFolder, TEST_KEY, throughline } from '../support/serve.ts';

const SECONDS = Number(process.env['OPENAPI_SECONDS'] ?? 10);
const SLOWLY = 4;
const SEED = process.env['OPENAPI_SEED'] ?? '1';
const CHECKS = 'not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,unsupported_method,ignored_auth';

async function schemathesis(server: Served, folder: string, args: readonly string[], seconds: number): Promise<{ readonly code: number | null; readonly told: string }> {
  const child = spawn(join(ROOT, '.cache/schemathesis/bin/schemathesis'), [
    'run', `${server.url}/openapi.json`, '--header', `x-api-key: ${TEST_KEY}`, '--checks', CHECKS, '--max-time', String(seconds), '--seed', SEED, '--continue-on-failure', '--no-color', '--warnings', 'off', ...args,
  ], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
  let told = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => { told += text; });
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, told };
}

describeOn(['schemathesis'], 'Schemathesis', () => {
  test.each([['seed', []], ['latest', ['--include-tag', '8x8 End-to-End Journey API', '--phases', 'examples,coverage']]] as const)('finds nothing wrong with a server that holds the example day (revision %s)', async (revision, args) => {
    const folder = temporaryFolder();
    const server = await serve({ args: ['--8x8-revision', revision] });
    try {
      const imported = await throughline(['import', join(ROOT, 'test/fixtures/example-day.ndjson'), '--to', server.url], { env: { THROUGHLINE_API_KEY: TEST_KEY } });
      expect(imported.code).toBe(0);
      await server.folded();
      let { code, told } = await schemathesis(server, folder, args, SECONDS);
      // On a machine that is busy its own preparations may take all of the time.
      if (code === 0 && told.includes('No test cases were generated')) ({ code, told } = await schemathesis(server, folder, args, SECONDS * SLOWLY));
      expect({ code, told: code === 0 ? '' : told }).toEqual({ code: 0, told: '' });
      expect(told).toMatch(/[1-9]\d* generated, [1-9]\d* passed/);
      // It reached the searches, and not only their refusals.
      expect(server.stderr()).toMatch(/"route":"\/cidp\/journey\/api\/v1\/journeys\/search","status":200/);
    } finally {
      await server.kill('SIGTERM');
      removeFolder(server.folder);
      removeFolder(folder);
    }
  }, 60_000 + SECONDS * 2000 * SLOWLY);
});
