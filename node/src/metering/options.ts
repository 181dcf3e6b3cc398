/** The options of a middleware, the same for every framework, and their check. */

import { ConfigurationError } from '../errors';
import { type MetadataValue, notRecord } from '../event';
import type { Ingestion } from '../ingestion';
import { checkNames } from '../nearest';
import { IDENTIFIER_CHARACTERS } from '../options';
import { cut } from './metadata';

/** A call that has ended, as the callbacks see it beside the framework's request. */
export interface Call {
  /** The HTTP method. */
  readonly method: string;
  /** The template of the route that took the request, if one did. */
  readonly endpoint: string | undefined;
  /** Absent where the client went away before a response was begun. */
  readonly statusCode: number | undefined;
  /** Whether the response came to no end. */
  readonly aborted: boolean;
  /** Milliseconds from the request to the last byte of the response. */
  readonly responseTimeMs: number;
  /** The bytes of the response's body. Absent where no response was begun. */
  readonly responseBytes: number | undefined;
}

/** Metadata of a call. */
export type Metadata = Readonly<Record<string, MetadataValue>>;

/** What is known of a customer: an id, or none. */
export type Customer = string | null | undefined;

/** What is done with a call that would be billed, and whose customer nothing names. */
export type OnMissingCustomer = 'skip' | 'throw' | { readonly default: string };

/** The options of a middleware. `Request` is what the framework hands to a handler. */
export interface MeterOptions<Request> {
  /**
   * Whose call it is: the name of a request header, or a callback that is asked when the response has
   * ended. `setCustomer` wins over it.
   *
   * A header is safe only behind a gateway that sets it and removes the one that a client sent: else
   * anybody can call at anybody's expense. One that is there more than once, has a comma or is not ASCII, names nobody.
   */
  customer?: string | ((request: Request, call: Call) => Customer | Promise<Customer>) | undefined;
  /**
   * What to do with a call that would be billed, and whose customer nothing names: `skip` (the default)
   * makes no event, counts it and warns once; `throw` is for development, and throws from a microtask;
   * `{ default: 'cus_1' }` names the one that pays, who then has the errors of nobody as well.
   */
  onMissingCustomer?: OnMissingCustomer | undefined;
  /** The event name of calls that are billed; the client's, if absent. */
  eventName?: string | undefined;
  /**
   * The event name of calls that are not billed, from which error rates can be had; `null` for no events of
   * them. No meter may count it. `api_error`, if absent.
   */
  errorEventName?: string | null | undefined;
  /**
   * Whether calls of a status are billed; those below 500 without 401, 403 and 429, if absent. Never billed
   * are a 404 of no route, or of a route like `/api/*` that takes whatever is left, and a call whose client went
   * away before a response was begun.
   */
  billStatus?: ((status: number) => boolean) | undefined;
  /**
   * The route's template, where the framework cannot know it: behind a proxy, or in a server that finds its
   * routes by itself. It wins over the framework's. Never the path, which holds what a client made up.
   */
  endpoint?: ((request: Request) => string | null | undefined) | undefined;
  /**
   * Calls that are not metered: templates, or paths where there is no template, such as `/healthz`. A `*` at
   * the end stands for the rest, as in `/internal/*`.
   */
  exclude?: readonly string[] | undefined;
  /** Leaves out the calls for which it is true when the response has ended. */
  skip?: ((request: Request, call: Call) => boolean) | undefined;
  /**
   * Metadata of the call. Text is cut to 500 characters; what the billing API takes in no event, and what the
   * middleware writes itself, is left out and counted.
   */
  metadata?: Metadata | ((request: Request, call: Call) => Metadata | null | undefined) | undefined;
  /** How much the call counts, where calls cost unequally. `setUnits` wins over it. */
  units?: ((request: Request, call: Call) => number | null | undefined) | undefined;
}

const isFunction = (value: unknown) => typeof value === 'function';
const isText = (value: unknown) => typeof value === 'string' && value !== '';
const isName = (value: unknown) =>
  isText(value) && (value as string) === cut(value as string, IDENTIFIER_CHARACTERS);
/** Of these headers Node keeps the first alone, and does not tell that there were more. */
const KEPT_ONCE: ReadonlySet<string> = new Set([
  ...['age', 'authorization', 'content-length', 'content-type', 'etag', 'expires', 'from', 'host'],
  ...['if-modified-since', 'if-unmodified-since', 'last-modified', 'location', 'max-forwards'],
  ...['proxy-authorization', 'referer', 'retry-after', 'server', 'user-agent'],
]);
const isHeader = (value: unknown) =>
  typeof value === 'string' &&
  /^[\w!#$%&'*+.^`|~-]+$/.test(value) &&
  !KEPT_ONCE.has(value.toLowerCase());
const isObject = (value: unknown) => typeof value === 'object' && value !== null;

type Check = [is: (value: unknown) => boolean, what: string];

const CALLBACK: Check = [isFunction, 'a function'];
const NAME: Check = [isName, `a name of 1 to ${IDENTIFIER_CHARACTERS} characters`];

const CHECKS: Record<keyof MeterOptions<unknown>, Check> = {
  customer: [
    (value) => isHeader(value) || isFunction(value),
    "a header's name or a function (of from, host and the like Node shows the first alone)",
  ],
  onMissingCustomer: [
    (value) =>
      value === 'skip' ||
      value === 'throw' ||
      (isObject(value) && isName((value as { default?: unknown }).default)),
    `'skip', 'throw' or { default: 'cus_1' } (an id has 1 to ${IDENTIFIER_CHARACTERS} characters)`,
  ],
  eventName: NAME,
  errorEventName: [
    (value) => value === null || isName(value),
    `a name or null (a name has 1 to ${IDENTIFIER_CHARACTERS} characters)`,
  ],
  billStatus: CALLBACK,
  endpoint: CALLBACK,
  exclude: [(value) => Array.isArray(value) && value.every(isText), 'an array of templates'],
  skip: CALLBACK,
  metadata: [
    (value) => isFunction(value) || notRecord(value) === undefined,
    'an object of pairs or a function',
  ],
  units: CALLBACK,
};

/** Refuses what a middleware was not meant to be made with. */
export function check(ingestion: Ingestion, options: object): void {
  if (!isFunction((ingestion as Partial<Ingestion> | undefined)?.track)) {
    throw new ConfigurationError('ingestion: is no client; hand over a `new Ingestion(…)`', {
      field: 'ingestion',
    });
  }
  checkNames(options, Object.keys(CHECKS));
  for (const [option, value] of Object.entries(options)) {
    const [is, what] = CHECKS[option as keyof typeof CHECKS];
    if (value !== undefined && !is(value)) {
      throw new ConfigurationError(`${option}: is not ${what}`, { field: option });
    }
  }
}
