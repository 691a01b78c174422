// Chance that is the same in every run: a test that fails once fails again.

export interface Seeded {
  /** From 0 to below `limit`. */
  below(limit: number): number;
  pick<T>(from: readonly T[]): T;
  shuffled<T>(from: readonly T[]): T[];
}

/** A linear congruential generator of 32 bits (Numerical Recipes' constants), of which the upper bits are used. */
export function seeded(seed: number): Seeded {
  let state = seed >>> 0;
  const below = (limit: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
  const pick = <T>(from: readonly T[]): T => {
    const [one] = from.slice(below(from.length));
    if (one === undefined) throw new Error('nothing to pick from');
    return one;
  };
  const shuffled = <T>(from: readonly T[]): T[] => {
    const all = [...from];
    for (let i = all.length - 1; i > 0; i -= 1) all.push(...all.splice(below(i + 1), 1));
    return all;
  };
  return { below, pick, shuffled };
}
