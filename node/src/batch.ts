import { type Encoded, type Event, encode } from './event';
import { native } from './load';
import type { Handle } from './native';
import { type WaitOptions, wait } from './wait';
import { warn } from './warn';

/** When the calls of a batch are due. */
export interface BatchOptions {
  /** Calls. */
  maxSize?: number | undefined;
  /** Milliseconds that the oldest call waits at most. */
  flushInterval?: number | undefined;
}

/**
 * Calls that are due together: when there are `maxSize`, or the oldest is `flushInterval` old. Its verbs
 * may be taken out of it: `const { add, flush, cleanup } = createBatch(ingestion)`.
 */
export class Batch implements AsyncDisposable, Disposable {
  readonly #handle: Handle<'Batch'>;

  /** @internal */
  constructor(handle: Handle<'Batch'>) {
    this.#handle = handle;
  }

  /** Accepts one call. Never throws: what is refused is counted, and an alarm says so. */
  readonly add = (event: Event): void => {
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
  };

  /** Makes everything accepted so far due and waits until it is settled. */
  readonly flush = (options?: WaitOptions): Promise<void> =>
    wait((timeout, wake) => native.flushBatch(this.#handle, timeout, wake), options);

  /** Flushes and ends the batch. What is left stays spooled. */
  readonly cleanup = (options?: WaitOptions): Promise<void> =>
    wait((timeout, wake) => native.cleanupBatch(this.#handle, timeout, wake), options);

  /** The same as `cleanup()`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.cleanup();
  }

  /** Begins `cleanup()` and does not wait for it, for `using`. What goes wrong is a warning. */
  [Symbol.dispose](): void {
    this.cleanup().catch((error: unknown) => warn('cleanup', String(error)));
  }
}
