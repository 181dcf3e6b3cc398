import { channel } from 'node:diagnostics_channel';
import { Batch, type BatchOptions } from './batch';
import { ConfigurationError, fromNative } from './errors';
import { type Event, encode } from './event';
import { healthy } from './health';
import { native } from './load';
import type { Handle } from './native';
import { checkNames } from './nearest';
import { Receipt } from './receipt';
import { type WaitOptions, wait } from './wait';
import { warn } from './warn';

/** An option's value. Lengths of time are milliseconds. */
export type OptionValue = string | number | boolean | null | undefined;

/**
 * Options, by the names of the documentation in camel case: the core defines them, and refuses what
 * it does not know.
 */
export interface IngestionOptions {
  /** The API key; from `DODO_PAYMENTS_API_KEY`, if absent. */
  apiKey?: string | undefined;
  /** `test_mode` or `live_mode`. */
  environment?: 'test_mode' | 'live_mode' | undefined;
  /** The event name that the meters match. */
  eventName?: string | undefined;
  /** Hears what an operator should hear of; `process.emitWarning`, if absent. */
  onAlarm?: AlarmListener | undefined;
  [option: string]: OptionValue | AlarmListener;
}

/** Is called with an alarm's kind and message. */
export type AlarmListener = (kind: string, message: string) => void;

/** Counts of what has happened so far. */
export type Stats = Readonly<Record<string, number>>;

const OPEN = Symbol.for('dodo-ingestion.open');
const shared = process as { [OPEN]?: Set<() => void> };
shared[OPEN] ??= closedAtExit();

/**
 * How to close the clients that are still open at the end of the program. There is one set, however
 * many copies of this module a program has, or how often it loads its code anew.
 */
const open = shared[OPEN];

function closedAtExit(): Set<() => void> {
  const open = new Set<() => void>();
  process.on('beforeExit', () => {
    for (const close of open) {
      open.delete(close);
      close();
    }
  });
  return open;
}

/** Where every alarm and every accepted or refused call is told as well. */
const ALARMS = channel('dodo-ingestion:alarm');
const TRACKED = channel('dodo-ingestion:track');

/** An alarm reaches everyone; a listener that throws is an operator's matter and not the host's end. */
function telling(listener: AlarmListener): AlarmListener {
  return (kind, message) => {
    ALARMS.publish({ kind, message });
    try {
      listener(kind, message);
    } catch (error) {
      warn('onAlarm', String(error));
    }
  };
}

/** A client of the billing API: accepts calls in microseconds and delivers them in batches. */
export class Ingestion implements AsyncDisposable, Disposable {
  readonly #client: Handle<'Ingestion'>;
  readonly #apiKey: string | undefined;
  readonly #atExit: () => void;

  constructor(options: IngestionOptions) {
    const settings: Record<string, OptionValue> = {};
    const { onAlarm = warn, ...rest } = options;
    for (const [option, value] of Object.entries(rest)) {
      const name = option.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
      if (typeof value === 'number' && !Number.isFinite(value)) {
        throw new ConfigurationError(`${name}: ${value} is not a finite number`, { field: name });
      }
      if (typeof value === 'function') {
        throw new ConfigurationError(`${name}: a function is not an option's value`, {
          field: name,
        });
      }
      settings[name] = value;
    }
    try {
      this.#client = native.open(JSON.stringify(settings), telling(onAlarm));
    } catch (thrown) {
      throw fromNative(thrown);
    }
    this.#apiKey = options.apiKey ?? process.env.DODO_PAYMENTS_API_KEY;
    const client = new WeakRef(this.#client);
    this.#atExit = () => {
      const open = client.deref();
      if (open !== undefined) {
        const closing = wait((_, wake) => native.closeAtExit(open, wake));
        closing.catch((error: unknown) => warn('exit', String(error)));
      }
    };
    open.add(this.#atExit);
  }

  /** Accepts one call. */
  track(event: Event): Receipt {
    const receipt = Receipt.of(() => {
      const { text, unsupportedKey, unsupportedType } = encode(event);
      return native.track(this.#client, text, unsupportedKey, unsupportedType);
    });
    if (TRACKED.hasSubscribers) {
      TRACKED.publish({ event, receipt });
    }
    return receipt;
  }

  /** Opens a batch. */
  createBatch(options: BatchOptions = {}): Batch {
    checkNames(options, ['maxSize', 'flushInterval']);
    try {
      return new Batch(native.openBatch(this.#client, options.maxSize, options.flushInterval));
    } catch (thrown) {
      throw fromNative(thrown);
    }
  }

  /** Makes everything accepted so far due and waits until it is settled. */
  flush(options?: WaitOptions): Promise<void> {
    return wait((timeout, wake) => native.flush(this.#client, timeout, wake), options);
  }

  /** Flushes and lets go. What is left stays spooled. Where the signal ends it, the client stays open. */
  close(options?: WaitOptions): Promise<void> {
    const closing = wait((timeout, wake) => native.close(this.#client, timeout, wake), options);
    const closed = () => options?.signal?.aborted || open.delete(this.#atExit);
    closing.then(closed, closed);
    return closing;
  }

  /**
   * `test_mode` or `live_mode`.
   *
   * @internal
   */
  get environment(): string {
    return native.environment(this.#client);
  }

  /** Counts of what has happened so far. */
  stats(): Stats {
    const stats: Record<string, number> = JSON.parse(native.stats(this.#client));
    return Object.fromEntries(
      Object.entries(stats).map(([name, count]) => [
        name.replace(/_[a-z]/g, (pair) => pair.slice(1).toUpperCase()),
        count,
      ]),
    );
  }

  /** Whether the billing API answers and takes the key. */
  healthCheck(): Promise<boolean> {
    return healthy(native.baseUrl(this.#client), this.#apiKey);
  }

  /** The same as `close()`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Begins `close()` and does not wait for it, for `using`. What goes wrong is a warning. */
  [Symbol.dispose](): void {
    this.close().catch((error: unknown) => warn('close', String(error)));
  }
}

/** Accepts one API call for billing and returns its receipt, in microseconds. */
export function trackAPICall(ingestion: Ingestion, call: Event): Receipt {
  return ingestion.track(call);
}

/** Opens a batch. */
export function createBatch(ingestion: Ingestion, options?: BatchOptions): Batch {
  return ingestion.createBatch(options);
}
