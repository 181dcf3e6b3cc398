/** Events in the billing API's own names, for programs that have used its client for them. */

import { ValidationError } from './errors';
import type { Event, Metadata } from './event';
import { Ingestion, type IngestionOptions } from './ingestion';
import { checked, type WaitOptions, whenAborted } from './wait';

/** An event in the billing API's own names. */
export interface DodoEvent {
  event_id: string;
  customer_id: string;
  event_name: string;
  timestamp?: string | undefined;
  metadata?: Metadata | undefined;
}

/** What the billing API has acknowledged. */
export interface IngestResponse {
  success: boolean;
  events_processed: number;
  /** Never there: one event that is refused rejects. */
  errors?: { event_id: string; error: string }[];
}

const REQUIRED = ['event_id', 'customer_id', 'event_name'] as const;

/** The same event in the names of this package. */
function ours(event: DodoEvent): Event {
  const {
    event_id: eventId,
    customer_id: customerId,
    event_name: eventName,
    timestamp,
    metadata,
    ...others
  } = event;
  return { ...others, eventId, customerId, eventName, timestamp, metadata };
}

/** Sends events and waits until the billing API has acknowledged them. */
export class DodoClient implements AsyncDisposable {
  readonly #ingestion: Ingestion;

  constructor(config: IngestionOptions) {
    const { apiKey } = config;
    if (apiKey !== undefined && !apiKey) {
      throw new ValidationError('apiKey: is empty', { field: 'apiKey' });
    }
    // The core wants a name for events that have none; here none is without.
    this.#ingestion = new Ingestion({ eventName: 'event', ...config });
  }

  /**
   * Accepts all events, then waits until each of them is billed. What is accepted stays accepted, also
   * when another event is refused or the time is over.
   */
  async ingestEvents(events: readonly DodoEvent[], options?: WaitOptions): Promise<IngestResponse> {
    if (events.length === 0) {
      throw new ValidationError('events: there are none', { field: 'events' });
    }
    for (const event of events) {
      for (const name of REQUIRED) {
        if (typeof event[name] !== 'string' || event[name] === '') {
          throw new ValidationError(`${name}: is missing`, { field: name });
        }
      }
    }
    const { timeout, signal } = checked(options);
    signal?.throwIfAborted();
    // An answer ends the waits for the rest, which would keep the process alive.
    const answered = new AbortController();
    const leave = signal && whenAborted(signal, () => answered.abort(signal.reason));
    const wait = { timeout, signal: answered.signal };
    try {
      const receipts = events.map((event) => this.#ingestion.track(ours(event)));
      await Promise.all(receipts);
      // The flush makes them due; what became of each, its receipt knows.
      this.#ingestion.flush(wait).catch(() => {});
      await Promise.all(receipts.map((receipt) => receipt.delivered(wait)));
    } finally {
      leave?.();
      answered.abort();
    }
    return { success: true, events_processed: events.length };
  }

  /** The same for one event. */
  ingestEvent(event: DodoEvent, options?: WaitOptions): Promise<IngestResponse> {
    return this.ingestEvents([event], options);
  }

  /** Whether the billing API answers and takes the key. */
  healthCheck(): Promise<boolean> {
    return this.#ingestion.healthCheck();
  }

  /** `test_mode` or `live_mode`. */
  getEnvironment(): string {
    return this.#ingestion.environment;
  }

  /** The environment and this package's version. */
  getClientInfo(): { environment: string; sdkVersion: string } {
    const { version } = require('../package.json') as { version: string };
    return { environment: this.getEnvironment(), sdkVersion: version };
  }

  /** Flushes and lets go. What is left stays spooled. */
  close(options?: WaitOptions): Promise<void> {
    return this.#ingestion.close(options);
  }

  /** The same as `close()`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
