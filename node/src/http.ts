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
import type { Duplex } from 'node:stream';
import type { Ingestion } from './ingestion';
import { Meter } from './metering/meter';
import { type NodeMiddleware, nodeMiddleware } from './metering/middleware';
import { NodeRequest, takeConnection } from './metering/observe';
import type { MeterOptions } from './metering/options';
import { tellers } from './metering/told';

export type { MeterStats } from './metering/meter';
export type { Call, Customer, Metadata, MeterOptions, OnMissingCustomer } from './metering/options';

export const { setCustomer, setUnits, setMetadata, setEndpoint, skipMetering } =
  tellers<IncomingMessage>((request) => request);

/** Meters calls, and connections that leave HTTP. */
export interface HttpMiddleware<Request> extends NodeMiddleware<Request> {
  /**
   * Meters a connection that leaves HTTP, such as a WebSocket, as one call when it closes:
   * `server.on('upgrade', metered.upgrade)`. It takes no connection itself: put it before what does.
   */
  upgrade(request: IncomingMessage, socket: Duplex): void;
}

/**
 * A middleware for `(req, res, next?)`, without knowledge of routes: those are the option `endpoint`'s. Its
 * `upgrade` meters the WebSockets of any framework's server.
 */
export function meter<Request extends IncomingMessage = IncomingMessage>(
  ingestion: Ingestion,
  options?: MeterOptions<Request>,
): HttpMiddleware<Request> {
  const meter = new Meter(ingestion, options);
  const upgrade = (incoming: IncomingMessage, socket: Duplex) =>
    meter.attempt(() => {
      const request = incoming as Request;
      takeConnection(meter, new NodeRequest(incoming, request, noTemplate), socket);
    });
  return Object.assign(
    nodeMiddleware(meter, () => noTemplate),
    { upgrade },
  );
}

/** Nobody but the user knows the routes. */
function noTemplate(): undefined {}
