/**
 * Meters a Hono app that runs in Node, in one line before its routes, on Node's server or by `app.fetch`:
 *
 * ```js
 * import { meter } from 'dodo-ingestion/hono';
 *
 * app.use(meter(ingestion, { customer: (c) => c.get('user')?.customerId }));
 * ```
 *
 * @packageDocumentation
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Context, Next } from 'hono';
import type { Ingestion } from './ingestion';
import { FetchObservation, pathOf } from './metering/fetch';
import { Meter, type MeterStats } from './metering/meter';
import { leavesHttp, NodeRequest, takeConnection, watch } from './metering/observe';
import type { MeterOptions } from './metering/options';
import { forget, join, knownOf, tellers, toldOf } from './metering/told';

export type { MeterStats } from './metering/meter';
export type { Call, Customer, Metadata, MeterOptions, OnMissingCustomer } from './metering/options';

/** A context of any app: its environment is not known here. */
// biome-ignore lint/suspicious/noExplicitAny: as above.
export type AnyContext = Context<any, any, any>;

export const { setCustomer, setUnits, setMetadata, setEndpoint, skipMetering } =
  tellers<AnyContext>(keyOf);

/** The middleware, for `app.use`. WebSockets of Hono's adapter for Node are metered as one call each. */
export interface HonoMiddleware {
  (context: AnyContext, next: Next): Promise<void>;
  /** What it has done so far. */
  stats(): MeterStats;
}

/** What Hono's adapter for Node hands over. */
interface NodeServer {
  incoming?: IncomingMessage;
  outgoing?: ServerResponse;
}

/** What stands for a call: the same as for a meter of the server that the app is in. */
function keyOf(context: AnyContext): object {
  return (context.env as NodeServer | undefined)?.incoming ?? context;
}

/** The middleware, for `app.use`. What an earlier one answers is not metered. */
export function meter(ingestion: Ingestion, options?: MeterOptions<AnyContext>): HonoMiddleware {
  const meter = new Meter(ingestion, options);
  const middleware = async (context: AnyContext, next: Next) => {
    const { incoming, outgoing } = (context.env ?? {}) as NodeServer;
    const { raw } = context.req;
    const key = keyOf(context);
    const outer = knownOf(raw);
    if (outer?.metered) {
      // A route handler of Next.js, or an app that hands its request on: what is said here is for its meter.
      join(key, outer);
      return next();
    }
    if (incoming !== undefined && typeof outgoing?.writeHead === 'function') {
      watch(meter, incoming, outgoing, context, template);
      join(raw, toldOf(key));
      return next();
    }
    if (incoming !== undefined && leavesHttp(incoming)) {
      // The adapter asks the app whether it takes a connection.
      meter.attempt(() => {
        takeConnection(meter, new NodeRequest(incoming, context, template(context)));
      });
      return next();
    }
    if (!meter.begin(raw.method, key)) {
      return next();
    }
    join(raw, toldOf(key));
    const metered = {
      request: context,
      key,
      path: () => pathOf(raw.url),
      header: (name: string) => raw.headers.get(name),
      template: template(context),
    };
    const observation = new FetchObservation(meter, metered, raw.method, raw.signal);
    try {
      await next();
    } catch (error) {
      observation.fail(500);
      throw error;
    } finally {
      // Whoever asks with the same request again makes another call.
      forget(raw);
    }
    // Hono answers for who gives no response; asked for one here, it would make an empty one that is well.
    if (!context.finalized) {
      observation.fail(500);
      return;
    }
    const { res } = context;
    const wrapped = observation.wrap(res);
    if (wrapped !== res) {
      // Else the new headers would be added to those that are there.
      context.res = undefined;
      context.res = wrapped;
    }
  };
  return Object.assign(middleware, { stats: () => meter.stats() });
}

/** A handler that stands for another, in an app with an error handler of its own. */
type Handler = ((...args: never[]) => unknown) & { __COMPOSED_HANDLER?: Handler };

function template(context: AnyContext): () => string | undefined {
  return () => {
    // The helper `hono/route` does the same by a symbol of its own copy of Hono, which need not be the app's.
    const { matchedRoutes, routeIndex } = context.req;
    const route = matchedRoutes[routeIndex];
    return route && answers(route) ? route.path : undefined;
  };
}

/**
 * Whether it is a route, and not a middleware after which nothing was found. Hono keeps the same of `use`, `all` and
 * `mount`; its own `inspectRoutes` goes by the parameters, too.
 */
function answers({ method, handler }: { method: string; handler: unknown }): boolean {
  let target = handler as Handler;
  while (target.__COMPOSED_HANDLER !== undefined) {
    target = target.__COMPOSED_HANDLER;
  }
  return method !== 'ALL' || target.length < 2;
}
