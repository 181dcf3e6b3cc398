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
import type { Http2ServerRequest, Http2ServerResponse } from 'node:http2';
import type { Duplex } from 'node:stream';
import type { Ingestion } from './ingestion';
import { Meter } from './metering/meter';
import { type HttpRequest, type NodeMiddleware, nodeMiddleware } from './metering/middleware';
import { NodeRequest, takeConnection } from './metering/observe';
import type { MeterOptions } from './metering/options';
import { tellers } from './metering/told';

export type { MeterStats } from './metering/meter';
export type { HttpRequest } from './metering/middleware';
export type { Call, Customer, Metadata, MeterOptions, OnMissingCustomer } from './metering/options';

export const { setCustomer, setUnits, setMetadata, setEndpoint, skipMetering } =
  tellers<HttpRequest>((request) => request);

/** Meters calls, of HTTP/1 and HTTP/2, and connections that leave HTTP. */
export interface HttpMiddleware<Request extends HttpRequest> extends NodeMiddleware<Request> {
  /**
   * The same over HTTP/2. Callbacks that ask for no more than Node's `IncomingMessage` are given the request of
   * the compatibility API as one: it lacks `headersDistinct` and `trailersDistinct`.
   */
  (
    request: IncomingMessage extends Request ? Http2ServerRequest : Request,
    response: Http2ServerResponse,
    next?: (error?: unknown) => void,
  ): void;
  /**
   * Meters a connection that leaves HTTP, such as a WebSocket, as one call when it closes:
   * `server.on('upgrade', metered.upgrade)`. It takes no connection itself: put it before what does.
   */
  upgrade(request: IncomingMessage, socket: Duplex): void;
}

/**
 * A middleware for `(req, res, next?)`, without knowledge of routes: those are the option `endpoint`'s. Its
 * `upgrade` meters the WebSockets of any framework's server.
 *
 * For callbacks that ask for what only HTTP/2's requests have, such as `stream`, it is
 * `meter<Http2ServerRequest>(…)`.
 */
export function meter<Request extends HttpRequest = IncomingMessage>(
  ingestion: Ingestion,
  options?: MeterOptions<Request>,
): HttpMiddleware<Request> {
  const meter = new Meter(ingestion, options);
  const upgrade = (incoming: IncomingMessage, socket: Duplex) =>
    meter.attempt(() => {
      const request = incoming as Request;
      takeConnection(meter, new NodeRequest(incoming, request, noTemplate), socket);
    });
  const middleware = nodeMiddleware(meter, () => noTemplate);
  // Which requests the signature for HTTP/2 takes is not known before `Request` is.
  return Object.assign(middleware, { upgrade }) as HttpMiddleware<Request>;
}

/** Nobody but the user knows the routes. */
function noTemplate(): undefined {}
