// What the api takes on at a time. Beyond it a request is told to come again before its body is read, so that load costs
// no memory that was not foreseen: the bodies held are bounded together and not each alone, and so are the requests under
// way. A place is kept until the request is answered and its work is done, whichever is later: whoever goes away early
// does not make room for another while the door still holds what he sent.

import type { Clock } from './ports.ts';

/** Publishes and queries have bounds of their own: neither keeps the other out. */
export type Kind = 'publish' | 'query';
/** What there was too little of: room for requests or for their bodies, or time. */
export type Shortage = 'requests' | 'bytes' | 'time';

export interface AdmissionBounds { readonly requests: number; readonly bytes: number }
export interface AdmissionLimits extends Readonly<Record<Kind, AdmissionBounds>> {
  /**
   * One request is begun in some turns of the event loop, the others stand in line: so that many are read, and seen, before much
   * is worked on, instead of waiting in the kernel's sockets, where nobody sees them. Once the first in line has waited for
   * `ms`, and `requests` stand in it, what else comes is told to come again.
   */
  readonly line: { readonly ms: number; readonly requests: number };
}
/**
 * Publishes mostly wait for their commit, many for the same. Their bodies: two of the largest size (16 MiB), or 64 of what
 * `import` sends. Queries keep the thread itself: 128 of the searches of `make bench` are a quarter of a second's work, and
 * a page of a history is 8 MiB at most. test/chaos/overload.ts says what `serve` takes at ten times its load.
 */
export const ADMISSION_LIMITS: AdmissionLimits = {
  publish: { requests: 1024, bytes: 32 * 1024 * 1024 },
  query: { requests: 128, bytes: 4 * 1024 * 1024 },
  line: { ms: 1000, requests: 32 },
};

export interface AdmissionCounts {
  readonly underWay: number;
  /** Of bodies held now. */
  readonly bytes: number;
  /** The most that was held at a time. */
  readonly bytesMost: number;
  /** Requests told to come again, by what there was too much of. */
  readonly shed: Readonly<Record<Shortage, number>>;
}

interface Ward { readonly bounds: AdmissionBounds; underWay: number; bytes: number; bytesMost: number; readonly shed: Record<Shortage, number> }

export class Admission {
  readonly #wards: Readonly<Record<Kind, Ward>>;
  readonly #line: Line;

  /** `clock` only ever goes forward. */
  constructor(clock: Clock, limits: AdmissionLimits = ADMISSION_LIMITS) {
    const ward = (bounds: AdmissionBounds): Ward => ({ bounds, underWay: 0, bytes: 0, bytesMost: 0, shed: { requests: 0, bytes: 0, time: 0 } });
    this.#line = new Line(clock, limits.line);
    this.#wards = { publish: ward(limits.publish), query: ward(limits.query) };
  }

  /** Null: there are as many under way as there may be, or no time for more. */
  enter(kind: Kind): Place | null {
    const ward = this.#wards[kind];
    const shortage: Shortage | null = ward.underWay >= ward.bounds.requests ? 'requests' : this.#line.isLong() ? 'time' : null;
    if (shortage === null) return new Place(ward, this.#line);
    ward.shed[shortage] += 1;
    return null;
  }

  counts(): Readonly<Record<Kind, AdmissionCounts>> {
    const counts = ({ underWay, bytes, bytesMost, shed }: Ward): AdmissionCounts => ({ underWay, bytes, bytesMost, shed: { ...shed } });
    return { publish: counts(this.#wards.publish), query: counts(this.#wards.query) };
  }
}

/** Turns of the event loop for each request that is begun: a turn accepts one connection, and costs a few microseconds. */
const TURNS = 8;

/** Requests that are read and wait to be begun, the first that came first. */
class Line {
  readonly #clock: Clock;
  readonly #limits: AdmissionLimits['line'];
  #waiting: { readonly sinceMs: number; readonly begin: () => void }[] = [];
  /** How many of them have been begun. */
  #begun = 0;
  /** One was begun lately; when the turns are over, the next may be. */
  #taken = false;

  constructor(clock: Clock, limits: AdmissionLimits['line']) {
    this.#clock = clock;
    this.#limits = limits;
  }

  /** Asked of each request that comes. */
  isLong(): boolean {
    const first = this.#waiting[this.#begun];
    return first !== undefined && this.#waiting.length - this.#begun >= this.#limits.requests && this.#clock.now() - first.sinceMs >= this.#limits.ms;
  }

  /** Resolves when it is this one's turn. */
  turn(): Promise<void> {
    if (!this.#taken) {
      this.#take();
      return Promise.resolve();
    }
    const { promise, resolve } = Promise.withResolvers<undefined>();
    this.#waiting.push({ sinceMs: this.#clock.now(), begin: () => { resolve(undefined); } });
    return promise;
  }

  #take(): void {
    this.#taken = true;
    this.#pass(TURNS);
  }

  #pass(turns: number): void {
    setImmediate(() => {
      if (turns > 1) this.#pass(turns - 1);
      else this.#next();
    });
  }

  #next(): void {
    this.#taken = false;
    const first = this.#waiting[this.#begun];
    if (first === undefined) {
      this.#waiting = [];
      this.#begun = 0;
      return;
    }
    this.#begun += 1;
    // What was begun is let go of now and then, not one by one.
    if (this.#begun > 64 && this.#begun * 2 > this.#waiting.length) {
      this.#waiting.splice(0, this.#begun);
      this.#begun = 0;
    }
    this.#take();
    first.begin();
  }
}

/** One request's. */
export class Place {
  readonly #ward: Ward;
  readonly #line: Line;
  #bytes = 0;
  /** Two let go of it: whoever works for the request, and whoever answers it. */
  #holders = 2;

  constructor(ward: Ward, line: Line) {
    this.#ward = ward;
    this.#line = line;
    ward.underWay += 1;
  }

  /** Resolves when the request may be begun: what takes the thread's time comes after this. */
  turn(): Promise<void> { return this.#line.turn(); }

  /** False: the body may not be held. One alone is let in however large, else it never could be; what one body may have is bounded elsewhere. */
  reserve(bytes: number): boolean {
    const ward = this.#ward;
    if (ward.bytes > this.#bytes && ward.bytes + bytes > ward.bounds.bytes) {
      ward.shed.bytes += 1;
      return false;
    }
    this.#bytes += bytes;
    ward.bytes += bytes;
    ward.bytesMost = Math.max(ward.bytesMost, ward.bytes);
    return true;
  }

  /** The body is not held any more. */
  drop(): void {
    this.#ward.bytes -= this.#bytes;
    this.#bytes = 0;
  }

  /** To be called by each of its two holders, once. */
  leave(): void {
    this.#holders -= 1;
    if (this.#holders > 0) return;
    this.drop();
    this.#ward.underWay -= 1;
  }
}
