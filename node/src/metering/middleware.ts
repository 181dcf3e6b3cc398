/** The middleware of servers that hand on Node's own request and response. */

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Http2ServerRequest } from 'node:http2';
import type { Meter, MeterStats } from './meter';
import { watch } from './observe';

type Middleware<Request> = (
  request: Request,
  response: ServerResponse,
  next?: (error?: unknown) => void,
) => void;

/** Meters calls; give it to the framework before anything that answers. */
export interface NodeMiddleware<Request> extends Middleware<Request> {
  /** What it has done so far. */
  stats(): MeterStats;
}

/** A request of HTTP/1, or of the compatibility API of HTTP/2. */
export type HttpRequest = IncomingMessage | Http2ServerRequest;

/** The middleware of a framework. For `begin` and `inherits` see {@link watch}. */
export function nodeMiddleware<Request extends HttpRequest>(
  meter: Meter<Request>,
  begin: (request: Request) => () => string | undefined,
  inherits = false,
): NodeMiddleware<Request> {
  const middleware: Middleware<Request> = (request, response, next) => {
    // What is asked of a request, the compatibility API has too.
    const incoming = request as IncomingMessage;
    watch(meter, incoming, response, request, begin, inherits);
    next?.();
  };
  return Object.assign(middleware, { stats: () => meter.stats() });
}
