import { fromNative } from './errors';
import { native } from './load';
import type { Handle } from './native';
import { checkNames } from './nearest';

/** How long to wait. */
export interface WaitOptions {
  /** Milliseconds. */
  timeout?: number | undefined;
  /** Ends the wait, which then rejects with the signal's reason. What was accepted stays spooled. */
  signal?: AbortSignal | undefined;
}

/** What a signal ends, with one listener for all of it: Node warns where there are many. */
const aborts = new WeakMap<AbortSignal, Set<() => void>>();

function abortsOf(signal: AbortSignal): Set<() => void> {
  const known = aborts.get(signal);
  if (known !== undefined) {
    return known;
  }
  const all = new Set<() => void>();
  aborts.set(signal, all);
  const end = () => {
    for (const abort of all) {
      abort();
    }
  };
  signal.addEventListener('abort', end, { once: true });
  return all;
}

/**
 * Waits for the core. The process stays alive meanwhile, and no longer.
 *
 * @internal
 */
export function wait(
  start: (timeout: number | undefined, wake: () => void) => Handle<'Pending'>,
  options: WaitOptions = {},
): Promise<void> {
  const { timeout, signal } = options;
  let abort = () => {};
  const waiting = new Promise<void>((resolve, reject) => {
    checkNames(options, ['timeout', 'signal']);
    signal?.throwIfAborted();
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
    abort = () => {
      native.cancel(started);
      reject(signal?.reason);
    };
    poll();
  });
  if (signal === undefined || signal.aborted) {
    return waiting;
  }
  const all = abortsOf(signal);
  all.add(abort);
  return waiting.finally(() => all.delete(abort));
}
