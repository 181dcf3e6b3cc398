/**
 * What becomes of a call that has ended: who is billed, for what, under which name. Knows no framework.
 *
 * Invariant: nothing that goes wrong here leaves it. The one exception is asked for by name:
 * `onMissingCustomer: 'throw'`.
 */

import { now } from '../clock';
import { ConfigurationError } from '../errors';
import type { MetadataValue } from '../event';
import type { Ingestion } from '../ingestion';
import { reason } from '../warn';
import { add, cut, read } from './metadata';
import { type Call, type Customer, check, type MeterOptions } from './options';
import { type Told, toldOf } from './told';

/** What a middleware has done so far. */
export interface MeterStats {
  /** Events accepted under the name that is billed. */
  readonly billed: number;
  /** Events accepted under the name of errors. */
  readonly errors: number;
  /** Calls that would have been billed, had a customer been named. */
  readonly missingCustomer: number;
  /** Events that were not accepted. */
  readonly refused: number;
  /** Metadata, pairs of it, and units, that were cut or left out. */
  readonly altered: number;
  /** Callbacks that threw or rejected. */
  readonly failed: number;
}

/** How a call went, as it was seen from outside of the framework. */
export interface Seen {
  method: string;
  /** Absent where no response was begun. */
  statusCode: number | undefined;
  aborted: boolean;
  responseTimeMs: number;
  ttfbMs: number | undefined;
  responseBytes: number | undefined;
}

/** A call that has ended, and is to make an event. */
interface Ended<Request> {
  request: Request;
  seen: Seen;
  told: Told;
  call: Call;
  billed: boolean;
  eventName: string | undefined;
}

/** A request, as a framework's file hands it over. */
export interface Metered<Request> {
  /** What the callbacks are given. */
  request: Request;
  /** What stands for the request all along. */
  key: object;
  /** The path without its query, of which nothing is written. */
  path(): string;
  /** A header's value; all of them, with commas between, where it is there more than once. */
  header(name: string): string | null | undefined;
  /** The template of the route that took the request, once the response has ended. */
  template(): string | undefined;
}

/**
 * A framework's template that takes whatever is left: `*`, `*path` and `{*path}`, `:path*`, `(*)`, `(.*)` and `(.+)`,
 * Fastify's `(^.*$)`, Hono's `:path{.*}`, Next.js's `[...path]` and `[[...path]]`, or a regular expression, as one is
 * without an end. What a router is mounted by may stand right before it: NestJS answers `/api*path` with 404.
 */
const CATCH_ALL =
  /(?:\*\w*|\{\/?\*\w*\}|\((?:\*|\^?\.[*+]\$?)\)|:\w+\{\.[*+]\}|\[\.{3}[^/\]]+\]{1,2})\??$|\.[*+]\)?\$?\/[a-z]*$|\/[\\^].*[^$]\/[a-z]*$/;

