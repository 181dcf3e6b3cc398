/**
 * Meters a NestJS app, on Express or Fastify, in one line before it listens:
 *
 * ```js
 * import { meter } from 'dodo-ingestion/nestjs';
 *
 * const app = await NestFactory.create(AppModule);
 * meter(app, ingestion, { customer: (request) => request.user?.customerId });
 * await app.listen(3000);
 * ```
 *
 * It sees what guards, pipes and exception filters answer, as an interceptor would not.
 *
 * @packageDocumentation
 */

import type { INestApplication } from '@nestjs/common';
import { meter as express } from './express';
import { hookOf } from './fastify';
import type { Ingestion } from './ingestion';
import { Meter, type MeterStats } from './metering/meter';
import type { NodeMiddleware } from './metering/middleware';
import type { Call, Customer, Metadata, MeterOptions, OnMissingCustomer } from './metering/options';
import { tellers } from './metering/told';

// Imported by their names: else the declarations take `Metadata` from Express's file, whose types an app on Fastify
// has not.
export type { Call, Customer, Metadata, MeterOptions, MeterStats, OnMissingCustomer };

/** The request of the platform, as a guard or a controller gets it. */
// biome-ignore lint/suspicious/noExplicitAny: it is the request of one platform or the other.
export type NestRequest = any;

export const { setCustomer, setUnits, setMetadata, setEndpoint, skipMetering } =
  tellers<NestRequest>((request) => request.raw ?? request);

/** What the meter of an app tells. */
export interface NestMeter {
  /** What it has done so far. */
  stats(): MeterStats;
}

/** Has all routes of an app metered. Call it before `listen` and `init`. */
export function meter(
  app: INestApplication,
  ingestion: Ingestion,
  options?: MeterOptions<NestRequest>,
): NestMeter {
  const adapter = app.getHttpAdapter();
  if (adapter.getType() === 'fastify') {
    const meter = new Meter<NestRequest>(ingestion, options);
    const hook = hookOf(meter);
    // Nest's middleware are registered before an app is there to be given to: their hook comes before any of its own.
    hookFirst(adapter, hook);
    adapter.getInstance().addHook('onRequest', hook);
    return { stats: () => meter.stats() };
  }
  const middleware: NodeMiddleware<NestRequest> = express(ingestion, options);
  app.use(middleware);
  return middleware;
}

type Hook = (request: NestRequest, reply: NestRequest, done: (error?: Error) => void) => unknown;

/** Nest's adapter for Fastify has one hook before all others. Whoever has set it keeps it. */
function hookFirst(adapter: object, hook: Hook): void {
  const { onRequestHook: own, setOnRequestHook } = adapter as {
    onRequestHook?: Hook;
    setOnRequestHook?: (hook: Hook) => void;
  };
  const both: Hook = (request, reply, done) => {
    hook(request, reply, () => {});
    return own?.call(adapter, request, reply, done);
  };
  setOnRequestHook?.call(adapter, own ? both : hook);
}
