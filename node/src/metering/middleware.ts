/** The middleware of servers that hand on Node's own request and response. */

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Ingestion } from '../ingestion';
import { Meter, type MeterStats } from './meter';
import { NodeRequest, watch } from './observe';
import type { MeterOptions } from './options';
import { watchUpgrade } from './upgrade';

type Middleware<Request> = (
  request: Request,
  response: ServerResponse,
  next?: (error?: unknown) => void,
) => void;

/** Meters calls; give it to the framework before anything that answers. */
export interface NodeMiddleware<Request> extends Middleware<Request> {
  /** Meters an upgraded connection as one call: `server.on('upgrade', metered.upgrade)`. */
  upgrade: Upgrade;
  /** What it has done so far. */
  stats(): MeterStats;
}

/** The middleware whose `begin` sees each request, and gives what finds its template in the end. */
export function nodeMiddleware<Request extends IncomingMessage>(
  ingestion: Ingestion,
  options: MeterOptions<Request> | undefined,
  begin: (request: Request) => () => string | undefined,
): NodeMiddleware<Request> {
  const meter = new Meter(ingestion, options);
  const middleware: Middleware<Request> = (request, response, next) => {
    watch(meter, request, response, request, begin);
    next?.();
  };
  return Object.assign(middleware, { upgrade: upgrades(meter), stats: () => meter.stats() });
}

/** Meters an upgraded connection as one call, when it closes: `server.on('upgrade', metered.upgrade)`. */
export type Upgrade = (request: IncomingMessage, socket: Duplex) => void;

/** What no framework has in its hands: the callbacks are given Node's request. */
export function upgrades<Request>(meter: Meter<Request>): Upgrade {
  return (incoming, socket) =>
    meter.attempt(() => {
      if (meter.begin(incoming.method, incoming)) {
        const request = incoming as Request;
        watchUpgrade(meter, new NodeRequest(incoming, request, noTemplate), socket);
      }
    });
}

/** Where nobody but the user knows the routes. */
export function noTemplate(): undefined {}
