/**
 * The time, whatever a test has put in the place of `Date` since: the core, which refuses calls of another day, goes by it.
 *
 * @internal
 */
export const { now } = Date;

/**
 * The timers, likewise: with those of a test, what waits for the core would never be over.
 *
 * @internal
 */
export const { setTimeout, clearTimeout } = globalThis;
