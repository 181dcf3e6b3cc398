import { Batch, type BatchOptions, checkBatchOptions } from './batch';
import { ALARMS, TRACKED } from './channels';
import { ConfigurationError, fromNative, refusal, wordsOf } from './errors';
import { type Event, encodeFor } from './event';
import { closeAtExit } from './exit';
import { healthy } from './health';
import { native } from './load';
import type { Call } from './metering/options';
import { camelOf, snakeOf } from './names';
import type { Handle } from './native';
import { checkNames } from './nearest';
import { OPTION_NAMES, type Options, type Stats } from './options';
import { Receipt } from './receipt';
import { recordOf } from './record';
import { type Verb, verb, wait } from './wait';
import { warn } from './warn';

export type { Stats } from './options';

/** Options of a client. */
export interface IngestionOptions extends Options {
  /** Hears what an operator should hear of; `process.emitWarning`, if absent. */
  onAlarm?: AlarmListener | undefined;
}

/** Is called with an alarm's kind and message. */
export type AlarmListener = (kind: string, message: string) => void;

const NAMES: readonly string[] = [...OPTION_NAMES, 'onAlarm'];

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

/** Options as the core takes them. */
function textOf(options: Options): string {
  const settings: Record<string, unknown> = {};
  for (const [option, value] of Object.entries(options)) {
    if (typeof value === 'number' && !Number.isFinite(value)) {
      throw new ConfigurationError(`${option}: ${value} is not a finite number`, { field: option });
    }
    if (typeof value === 'function' || typeof value === 'symbol' || typeof value === 'bigint') {
      const why = `a ${typeof value} is not an option's value`;
      throw new ConfigurationError(`${option}: ${why}`, { field: option });
    }
    if (typeof value === 'string' && !value.isWellFormed()) {
      throw new ConfigurationError(`${option}: is text with a lone surrogate`, { field: option });
    }
    settings[snakeOf(option)] = value;
  }
  return JSON.stringify(settings);
}

/** What may configure a client of `process.env`, which is not the process's own in a worker, nor under Jest. */
function variables(): string {
  const ours = Object.entries(process.env).filter(([name]) => name.startsWith('DODO_'));
  return JSON.stringify(Object.fromEntries(ours));
}

/** A client of the billing API: accepts calls in microseconds and delivers them in batches. */
export class Ingestion implements AsyncDisposable, Disposable {
  readonly #client: Handle<'Ingestion'>;
  #acceptor: ((record: Uint8Array) => void) | undefined;
  readonly #apiKey: string | undefined;
  readonly #leave: () => void;
  readonly #lookups = new Set<Promise<unknown>>();

  constructor(options: IngestionOptions = {}) {
    checkNames(options, NAMES);
    const { onAlarm, ...settings } = options;
    if (typeof (onAlarm ?? warn) !== 'function') {
      throw new ConfigurationError('onAlarm: is not a function', { field: 'onAlarm' });
    }
    try {
      this.#client = native.open(textOf(settings), variables(), telling(onAlarm ?? warn));
    } catch (thrown) {
      throw fromNative(thrown);
    }
    this.#apiKey = options.apiKey || process.env.DODO_PAYMENTS_API_KEY;
    this.#leave = closeAtExit(this, this.#client);
  }

  /** Accepts one call. */
  track(event: Event): Receipt {
    const receipt = Receipt.of(this.#client, () => this.#accept(event));
    if (TRACKED.hasSubscribers) {
      TRACKED.publish({ event, receipt });
    }
    return receipt;
  }

  /**
   * The receipt of a call of which no event could be made, which is counted and told.
   *
   * @internal
   */
  refuse(thrown: unknown): Receipt {
    native.refuse(this.#client, wordsOf(thrown));
    return Receipt.refused(thrown);
  }

  /** Accepts one call, and returns its receipt's ticket. */
  #accept(event: Event): string {
    const { text, unsupportedKey, unsupportedType } = encodeFor(this.#client, event);
    return native.track(this.#client, text, unsupportedKey, unsupportedType);
  }

  /**
   * Accepts one call of which nobody wants a receipt. Throws what one would be rejected with. False where `track` is
   * not this class's own, as of a client that is spied on, or its receipts are listened for.
   *
   * @internal
   */
  accepts(event: Event): boolean {
    return this.#accepts((event) => this.#accept(event), event);
  }

  /**
   * The same for an API call, by its fields: to make JSON of them costs more than all the rest. False also where one of
   * them crosses as JSON only.
   *
   * @internal
   */
  acceptsApiCall(
    customerId: string,
    eventName: string | undefined,
    call: Call,
    ttfbMs: number | undefined,
  ): boolean {
    const { statusCode } = call;
    // What is no status of HTTP crosses as it is.
    if (statusCode !== undefined && (statusCode & 0xffff) !== statusCode) {
      return false;
    }
    const record = recordOf(customerId, eventName, call, ttfbMs);
    if (record === undefined) {
      return false;
    }
    this.#acceptor ??= native.acceptor(this.#client);
    return this.#accepts(this.#acceptor, record);
  }

  #accepts<Made>(accept: (made: Made) => unknown, made: Made): boolean {
    if (this.track !== Ingestion.prototype.track || TRACKED.hasSubscribers) {
      return false;
    }
    try {
      accept(made);
    } catch (thrown) {
      throw refusal(thrown);
    }
    return true;
  }

  /**
   * Has `flush` and `close` wait for a call that is tracked when its customer has been looked up.
   *
   * @internal
   */
  expect(lookup: Promise<unknown>): void {
    const over = () => this.#lookups.delete(lookup);
    this.#lookups.add(lookup);
    lookup.then(over, over);
  }

  /** Opens a batch. */
  createBatch(options?: BatchOptions): Batch {
    checkBatchOptions(options);
    try {
      const batch = native.openBatch(this.#client, options?.maxSize, options?.flushInterval);
      return new Batch(this, this.#client, batch);
    } catch (thrown) {
      throw fromNative(thrown);
    }
  }

  /**
   * Makes everything accepted so far due and waits until it is settled. Calls whose customers are being looked up
   * are waited for first.
   */
  readonly flush: Verb = verb(this, (options) =>
    wait((timeout, wake) => native.flush(this.#client, timeout, wake), options, this.#lookups),
  );

  /**
   * Flushes and lets go. What is left stays spooled; a call whose customer is found later is refused. Where the
   * signal ends it while it flushes, the client stays open.
   */
  readonly close: Verb = verb(this, async (options) => {
    let began = false;
    const start = (timeout: number | undefined, wake: () => void) => {
      const closing = native.close(this.#client, timeout, wake);
      began = true;
      return closing;
    };
    try {
      await wait(start, options, this.#lookups);
    } finally {
      if (began && !options?.signal?.aborted) {
        this.#leave();
      }
    }
  });

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
    const counts = Object.entries(stats).map(([name, count]) => [camelOf(name), count]);
    return Object.fromEntries(counts) as Stats;
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
