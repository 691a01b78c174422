import { runSeeds } from './seeds.ts';
test('x', async () => {
  const t = process.cpuUsage();
  await runSeeds({ from: 0, count: 600 });
  const u = process.cpuUsage(t);
  process.stderr.write(`cpu ${u.user / 1000}\n`);
});
