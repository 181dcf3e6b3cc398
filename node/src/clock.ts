/**
 * The time, whatever a test has put in the place of `Date` since: the core, which refuses calls of another day, goes by it.
 *
 * @internal
 */
export const { now } = Date;
