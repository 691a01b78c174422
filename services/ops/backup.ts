// `throughline backup DIR` and `restore DIR`: a data folder copied beside a running `serve`, and put back. Servers have their
// own ways (infra/SIZING.md).
import type { Options } from '../config.ts';
import { bytes, count, type Io, orExplain, print, printJson, ProgressBar } from './terminal.ts';

export function backupVerb({ data, file: directory, json }: Options<'backup'>, io: Io): Promise<number> {
  return orExplain('backup', io, async () => {
    const { backupFolder } = await import('../adapters/sqlite-backup.ts');
    const startedMs = io.clock.now();
    const bar = new ProgressBar(io, `backing up ${data}`, 100);
    const { manifest: { files }, leftOut } = await backupFolder(data, directory, { madeAt: new Date(startedMs).toISOString(), onProgress: (done, all) => bar.show(percent(done, all), null), signal: io.signal });
    bar.clear();
    for (const { message, code } of leftOut) await print(io.stderr, `throughline backup: ${message} (${code}). It was left out of the backup, which holds the events: what is missing is folded anew from them.\n`);
    await told(io, json, { directory, leftOut: leftOut.map(({ message }) => message), files: files.length, bytes: sumOf(files), seconds: (io.clock.now() - startedMs) / 1000 },
      `${directory} holds ${data}. ${files.some(({ name }) => name === 'master.key') ? 'Its master.key is in it: keep it as you keep the key.' : 'The master key is not in it: keep THROUGHLINE_MASTER_KEY as well.'}`);
    return 0;
  });
}

export function restoreVerb({ data, file: directory, json }: Options<'restore'>, io: Io): Promise<number> {
  return orExplain('restore', io, async () => {
    const { restoreFolder } = await import('../adapters/sqlite-backup.ts');
    const startedMs = io.clock.now();
    const bar = new ProgressBar(io, `restoring ${data}`, 100);
    const { files, madeAt } = await restoreFolder(directory, data, { onProgress: (done, all) => bar.show(percent(done, all), null), signal: io.signal });
    bar.clear();
    await told(io, json, { directory: data, files: files.length, bytes: sumOf(files), seconds: (io.clock.now() - startedMs) / 1000 }, `${data} is as it was at ${madeAt}: throughline serve --data ${data}`);
    return 0;
  });
}

const percent = (done: number, all: number): number => (100 * done) / Math.max(1, all);
const sumOf = (files: readonly { readonly bytes: number }[]): number => files.reduce((sum, one) => sum + one.bytes, 0);

async function told(io: Io, json: boolean, what: { readonly directory: string; readonly leftOut?: readonly string[]; readonly files: number; readonly bytes: number; readonly seconds: number }, text: string): Promise<void> {
  if (json) await printJson(io.stdout, what);
  else await print(io.stdout, `${count(what.files)} files, ${bytes(what.bytes)} in ${what.seconds.toFixed(1)} s. ${text}\n`);
}
