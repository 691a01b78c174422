// JSON logs on stderr. What may be logged is a closed list of fields, none of which can hold a customer's data: names of
// things of ours, counts, codes. There is nothing to redact, because there is no way to say it.
import { writeSync } from 'node:fs';
import { pino } from 'pino';
import { OperatingError } from './errors.ts';

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** All that a line can carry beside its message. */
export interface LogFields {
  readonly method?: string;
  /** The pattern, `/journeys/:id`: never a URL, a query or a referrer. */
  readonly route?: string;
  readonly status?: number;
  readonly ms?: number;
  readonly workspace?: string;
  readonly keyId?: string;
  readonly group?: string;
  readonly generation?: number;
  readonly shard?: number;
  /** Numbers with blanks between. */
  readonly shards?: string;
  readonly position?: string | null;
  readonly storeId?: string;
  readonly part?: string;
  readonly signal?: string;
  readonly host?: string;
  readonly port?: number;
  readonly version?: string;
  readonly attempt?: number;
  readonly events?: number;
  readonly gap?: number;
  readonly code?: string;
  /** Which of the servers: `events`, `views`, `source`. */
  readonly backend?: string;
  readonly partition?: number;
  readonly topic?: string;
  /** `host:port` */
  readonly broker?: string;
  /** What a server or its driver says of itself; never of a payload. */
  readonly error?: string;
  readonly waitMs?: number;
  /** Key of a document in the views: keyed hashes, nothing of a customer. */
  readonly document?: string;
  /** Hash of a document's text, and what it should be. */
  readonly hash?: string;
  readonly expected?: string;
  readonly fault?: unknown;
}

export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

const CAUSES_MAX = 3;

/** Lines go to `write` before the call returns, so that the last words of a process are not lost. Default: stderr. */
export function createLog(level: LogLevel, write: (line: string) => void = toStderr): Log {
  const logger = pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime, formatters: { level: (label) => ({ level: label }) } }, { write });
  const fieldsOf = ({ fault, ...fields }: LogFields): object => (fault === undefined ? fields : { ...fields, fault: describeFault(fault) });
  return {
    debug: (message, fields = {}) => logger.debug(fieldsOf(fields), message),
    info: (message, fields = {}) => logger.info(fieldsOf(fields), message),
    warn: (message, fields = {}) => logger.warn(fieldsOf(fields), message),
    error: (message, fields = {}) => logger.error(fieldsOf(fields), message),
  };
}

/**
 * An error as a log may show it. An operating error's message is our own words; any other message may quote what was
 * being read (a JSON parser does), so only its name, its code and where it arose are kept. What is behind an operating error
 * was foreseen: where it arose says nothing more.
 */
export function describeFault(fault: unknown, depth = 0, foreseen = false): Record<string, unknown> {
  if (!(fault instanceof Error)) return { name: typeof fault };
  const code = 'code' in fault && typeof fault.code === 'string' ? { code: fault.code } : {};
  const operating = fault instanceof OperatingError;
  const said = operating ? { message: fault.message } : foreseen ? {} : { at: framesOf(fault) };
  const cause = fault.cause === undefined || depth >= CAUSES_MAX ? {} : { cause: describeFault(fault.cause, depth + 1, foreseen || operating) };
  return { name: fault.name, ...code, ...said, ...cause };
}

function framesOf(error: Error): readonly string[] {
  return (error.stack ?? '').split('\n').map((line) => line.trim()).filter((line) => /^at .*(:\d+:\d+\)?|\(node:.*\))$/.test(line)).slice(0, 8);
}

const STDERR = 2;
/** A pipe that is full (EAGAIN) or gone (EPIPE) or a terminal that is gone (EIO) costs the line, never the process. */
const UNWRITABLE: readonly unknown[] = ['EAGAIN', 'EPIPE', 'EIO'];
function toStderr(line: string): void {
  try {
    writeSync(STDERR, line);
  } catch (error) {
    if (!(typeof error === 'object' && error !== null && 'code' in error && UNWRITABLE.includes(error.code))) throw error;
  }
}
