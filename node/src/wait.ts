import { fromNative } from './errors';
import { native } from './load';
import type { Pending } from './native';
import { checkNames } from './nearest';

/** How long to wait. */
export interface WaitOptions {
  /** Milliseconds. */
  timeout?: number | undefined;
  /** Ends the wait, which then rejects with the signal's reason. What was accepted stays spooled. */
  signal?: AbortSignal | undefined;
}

/**
 * Waits for the core. The process stays alive meanwhile.
 *
 * @internal
 */
export function wait(
  start: (timeout: number | undefined, wake: () => void) => Pending | undefined,
  options: WaitOptions = {},
): Promise<void> {
  const { timeout, signal } = options;
  let abort = () => {};
  const waiting = new Promise<void>((resolve, reject) => {
    checkNames(options, ['timeout', 'signal']);
    signal?.throwIfAborted();
    let pending: Pending | undefined;
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
    if (pending === undefined) {
      resolve();
    }
    abort = () => {
      pending = undefined;
      reject(signal?.reason);
    };
    signal?.addEventListener('abort', abort, { once: true });
    poll();
  });
  return signal ? waiting.finally(() => signal.removeEventListener('abort', abort)) : waiting;
}
