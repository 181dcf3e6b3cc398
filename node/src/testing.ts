/**
 * A local meter for the tests of an app: what is billed can be looked at, and nobody has to pay.
 *
 * ```js
 * import { startMeter } from 'dodo-ingestion/testing';
 *
 * await using meter = await startMeter();
 * const app = createApp(meter.connect());
 * // … calls the app …
 * const [event] = await meter.events({ customerId: 'cus_1', count: 1 });
 * ```
 *
 * The program is the one in `DODOMETER_BIN`, or else that of the package `dodometer`, or of `PATH`.
 *
 * @packageDocumentation
 */

import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import * as timers from 'node:timers/promises';
import { now } from './clock';
import { findDodometer } from './dodometer';
import { ClosedError, TimeoutError } from './errors';
import { Ingestion, type IngestionOptions } from './ingestion';
import { checkNames } from './nearest';

// A test may put its own in the place of Node's later.
const { setTimeout: sleep } = timers;

const STARTS_WITHIN = 20_000;
const WAITS = 10_000;
const PAGE = 1000;

/** It ends when its input is closed, and so with this process. */
type Program = ChildProcessByStdio<Writable, Readable, null>;

/** An event, as the meter has it. */
export interface MeteredEvent {
  readonly eventId: string;
  readonly customerId: string;
  readonly eventName: string;
  readonly timestamp: Date;
  readonly metadata: Readonly<Record<string, string | number | boolean>>;
}

/** Which events, and how many of them are waited for. */
export interface EventsQuery {
  customerId?: string | undefined;
  eventName?: string | undefined;
  /** Waits until there are so many; does not wait, if absent. */
  count?: number | undefined;
  /** Milliseconds to wait for them: 10,000, if absent. */
  timeout?: number | undefined;
}

/** How a meter is started. */
export interface StartOptions {
  /** The path of the program `dodometer`. */
  binary?: string | undefined;
}

/**
 * Starts a meter that keeps its events in memory. It ends with this process at the latest, however that ends.
 */
export async function startMeter(options: StartOptions = {}): Promise<LocalMeter> {
  checkNames(options, ['binary']);
  const { binary = findDodometer() } = options;
  const listen = ['serve', '--listen', '127.0.0.1:0', '--data', ':memory:'];
  const args = [...listen, '--json', '--until-stdin-closes'];
  const child = spawn(binary, args, { stdio: ['pipe', 'pipe', 'ignore'] });
  const failed = new AbortController();
  const { signal } = failed;
  try {
    const [line] = await Promise.race([
      once(createInterface(child.stdout), 'line', { signal }),
      once(child, 'exit', { signal }).then(([code]) => {
        throw new Error(`${binary} exited with ${code}`);
      }),
      sleep(STARTS_WITHIN, undefined, { signal }).then(() => {
        throw new TimeoutError(`${binary} said nothing within ${STARTS_WITHIN} ms`);
      }),
    ]);
    return new LocalMeter(child, JSON.parse(line).url);
  } catch (error) {
    child.kill();
    throw error;
  } finally {
    failed.abort();
  }
}

/** A meter of this machine. */
export class LocalMeter implements AsyncDisposable {
  /** Where it listens: what `DODO_PAYMENTS_BASE_URL` or the option `baseUrl` is to be. */
  readonly url: string;
  readonly #child: Program;
  readonly #clients = new Set<Ingestion>();

  /** @internal */
  constructor(child: Program, url: string) {
    this.#child = child;
    this.url = url;
    // A test that forgets to stop it comes to its end all the same.
    child.unref();
    (child.stdin as Socket).unref();
    (child.stdout as Socket).unref();
    child.stdout.resume();
  }

  /** A client that bills to it, and is closed with it. */
  connect(options: IngestionOptions = {}): Ingestion {
    const ingestion = new Ingestion({
      apiKey: 'dodo_test',
      environment: 'test_mode',
      eventName: 'api_call',
      // The meter is no account that others share: a test need not wait for its turn.
      requestsPerMinute: 1_000_000,
      requestsPerSecond: 100_000,
      baseUrl: this.url,
      durability: 'memory',
      onAlarm: () => {},
      ...options,
    });
    this.#clients.add(ingestion);
    return ingestion;
  }

  /** The events so far. Flushes the clients that were connected here. */
  async events(query: EventsQuery = {}): Promise<MeteredEvent[]> {
    checkNames(query, ['customerId', 'eventName', 'count', 'timeout']);
    const { count = 0, timeout = WAITS } = query;
    const until = now() + timeout;
    for (;;) {
      const left = Math.max(1, until - now());
      await Promise.all([...this.#clients].map((client) => this.#flushed(client, left)));
      const found = await this.#found(query);
      if (found.length >= count) {
        return found;
      }
      if (now() >= until) {
        throw new TimeoutError(`${found.length} of ${count} events came within ${timeout} ms`);
      }
      await sleep(20);
    }
  }

  /** An app may have closed its client: what it billed is there. */
  async #flushed(client: Ingestion, timeout: number): Promise<void> {
    try {
      await client.flush({ timeout });
    } catch (error) {
      if (!(error instanceof ClosedError)) {
        throw error;
      }
      this.#clients.delete(client);
    }
  }

  async #found({ customerId, eventName }: EventsQuery): Promise<MeteredEvent[]> {
    const events: MeteredEvent[] = [];
    for (let page = 0; ; page += 1) {
      const url = new URL('/events', this.url);
      const query = { customer_id: customerId, event_name: eventName, page_number: page };
      for (const [name, value] of Object.entries({ ...query, page_size: PAGE })) {
        if (value !== undefined) {
          url.searchParams.set(name, String(value));
        }
      }
      const response = await fetch(url, { headers: { authorization: 'Bearer dodo_test' } });
      if (!response.ok) {
        throw new Error(`GET ${url}: ${response.status} ${await response.text()}`);
      }
      const { items } = (await response.json()) as { items: WireEvent[] };
      events.push(...items.map(fromWire));
      if (items.length < PAGE) {
        return events;
      }
    }
  }

  /** Closes the clients that were connected here, and ends the meter. */
  async stop(): Promise<void> {
    await Promise.allSettled([...this.#clients].map((client) => client.close({ timeout: WAITS })));
    this.#clients.clear();
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const ended = once(this.#child, 'exit');
      this.#child.ref();
      this.#child.kill();
      await ended;
    }
  }

  /** The same as `stop()`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }
}

interface WireEvent {
  event_id: string;
  customer_id: string;
  event_name: string;
  timestamp: string;
  metadata: Record<string, string | number | boolean> | null;
}

function fromWire(event: WireEvent): MeteredEvent {
  return {
    eventId: event.event_id,
    customerId: event.customer_id,
    eventName: event.event_name,
    timestamp: new Date(event.timestamp),
    metadata: event.metadata ?? {},
  };
}
