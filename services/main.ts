// throughline <verb>: finds the program that a verb names, hands it its options and the world, ends with its exit code.
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { askedOfProcess, environmentOfProcess, type Asked } from './config.ts';
import { OperatingError } from './errors.ts';
import { listenToProcess, processIo } from './lifecycle.ts';
import { createLog } from './log.ts';
import { backupVerb, restoreVerb } from './ops/backup.ts';
import { demoVerb } from './ops/demo.ts';
import { exportVerb } from './ops/export.ts';
import { importVerb } from './ops/import.ts';
import { previewVerb, traceVerb } from './ops/inspect.ts';
import { keysVerb, workspacesVerb } from './ops/keys.ts';
import { statusVerb } from './ops/status.ts';
import type { Io } from './ops/terminal.ts';

const ROOT = path.dirname(import.meta.dirname);
const version = (): string => (JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8')) as { version: string }).version;

async function runVerb(asked: Asked, io: Io): Promise<number> {
  switch (asked.kind) {
    case 'help': io.stdout.write(asked.text); return 0;
    case 'version': io.stdout.write(`throughline ${version()}\n`); return 0;
    case 'problems':
      io.stderr.write(`${asked.problems.map((problem) => `throughline: ${problem}\n`).join('')}${asked.hint}\n`);
      return 2;
    case 'run': break;
  }
  switch (asked.verb) {
    // Loaded when it is asked for, as are others below: the API and its libraries would take half of the time of every other verb.
    case 'serve':
    case 'ingest':
    case 'project':
    case 'api': return (await import('./programs.ts')).programVerb(asked.verb, asked.options, io, version());
    case 'import': return importVerb(asked.options, io);
    case 'publish': return (await import('./ops/publish.ts')).publishVerb(asked.options, io);
    case 'dead-letters': return (await import('./ops/dead-letters.ts')).deadLettersVerb(asked.options, io);
    case 'export': return exportVerb(asked.options, io);
    case 'backup': return backupVerb(asked.options, io);
    case 'restore': return restoreVerb(asked.options, io);
    case 'preview': return previewVerb(asked.options, io);
    case 'trace': return traceVerb(asked.options, io);
    case 'doctor': return (await import('./ops/doctor.ts')).doctorVerb(asked.options, io);
    case 'status': return statusVerb(asked.options, io);
    case 'verify': return (await import('./verify.ts')).verifyVerb(asked.options, io);
    case 'replay': return (await import('./replay.ts')).replayVerb(asked.options, io);
    case 'workspaces': return workspacesVerb(asked.options, io);
    case 'keys': return keysVerb(asked.options, io);
    case 'demo': return demoVerb({ ...asked.options, root: ROOT, main: import.meta.filename, node: process.execPath, environment: environmentOfProcess() }, io);
  }
}

const io = processIo(listenToProcess(createLog('error')));
try {
  process.exitCode = await runVerb(askedOfProcess(), io);
} catch (fault) {
  if (!(fault instanceof OperatingError)) throw fault;
  io.stderr.write(`throughline: ${fault.message} [${fault.code}]\n`);
  process.exitCode = 1;
}
// Nothing is left to be done: what could not be stopped in time (a connection, a thread) must not keep the process, half
// alive and still answering. Where all has ended, so has the process, before this timer.
setTimeout(() => process.exit(), 200).unref();
