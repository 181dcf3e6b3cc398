/**
 * Meters a Koa app in one line before its routers:
 *
 * ```js
 * import { meter } from 'dodo-ingestion/koa';
 *
 * app.use(meter(ingestion, { customer: (ctx) => ctx.state.user?.customerId }));
 * ```
 *
 * @packageDocumentation
 */

import type { IncomingMessage } from 'node:http';
import type { Context, Next } from 'koa';
import type { Ingestion } from './ingestion';
import { Meter, type MeterStats } from './metering/meter';
import { watch } from './metering/observe';
import type { MeterOptions } from './metering/options';
import { tellers } from './metering/told';

export type { MeterStats } from './metering/meter';
export type { Call, Customer, Metadata, MeterOptions, OnMissingCustomer } from './metering/options';

export const { setCustomer, setUnits, setMetadata, setEndpoint, skipMetering } = tellers<{
  req: IncomingMessage;
}>((context) => context.req);

/** The middleware, for `app.use`. */
export interface KoaMiddleware {
  (context: Context, next: Next): Promise<unknown>;
  /** What it has done so far. */
  stats(): MeterStats;
}

/** The middleware, for `app.use`. Templates are those of `@koa/router`. */
export function meter(ingestion: Ingestion, options?: MeterOptions<Context>): KoaMiddleware {
  const meter = new Meter(ingestion, options);
  const middleware = (context: Context, next: Next) => {
    watch(meter, context.req, context.res, context, template);
    return next();
  };
  return Object.assign(middleware, { stats: () => meter.stats() });
}

/** What `@koa/router` leaves behind. */
interface Routed {
  matched?: readonly { path: string | RegExp; methods: readonly string[] }[];
  _matchedRoute?: string | RegExp;
}

function template(context: Context): () => string | undefined {
  return () => {
    const { matched = [], _matchedRoute: current } = context as Routed;
    const routes = matched.filter((layer) => layer.methods.includes(context.method));
    // Of several the one that ran last; while a router's own middleware runs, the one it will come to.
    const route = routes.find((layer) => layer.path === current) ?? routes.at(-1);
    return route && String(route.path);
  };
}
