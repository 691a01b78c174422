// The server that the bench measures: `serve` as it is, or the same without its projector.
import { runProgram } from '../../services/programs.ts';
import { createLog } from '../../services/log.ts';
import { listenToProcess, processIo } from '../../services/lifecycle.ts';
import { DEFAULT_MAX_EVENT_BYTES } from '../../schemas/cloudevent.ts';

const [folder = '', mode = 'fold'] = process.argv.slice(2);
const log = createLog('warn');
process.exitCode = await runProgram(
  'serve',
  { events: { kind: 'sqlite', folder }, views: { kind: 'sqlite', folder }, host: '127.0.0.1', port: 0, maxEventBytes: DEFAULT_MAX_EVENT_BYTES, logLevel: 'warn', apiKey: 'bench-key-0123456789abcdef', masterKey: null },
  processIo(listenToProcess(log)),
  { log, version: 'bench', onStarted: (_url, port) => { process.send?.(port); } },
  { fold: mode === 'fold' },
);
process.disconnect();
