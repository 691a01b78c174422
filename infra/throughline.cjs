#!/usr/bin/env node
// The launcher: readable by any Node, it runs services/main.ts under Node 24 (which strips types by itself). The system's
// Node is used when it is new enough, else the pinned one that `make setup` installed from npm.
'use strict';
const { existsSync } = require('node:fs');
const { join, dirname } = require('node:path');
const { spawn } = require('node:child_process');
const { constants } = require('node:os');

const root = dirname(__dirname);
const pinned = join(root, 'node_modules', `node-${process.platform}-${process.arch}`, 'bin', 'node');
const node = existsSync(pinned) ? pinned : Number(process.versions.node.split('.')[0]) >= 24 ? process.execPath : undefined;
if (node === undefined) {
  console.error(`throughline needs Node 24 or later; this is ${process.version}, and none is installed for ${process.platform}-${process.arch}. Run "make setup", or install Node 24.`);
  process.exit(1);
}
const { flags, environment } = require('./node-flags.json');
// Type stripping is most of a start; Node keeps what it compiled beside the modules it belongs to.
const env = { ...environment, NODE_COMPILE_CACHE: join(root, 'node_modules', '.cache', 'compile'), ...process.env };
// Nothing is said on the channel: its end tells the program that the launcher has gone, however that came (kill -9).
const child = spawn(node, [...(flags[process.argv[2]] ?? flags.any), join(root, 'services', 'main.ts'), ...process.argv.slice(2)], { stdio: ['inherit', 'inherit', 'inherit', 'ipc'], env });
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(signal, () => child.kill(signal));
child.on('exit', (code, signal) => process.exit(signal === null ? code : 128 + constants.signals[signal]));
