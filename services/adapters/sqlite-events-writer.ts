// Entry of the thread that writes events.sqlite. Nothing imports this file: openSqliteEventStore starts it.
import assert from 'node:assert/strict';
import { parentPort, workerData } from 'node:worker_threads';
import { type WriterOptions, serveWrites } from './sqlite-events.ts';

assert(parentPort !== null, 'this file is the entry of a worker thread');
serveWrites(parentPort, workerData as WriterOptions);
