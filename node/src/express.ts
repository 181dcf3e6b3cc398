/**
 * Meters an Express app, of version 4 or 5, in one line before its routes:
 *
 * ```js
 * import { meter } from 'dodo-ingestion/express';
 *
 * app.use(meter(ingestion, { customer: (req) => req.user?.customerId }));
 * ```
 *
 * The first request has what all of Express's responses inherit from, `express.response`, count what is written.
 *
 * @packageDocumentation
 */

import type { IncomingMessage } from 'node:http';
import type { Request } from 'express';
import type { Ingestion } from './ingestion';
import { record } from './metering/express';
import { Meter } from './metering/meter';
import { type NodeMiddleware, nodeMiddleware } from './metering/middleware';
import type { MeterOptions } from './metering/options';
import { tellers } from './metering/told';

export type { MeterStats } from './metering/meter';
export type { NodeMiddleware } from './metering/middleware';
export type { Call, Customer, Metadata, MeterOptions, OnMissingCustomer } from './metering/options';

export const { setCustomer, setUnits, setMetadata, setEndpoint, skipMetering } =
  tellers<IncomingMessage>((request) => request);

/** The middleware, for `app.use`. What an earlier one answers is not metered. */
export function meter(
  ingestion: Ingestion,
  options?: MeterOptions<Request>,
): NodeMiddleware<Request> {
  return nodeMiddleware(new Meter(ingestion, options), record, true);
}
