/**
 * Meters the route handlers of Next.js, and other handlers that take a `Request` and give a `Response`:
 *
 * ```js
 * import { meter } from 'dodo-ingestion/next';
 *
 * export const withMeter = meter(ingestion, { customer: (request) => customerOf(request) });
 *
 * // app/api/users/[id]/route.js
 * export const GET = withMeter(handler, { endpoint: '/api/users/[id]' });
 * ```
 *
 * @packageDocumentation
 */

import { ConfigurationError } from './errors';
import type { Ingestion } from './ingestion';
import { FetchObservation, pathOf } from './metering/fetch';
import { Meter, type MeterStats } from './metering/meter';
import type { MeterOptions } from './metering/options';
import { tellers } from './metering/told';
import { checkNames } from './nearest';

export type { MeterStats } from './metering/meter';
export type { Call, Customer, Metadata, MeterOptions, OnMissingCustomer } from './metering/options';

export const { setCustomer, setUnits, setMetadata, setEndpoint, skipMetering } = tellers<Request>(
  (request) => request,
);

/** A route handler: its second argument is the framework's. */
export type RouteHandler<R extends Request, Rest extends unknown[]> = (
  request: R,
  ...rest: Rest
) => Response | Promise<Response>;

/** What the framework knows of a route handler, and the handler does not. */
export interface Route {
  /** The route's template, such as `/api/users/[id]`. */
  endpoint: string;
}

type Wrap<Base extends Request> = <R extends Base, Rest extends unknown[]>(
  handler: RouteHandler<R, Rest>,
  route: Route,
) => (request: R, ...rest: Rest) => Promise<Response>;

/** Wraps a route handler so that its calls are metered. */
export interface WithMeter<Base extends Request> extends Wrap<Base> {
  /** What it has done so far. */
  stats(): MeterStats;
}

/** Gives the function that wraps route handlers. `Base` is the request's type, such as `NextRequest`. */
export function meter<Base extends Request = Request>(
  ingestion: Ingestion,
  options?: MeterOptions<Base>,
): WithMeter<Base> {
  const meter = new Meter(ingestion, options);
  const withMeter: Wrap<Base> = (handler, route) => {
    const endpoint = endpointOf(route);
    return async (request, ...rest) => {
      if (!meter.begin(request.method, request)) {
        return handler(request, ...rest);
      }
      const metered = {
        request,
        key: request,
        path: () => pathOf(request.url),
        header: (name: string) => request.headers.get(name),
        template: () => endpoint,
      };
      const observation = new FetchObservation(meter, metered, request.method, request.signal);
      try {
        return observation.wrap(await handler(request, ...rest));
      } catch (error) {
        observation.fail(statusOf(error));
        throw error;
      }
    };
  };
  return Object.assign(withMeter, { stats: () => meter.stats() });
}

function endpointOf(route: Route | undefined): string {
  checkNames(route, ['endpoint']);
  const endpoint: unknown = route?.endpoint;
  if (typeof endpoint !== 'string') {
    const why = "is missing; it is the route's template, such as '/api/users/[id]'";
    throw new ConfigurationError(`endpoint: ${why}`, { field: 'endpoint' });
  }
  return endpoint;
}

/** What Next.js answers for what was thrown: `redirect()` and `notFound()` throw. */
function statusOf(thrown: unknown): number {
  const { digest } = (thrown ?? {}) as { digest?: unknown };
  const [kind, , , redirect] = typeof digest === 'string' ? digest.split(';') : [];
  switch (kind) {
    case 'NEXT_REDIRECT':
      return Number(redirect) || 307;
    case 'NEXT_NOT_FOUND':
      return 404;
    case 'NEXT_HTTP_ERROR_FALLBACK':
      return Number(String(digest).split(';')[1]) || 500;
    default:
      return 500;
  }
}
