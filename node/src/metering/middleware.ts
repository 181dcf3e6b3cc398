/** The middleware of servers that hand on Node's own request and response. */

import type { IncomingMessage, ServerResponse } from 'node:http';
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

/** The middleware of a framework. For `begin` and `inherits` see {@link watch}. */
export function nodeMiddleware<Request extends IncomingMessage>(
  meter: Meter<Request>,
  begin: (request: Request) => () => string | undefined,
  inherits = false,
): NodeMiddleware<Request> {
  const middleware: Middleware<Request> = (request, response, next) => {
    watch(meter, request, response, request, begin, request, inherits);
    next?.();
  };
  return Object.assign(middleware, { stats: () => meter.stats() });
}
