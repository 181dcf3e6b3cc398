import { type Encoded, type Event, encode } from './event';
import { native } from './load';
import type { BatchHandle } from './native';
import { type WaitOptions, wait } from './wait';

/** When the calls of a batch are due. */
export interface BatchOptions {
  /** Calls. */
  maxSize?: number | undefined;
  /** Milliseconds that the oldest call waits at most. */
  flushInterval?: number | undefined;
}

/** Calls that are due together: when there are `maxSize`, or the oldest is `flushInterval` old. */
export class Batch implements AsyncDisposable {
  readonly #handle: BatchHandle;

  /** @internal */
  constructor(handle: BatchHandle) {
    this.#handle = handle;
  }

  /** Accepts one call. Never throws: what is refused is counted, and an alarm says so. */
  add(event: Event): void {
    let encoded: Encoded;
    try {
      encoded = encode(event);
    } catch (error) {
      native.refuse(this.#handle, error instanceof Error ? error.message : String(error));
      return;
    }
    try {
      native.add(this.#handle, encoded.text, encoded.unsupportedKey, encoded.unsupportedType);
    } catch {
      // The core has counted it.
    }
  }

  /** Makes everything accepted so far due and waits until it is settled. */
  flush(options?: WaitOptions): Promise<void> {
    return wait((timeout, wake) => native.flushBatch(this.#handle, timeout, wake), options);
  }

  /** Flushes and ends the batch. What is left stays spooled. */
  cleanup(options?: WaitOptions): Promise<void> {
    return wait((timeout, wake) => native.cleanupBatch(this.#handle, timeout, wake), options);
  }

  /** The same as `cleanup()`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.cleanup();
  }
}
