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
   * What is done at once, without waiting for anything, is never under way with another: it queues up in the kernel's
   * sockets, where nobody sees it. It shows as a turn of the event loop that does not end: once one has lasted `ms` and
   * let in `requests`, what else comes in that turn is told to come again.
   */
  readonly turn: { readonly ms: number; readonly requests: number };
}
/**
 * Publishes mostly wait for their commit, many for the same. Their bodies: two of the largest size (16 MiB), or 64 of what
 * `import` sends. Queries keep the thread itself: 128 of the searches of `make bench` are a quarter of a second's work, and
 * a page of a history is 8 MiB at most. test/chaos/overload.ts says what `serve` takes at ten times its load.
 */
export const ADMISSION_LIMITS: AdmissionLimits = {
  publish: { requests: 1024, bytes: 32 * 1024 * 1024 },
  query: { requests: 128, bytes: 4 * 1024 * 1024 },
  turn: { ms: 1000, requests: 32 },
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
  readonly #turn: Turn;

  /** `clock` only ever goes forward. */
  constructor(clock: Clock, limits: AdmissionLimits = ADMISSION_LIMITS) {
    const ward = (bounds: AdmissionBounds): Ward => ({ bounds, underWay: 0, bytes: 0, bytesMost: 0, shed: { requests: 0, bytes: 0, time: 0 } });
    this.#turn = new Turn(clock, limits.turn);
    this.#wards = { publish: ward(limits.publish), query: ward(limits.query) };
  }

  /** Null: there are as many under way as there may be, or no time for more. */
  enter(kind: Kind): Place | null {
    const ward = this.#wards[kind];
    const shortage: Shortage | null = ward.underWay >= ward.bounds.requests ? 'requests' : this.#turn.isLong() ? 'time' : null;
    if (shortage === null) return new Place(ward);
    ward.shed[shortage] += 1;
    return null;
  }

  counts(): Readonly<Record<Kind, AdmissionCounts>> {
    const counts = ({ underWay, bytes, bytesMost, shed }: Ward): AdmissionCounts => ({ underWay, bytes, bytesMost, shed: { ...shed } });
    return { publish: counts(this.#wards.publish), query: counts(this.#wards.query) };
  }
}

/** A turn of the event loop, from the first request in it. */
class Turn {
  readonly #clock: Clock;
  readonly #limits: AdmissionLimits['turn'];
  #startedMs: number | null = null;
  #requests = 0;

  constructor(clock: Clock, limits: AdmissionLimits['turn']) {
    this.#clock = clock;
    this.#limits = limits;
  }

  /** Asked of each request. */
  isLong(): boolean {
    const now = this.#clock.now();
    if (this.#startedMs === null) {
      this.#startedMs = now;
      this.#requests = 0;
      setImmediate(() => { this.#startedMs = null; });
    }
    const isLong = this.#requests >= this.#limits.requests && now - this.#startedMs >= this.#limits.ms;
    if (!isLong) this.#requests += 1;
    return isLong;
  }
}

/** One request's. */
export class Place {
  readonly #ward: Ward;
  #bytes = 0;
  /** Two let go of it: whoever works for the request, and whoever answers it. */
  #holders = 2;

  constructor(ward: Ward) {
    this.#ward = ward;
    ward.underWay += 1;
  }

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
