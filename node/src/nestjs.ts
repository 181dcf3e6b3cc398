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
import { meter as fastify } from './fastify';
import type { Ingestion } from './ingestion';
import type { MeterStats } from './metering/meter';
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
    const plugin = fastify(ingestion, options);
    adapter.getInstance().register(plugin);
    return plugin;
  }
  const middleware: NodeMiddleware<NestRequest> = express(ingestion, options);
  app.use(middleware);
  return middleware;
}
