/**
 * Meters a Fastify server, of version 4 or 5, in one line before its routes and other plugins:
 *
 * ```js
 * import { meter } from 'dodo-ingestion/fastify';
 *
 * app.register(meter(ingestion, { customer: (request) => request.user?.customerId }));
 * ```
 *
 * @packageDocumentation
 */

import type { FastifyPluginCallback, FastifyRequest, onRequestHookHandler } from 'fastify';
import type { Ingestion } from './ingestion';
import { Meter, type MeterStats } from './metering/meter';
import type { HttpRequest } from './metering/middleware';
import { watch } from './metering/observe';
import type { MeterOptions } from './metering/options';
import { tellers } from './metering/told';

export type { MeterStats } from './metering/meter';
export type { Call, Customer, Metadata, MeterOptions, OnMissingCustomer } from './metering/options';

export const { setCustomer, setUnits, setMetadata, setEndpoint, skipMetering } = tellers<{
  raw: HttpRequest;
}>((request) => request.raw);

/**
 * The plugin, for `app.register`. It meters all routes of the instance that it is registered with, also those of
 * `@fastify/websocket`: one call each when they close.
 */
export interface MeterPlugin extends FastifyPluginCallback {
  /** What it has done so far. */
  stats(): MeterStats;
}

/** The plugin, for `app.register`. What an earlier `onRequest` hook answers is not metered. */
export function meter(ingestion: Ingestion, options?: MeterOptions<FastifyRequest>): MeterPlugin {
  const meter = new Meter(ingestion, options);
  const plugin: FastifyPluginCallback = (instance, _, done) => {
    instance.addHook('onRequest', hookOf(meter));
    done();
  };
  return Object.assign(plugin, {
    stats: () => meter.stats(),
    // The hook is for the instance itself, not for one of the plugin's own.
    [Symbol.for('skip-override')]: true,
    [Symbol.for('fastify.display-name')]: 'dodo-ingestion',
    [Symbol.for('plugin-meta')]: { name: 'dodo-ingestion', fastify: '4.x || 5.x' },
  });
}

/**
 * The hook that takes a request in hand, unless it is.
 *
 * @internal
 */
export function hookOf(meter: Meter<FastifyRequest>): onRequestHookHandler {
  return (request, reply, next) => {
    watch(meter, request.raw, reply.raw, request, template);
    next();
  };
}

function template(request: FastifyRequest): () => string | undefined {
  return () => (request.is404 ? undefined : request.routeOptions.url);
}
