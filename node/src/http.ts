/**
 * Meters a `node:http` server, or whatever hands on its request and response.
 *
 * ```js
 * import { createServer } from 'node:http';
 * import { meter } from 'dodo-ingestion/http';
 *
 * const metered = meter(ingestion, { customer: 'x-customer-id', endpoint: (req) => routeOf(req) });
 * createServer((req, res) => {
 *   metered(req, res);
 *   …
 * });
 * ```
 *
 * @packageDocumentation
 */

import type { IncomingMessage } from 'node:http';
import type { Ingestion } from './ingestion';
import { type NodeMiddleware, nodeMiddleware, noTemplate } from './metering/middleware';
import type { MeterOptions } from './metering/options';
import { tellers } from './metering/told';

export type { MeterStats } from './metering/meter';
export type { NodeMiddleware } from './metering/middleware';
export type { Call, Customer, Metadata, MeterOptions, OnMissingCustomer } from './metering/options';

export const { setCustomer, setUnits, setMetadata, setEndpoint, skipMetering } =
  tellers<IncomingMessage>((request) => request);

/** A middleware for `(req, res, next?)`, without knowledge of routes: those are the option `endpoint`'s. */
export function meter<Request extends IncomingMessage = IncomingMessage>(
  ingestion: Ingestion,
  options?: MeterOptions<Request>,
): NodeMiddleware<Request> {
  return nodeMiddleware(ingestion, options, () => noTemplate);
}