export class Meter<Request> {
  readonly #ingestion: Ingestion;
  readonly #options: MeterOptions<Request>;
  readonly #errorEventName: string | null;
  readonly #counts = {
    billed: 0,
    errors: 0,
    missingCustomer: 0,
    refused: 0,
    altered: 0,
    failed: 0,
  };

  constructor(ingestion: Ingestion, options: MeterOptions<Request> = {}) {
    check(ingestion, options);
    this.#ingestion = ingestion;
    const { customer } = options;
    this.#options = {
      ...options,
      customer: typeof customer === 'string' ? customer.toLowerCase() : customer,
    };
    this.#errorEventName =
      options.errorEventName === undefined ? 'api_error' : options.errorEventName;
  }

  /** Takes a request in hand; false where it is not to be metered, or another middleware has it. */
  begin(method: string | undefined, key: object): boolean {
    if (method === 'OPTIONS') {
      return false;
    }
    const told = toldOf(key);
    if (told.metered) {
      return false;
    }
    told.metered = true;
    return true;
  }

  /** Does what must not hurt the response. */
  attempt(metering: () => void): void {
    try {
      metering();
    } catch (error) {
      this.#fails('the metering', error);
    }
  }

  /** A call has ended. */
  end(metered: Metered<Request>, seen: Seen): void {
    this.attempt(() => this.#end(metered, seen));
  }

  stats(): MeterStats {
    return { ...this.#counts };
  }

  #end(metered: Metered<Request>, seen: Seen): void {
    const { request } = metered;
    const options = this.#options;
    const told = toldOf(metered.key);
    if (told.skip) {
      return;
    }
    // An empty one is none.
    const endpoint =
      (told.endpoint && this.#text('endpoint', () => told.endpoint)) ||
      (options.endpoint && this.#text('endpoint', () => options.endpoint?.(request))) ||
      this.#text('the template', () =>
        routeOf(metered.template() ?? told.template?.(), seen.statusCode),
      );
    if (options.exclude?.length && this.#excludes(endpoint ?? metered.path())) {
      return;
    }
    const { statusCode, aborted, responseTimeMs, responseBytes } = seen;
    const method = cut(seen.method);
    const call: Call = { method, endpoint, statusCode, aborted, responseTimeMs, responseBytes };
    const { skip } = options;
    if (skip && this.#guarded('skip', () => skip(request, call))) {
      return;
    }
    const billed = this.#bills(statusCode, endpoint);
    const eventName = billed ? options.eventName : this.#errorEventName;
    if (eventName === null) {
      return;
    }
    const ended: Ended<Request> = { request, seen, told, call, billed, eventName };
    const customer = this.#id(told.customer) ?? this.#customer(metered, call);
    if (isPromise(customer)) {
      const timestamp = new Date(now());
      const tracking = Promise.resolve(customer)
        .then(undefined, (error: unknown) => {
          this.#fails('customer', error);
          return undefined;
        })
        .then((found) => this.#track(ended, found, timestamp))
        .catch((error: unknown) => this.#fails('the metering', error));
      // As in `#track`.
      (this.#ingestion as Partial<Ingestion>).expect?.(tracking);
    } else {
      this.#track(ended, customer);
    }
  }

  /** A template as text; absent where there is none, or it cannot be read. */
  #text(what: string, template: () => unknown): string | undefined {
    const given = this.#guarded(what, template);
    const text = given ? this.#guarded(what, () => cut(String(given))) : undefined;
    return text || undefined;
  }

  /** Whether a template, or the path of a request that has none, is on the list. */
  #excludes(what: string): boolean {
    const { exclude = [] } = this.#options;
    return exclude.some((entry) =>
      entry.endsWith('*') ? what.startsWith(entry.slice(0, -1)) && !climbs(what) : what === entry,
    );
  }

  #bills(status: number | undefined, endpoint: string | undefined): boolean {
    if (status === undefined || (status === 404 && endpoint === undefined)) {
      return false;
    }
    const { billStatus } = this.#options;
    const chosen = billStatus && this.#guarded('billStatus', () => billStatus(status));
    return chosen ?? (status < 500 && status !== 401 && status !== 403 && status !== 429);
  }

  #customer(metered: Metered<Request>, call: Call): Customer | Promise<Customer> {
    const { customer } = this.#options;
    if (typeof customer === 'string') {
      return customerIn(metered.header(customer));
    }
    return customer && this.#guarded('customer', () => customer(metered.request, call));
  }

  /** A customer's id as text. What can be none counts as missing. */
  #id(customer: unknown): string | undefined {
    if (customer === undefined || customer === null) {
      return undefined;
    }
    if (typeof customer === 'string') {
      return customer.trim() || undefined;
    }
    if (typeof customer === 'bigint' || Number.isFinite(customer)) {
      return String(customer);
    }
    this.#fails('customer', new TypeError(`it gave a ${typeof customer}, which is no id`));
    return undefined;
  }

  /** The customer of a call for which nothing names one. */
  #insteadOfCustomer(billed: boolean, { method, endpoint }: Call): string | undefined {
    const { onMissingCustomer } = this.#options;
    if (typeof onMissingCustomer === 'object') {
      return onMissingCustomer.default;
    }
    // That a call which is not let in has no customer is as it should be.
    if (billed) {
      const what = `${method} ${endpoint ?? '(no route)'} is not metered: nothing names the customer`;
      if (onMissingCustomer === 'throw') {
        this.#counts.missingCustomer += 1;
        queueMicrotask(() => {
          throw new ConfigurationError(what, { field: 'customer' });
        });
      } else {
        this.#tell('missingCustomer', what);
      }
    }
    return undefined;
  }

  #metadata({ request, seen, call, told }: Ended<Request>): Record<string, MetadataValue> {
    const metadata: Record<string, MetadataValue> = {};
    if (call.endpoint !== undefined) {
      metadata.endpoint = call.endpoint;
    }
    metadata.method = call.method;
    if (seen.statusCode !== undefined) {
      metadata.status_code = seen.statusCode;
    }
    metadata.response_time_ms = microseconds(seen.responseTimeMs);
    if (seen.ttfbMs !== undefined) {
      metadata.ttfb_ms = microseconds(seen.ttfbMs);
    }
    if (seen.responseBytes !== undefined) {
      metadata.response_bytes = seen.responseBytes;
    }
    if (seen.aborted) {
      metadata.aborted = true;
    }
    const options = this.#options;
    const units =
      told.units ?? (options.units && this.#guarded('units', () => options.units?.(request, call)));
    if (Number.isFinite(units)) {
      metadata.units = units;
    } else if (units !== undefined && units !== null) {
      this.#alters('units', 'left out: no number');
    }
    const pairs = this.#pairs(request, call);
    for (const why of told.noMetadata ?? []) {
      this.#leavesOut(why);
    }
    if (pairs || told.metadata) {
      add(metadata, { ...pairs, ...told.metadata }, (key, why) => this.#alters(key, why));
    }
    return metadata;
  }

  /** The pairs of the option. What it is, or its callback gives, may have none. */
  #pairs(request: Request, call: Call): object | undefined {
    const { metadata } = this.#options;
    const given =
      typeof metadata === 'function'
        ? this.#guarded('metadata', () => metadata(request, call))
        : metadata;
    if (!given) {
      return undefined;
    }
    const found = read(given);
    if ('pairs' in found) {
      return found.pairs;
    }
    this.#leavesOut(found.why);
    return undefined;
  }

  /** Whether an event says more than each does. */
  #adds(told: Told): boolean {
    const { units, metadata } = this.#options;
    return Boolean(
      units || metadata || told.metadata || told.noMetadata || told.units !== undefined,
    );
  }

  /** Has a call accepted: by its fields, or as the event that is made of it. */
  #track(ended: Ended<Request>, customer: Customer, timestamp?: Date): void {
    const { seen, told, call, billed, eventName } = ended;
    const customerId = this.#id(customer) ?? this.#insteadOfCustomer(billed, call);
    if (customerId === undefined) {
      return;
    }
    // What has `track` alone may stand for a client in somebody's tests.
    const client: Partial<Ingestion> = this.#ingestion;
    const isPlain = timestamp === undefined && !this.#adds(told);
    try {
      if (isPlain && client.acceptsApiCall?.(customerId, eventName, call, seen.ttfbMs)) {
        this.#accepted(billed);
        return;
      }
      const event = { customerId, eventName, metadata: this.#metadata(ended), timestamp };
      if (client.accepts?.(event)) {
        this.#accepted(billed);
        return;
      }
      this.#ingestion.track(event).then(
        () => this.#accepted(billed),
        (error: unknown) => this.#refused(error),
      );
    } catch (error) {
      this.#refused(error);
    }
  }

  #accepted(billed: boolean): void {
    this.#counts[billed ? 'billed' : 'errors'] += 1;
  }

  #refused(error: unknown): void {
    this.#tell('refused', `a call was not accepted and will not be billed: ${reason(error)}`);
  }

  /** Calls into what may throw. Only `customer` may take its time. */
  #guarded<T>(what: string, callback: () => T): T | undefined {
    try {
      const value = callback();
      if (what !== 'customer' && isPromise(value)) {
        value.then(undefined, () => {});
        throw new TypeError('it gave a promise');
      }
      return value;
    } catch (error) {
      this.#fails(what, error);
      return undefined;
    }
  }

  #alters(key: string, why: string): void {
    this.#tell('altered', `metadata ${key} is ${why}`);
  }

  #leavesOut(why: string): void {
    this.#tell('altered', `metadata is left out: it ${why}`);
  }

  #fails(what: string, error: unknown): void {
    this.#tell(
      'failed',
      `${what} of a middleware failed, the response is served: ${reason(error)}`,
    );
  }

  /** Counts what an operator should hear of, and tells of the first. */
  #tell(what: 'missingCustomer' | 'refused' | 'altered' | 'failed', message: string): void {
    this.#counts[what] += 1;
    if (this.#counts[what] === 1) {
      process.emitWarning(`${message} (told once; see stats())`, {
        type: 'DodoIngestionWarning',
        code: what,
      });
    }
  }
}

/**
 * The route of a framework's template. One that takes whatever is left is none where nothing was found: it is a
 * middleware that ran, or the answer to all that there is no route for.
 */
function routeOf(template: string | undefined, status: number | undefined): string | undefined {
  return status === 404 && template !== undefined && CATCH_ALL.test(template)
    ? undefined
    : template;
}

/**
 * The customer that a header names. Of several, the first may be the client's own, to which a gateway has added; and what
 * is not ASCII is nobody's id: without a space of another kind it could be somebody else's.
 */
function customerIn(value: string | null | undefined): string | undefined {
  return value && !/[,\u0080-\uffff]/.test(value) ? value : undefined;
}

function isPromise(value: unknown): value is Promise<Customer> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === 'function';
}

function microseconds(milliseconds: number): number {
  return Math.round(milliseconds * 1000) / 1000;
}

/** Whether a path leaves its directory once somebody behind this server resolves it. */
function climbs(path: string): boolean {
  const decoded = path.replace(/%2e/gi, '.').replace(/%2f|%5c|\\/gi, '/');
  // Some servers take what follows a semicolon for a parameter of the segment.
  return decoded.split('/').some((segment) => segment === '..' || segment.startsWith('..;'));
}
