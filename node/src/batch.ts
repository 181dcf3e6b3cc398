import { TRACKED } from './channels';
import { ConfigurationError, type IngestionError, refusal } from './errors';
import { type Event, encodeFor } from './event';
import { native } from './load';
import type { Handle } from './native';
import { checkNames } from './nearest';
import { type Verb, verb, wait } from './wait';
import { warn } from './warn';

/** When the calls of a batch are due. */
export interface BatchOptions {
  /** Calls: 1 to 1000, 100 if absent. A full batch goes out within 50 ms, with whatever comes meanwhile. */
  maxSize?: number | undefined;
  /** Milliseconds that the oldest call waits at most. */
  flushInterval?: number | undefined;
}

const UNITS: Record<keyof BatchOptions, string> = {
  maxSize: 'calls',
  flushInterval: 'milliseconds',
};

/**
 * Refuses what a batch was not meant to be made with. What is out of range is for the core to refuse.
 *
 * @internal
 */
export function checkBatchOptions(options: BatchOptions | undefined): void {
  checkNames(options, Object.keys(UNITS));
  for (const [option, value] of Object.entries(options ?? {})) {
    if (typeof (value ?? 0) !== 'number') {
      const unit = UNITS[option as keyof BatchOptions];
      throw new ConfigurationError(`${option}: is not a number of ${unit}`, { field: option });
    }
  }
}

/**
 * Calls that are due together: when there are `maxSize`, or the oldest is `flushInterval` old. Its verbs
 * may be taken out of it: `const { add, flush, cleanup } = createBatch(ingestion)`.
 */
export class Batch implements AsyncDisposable, Disposable {
  readonly #client: Handle<'Ingestion'>;
  readonly #handle: Handle<'Batch'>;
  readonly #accept: (text: string, unsupportedKey?: string, unsupportedType?: string) => void;
  /**
   * Kept for as long as the batch is: the end of the program flushes the clients that somebody has.
   *
   * @internal
   */
  readonly owner: object;

  /** @internal */
  constructor(owner: object, client: Handle<'Ingestion'>, handle: Handle<'Batch'>) {
    this.owner = owner;
    this.#client = client;
    this.#handle = handle;
    this.#accept = native.adder(handle);
  }

  /** Accepts one call. Never throws: what is refused is counted, and an alarm says so. */
  readonly add = (event: Event): void => {
    let refused: IngestionError | undefined;
    try {
      this.#add(event);
    } catch (thrown) {
      refused = refusal(thrown);
    }
    if (TRACKED.hasSubscribers) {
      TRACKED.publish({ event, error: refused });
    }
  };

  #add(event: Event): void {
    const { text, unsupportedKey, unsupportedType } = encodeFor(this.#client, event);
    this.#accept(text, unsupportedKey, unsupportedType);
  }

  /** Makes everything accepted so far due and waits until it is settled. */
  readonly flush: Verb = verb(this, (options) =>
    wait((timeout, wake) => native.flushBatch(this.#handle, timeout, wake), options),
  );

  /** Flushes and ends the batch. What is left stays spooled. */
  readonly cleanup: Verb = verb(this, (options) =>
    wait((timeout, wake) => native.cleanupBatch(this.#handle, timeout, wake), options),
  );

  /** The same as `cleanup()`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.cleanup();
  }

  /** Begins `cleanup()` and does not wait for it, for `using`. What goes wrong is a warning. */
  [Symbol.dispose](): void {
    this.cleanup().catch((error: unknown) => warn('cleanup', String(error)));
  }
}
