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

/** The middleware, for `app.use`. Templates are those of `@koa/router`, in front of which `koa-mount` may be. */
export function meter(ingestion: Ingestion, options?: MeterOptions<Context>): KoaMiddleware {
  const meter = new Meter(ingestion, options);
  const middleware = (context: Context, next: Next) => {
    watch(meter, context.req, context.res, context, template);
    return next();
  };
  return Object.assign(middleware, { stats: () => meter.stats() });
}

/** What `@koa/router` and `koa-mount` leave behind. */
interface Routed {
  path: string;
  matched?: readonly { path: string | RegExp; methods: readonly string[] }[];
  _matchedRoute?: string | RegExp | undefined;
  mountPath?: string | undefined;
}

function template(context: Context): () => string | undefined {
  const routed = context as Routed;
  const whole = context.path;
  /** What has been taken from the front of the path: the text of mounts, or a part that a client made up. */
  const taken = () => {
    const { path } = routed;
    if (whole.endsWith(path)) {
      return withoutSlash(whole.slice(0, whole.length - path.length));
    }
    // Of what a mount takes whole, `/` is left.
    return path === '/' ? whole : '';
  };
  const mounts = new Set(['']);
  let front = '';
  noticed(routed, 'mountPath', (prefix) => {
    if (typeof prefix === 'string' && mounts.has(taken())) {
      mounts.add(withoutSlash(taken() + prefix));
    }
  });
  noticed(routed, '_matchedRoute', () => {
    front = mounts.has(taken()) ? taken() : '';
  });
  return () => {
    const { matched = [], _matchedRoute: current } = routed;
    const routes = matched.filter((layer) => layer.methods.includes(context.method));
    // Of several the one that ran last; while a router's own middleware runs, the one it will come to.
    const route = routes.find((layer) => layer.path === current) ?? routes.at(-1);
    if (route === undefined) {
      return undefined;
    }
    return route.path === '/' && front !== '' ? front : front + String(route.path);
  };
}

function withoutSlash(path: string): string {
  return path.endsWith('/') ? path.slice(0, -1) : path;
}

/** Has it told when a property is set. */
function noticed<Name extends keyof Routed>(
  routed: Routed,
  name: Name,
  notice: (value: Routed[Name]) => void,
): void {
  let value = routed[name];
  Object.defineProperty(routed, name, {
    configurable: true,
    enumerable: true,
    get: () => value,
    set: (set: Routed[Name]) => {
      value = set;
      notice(set);
    },
  });
}
