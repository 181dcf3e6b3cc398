import { clearTimeout, setTimeout } from './clock';
import { ConfigurationError, fromNative, TimeoutError } from './errors';
import { native } from './load';
import type { Handle } from './native';
import { checkNames } from './nearest';
import { DEFAULT_TIMEOUT } from './options';
import { warn } from './warn';

/** How long to wait. */
export interface WaitOptions {
  /** Milliseconds. */
  timeout?: number | undefined;
  /** Ends the wait, which then rejects with the signal's reason. What was accepted stays spooled. */
  signal?: AbortSignal | undefined;
}

const NAMES = ['timeout', 'signal'];

/** A verb that waits. Whoever calls listeners may call it: what they are told is no options. */
export interface Verb {
  (): Promise<void>;
  (options?: WaitOptions): Promise<void>;
}

/**
 * Makes a verb that may be taken out of its owner, and be a listener: `process.on('SIGTERM', batch.cleanup)`. Who
 * calls listeners lets go of what they return: its failure is a warning, and not the end of the process.
 *
 * @internal
 */
export function verb(owner: object, run: (options?: WaitOptions) => Promise<void>): Verb {
  return function (this: unknown, ...args: unknown[]): Promise<void> {
    const [options] = args;
    const told = args.length > 1 || (this !== undefined && this !== owner);
    const meant = isPlain(options) && NAMES.some((name) => name in options);
    const waiting = run(told && !meant ? undefined : (options as WaitOptions));
    if (told) {
      waiting.catch((error: unknown) => warn('wait', String(error)));
    }
    return waiting;
  };
}

/**
 * Options, or what stands for none. What was surely meant to be options and is none is refused.
 *
 * @internal
 */
export function checked(options: unknown): WaitOptions {
  if (typeof options === 'number' || options instanceof AbortSignal) {
    const name = typeof options === 'number' ? 'timeout' : 'signal';
    throw new ConfigurationError(`${name}: comes by its name, as in { ${name} }`, { field: name });
  }
  if (!isPlain(options)) {
    return {};
  }
  checkNames(options, NAMES);
  const { timeout, signal } = options as { timeout?: number | null; signal?: AbortSignal | null };
  if (typeof (timeout ?? 0) !== 'number') {
    throw new ConfigurationError('timeout: is not a number of milliseconds', { field: 'timeout' });
  }
  // Not `instanceof`: it may be of another realm.
  if (signal && typeof signal.throwIfAborted !== 'function') {
    throw new ConfigurationError('signal: is not an AbortSignal', { field: 'signal' });
  }
  return { timeout: timeout ?? undefined, signal: signal ?? undefined };
}

/** Whether it is an object literal, of whichever realm. */
function isPlain(value: unknown): value is object {
  if (typeof value !== 'object' || value === null) {
    return false;
  }
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

/** What a signal ends, with one listener for all of it: Node warns where there are many. */
const aborts = new WeakMap<AbortSignal, Set<() => void>>();

/**
 * Has a signal call a function; gives what ends that.
 *
 * @internal
 */
export function whenAborted(signal: AbortSignal, abort: () => void): () => void {
  let all = aborts.get(signal);
  if (all === undefined) {
    all = new Set();
    aborts.set(signal, all);
  }
  if (all.size === 0) {
    signal.addEventListener('abort', abortAll);
  }
  all.add(abort);
  return () => {
    // A listener would keep the signal, and what a signal of `AbortSignal.any` depends on keeps that.
    if (all.delete(abort) && all.size === 0) {
      signal.removeEventListener('abort', abortAll);
    }
  };
}

function abortAll(this: AbortSignal): void {
  for (const abort of aborts.get(this) ?? []) {
    abort();
  }
}

/** The longest that a timer of Node takes. */
const LONGEST_TIMER = 2 ** 31 - 1;

/** Waits for promises, whatever becomes of them, and no longer than is asked for. Gives what is left of that. */
async function settled(
  promises: Iterable<Promise<unknown>>,
  timeout: number,
  signal: AbortSignal | undefined,
): Promise<number> {
  const began = performance.now();
  let timer: NodeJS.Timeout | undefined;
  let leave = () => {};
  try {
    await new Promise<void>((resolve, reject) => {
      timer = setTimeout(resolve, Math.min(timeout, LONGEST_TIMER));
      if (signal !== undefined) {
        leave = whenAborted(signal, () => reject(signal.reason));
      }
      Promise.allSettled(promises).then(() => resolve());
    });
  } finally {
    clearTimeout(timer);
    leave();
  }
  // One that is out of range is for the core to refuse.
  return Math.max(Math.min(timeout, 0), timeout - (performance.now() - began));
}

/**
 * Waits for the core, and before that for the calls whose customers are being looked up, each of which leaves its set
 * when it is over. The process stays alive meanwhile, and no longer.
 *
 * @internal
 */
export async function wait(
  start: (timeout: number | undefined, wake: () => void) => Handle<'Pending'>,
  options?: WaitOptions,
  lookups?: ReadonlySet<Promise<unknown>>,
): Promise<void> {
  let { timeout, signal } = checked(options);
  signal?.throwIfAborted();
  const awaited = [...(lookups ?? [])];
  if (awaited.length > 0) {
    timeout = await settled(awaited, timeout ?? DEFAULT_TIMEOUT, signal);
  }
  const late = awaited.filter((lookup) => lookups?.has(lookup)).length;
  let leave = () => {};
  try {
    await new Promise<void>((resolve, reject) => {
      let pending: Handle<'Pending'> | undefined;
      const poll = () => {
        try {
          if (pending !== undefined && native.poll(pending)) {
            resolve();
          }
        } catch (thrown) {
          reject(fromNative(thrown));
        }
      };
      try {
        pending = start(timeout, poll);
      } catch (thrown) {
        reject(fromNative(thrown));
        return;
      }
      const started = pending;
      if (signal !== undefined) {
        leave = whenAborted(signal, () => {
          native.cancel(started);
          reject(signal.reason);
        });
      }
      poll();
    });
  } finally {
    leave();
  }
  // It may have been over before the signal was aborted, when the caller had heard of neither.
  signal?.throwIfAborted();
  if (late > 0) {
    throw new TimeoutError(`calls not accepted yet: ${late}; their customers are being looked up`);
  }
}
