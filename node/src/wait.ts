import { fromNative } from './errors';
import { native } from './load';
import type { Pending } from './native';

/** How long to wait. */
export interface WaitOptions {
  /** Milliseconds. */
  timeout?: number | undefined;
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
  return new Promise((resolve, reject) => {
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
      pending = start(options.timeout, poll);
    } catch (thrown) {
      reject(fromNative(thrown));
      return;
    }
    if (pending === undefined) {
      resolve();
    }
    poll();
  });
}
