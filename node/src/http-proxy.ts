/**
 * Meters a gateway of `http-proxy` or `http-proxy-middleware`. A proxy knows no routes: `endpoint` names them.
 *
 * ```js
 * import { meter } from 'dodo-ingestion/http-proxy';
 *
 * const metered = meter(ingestion, { customer: 'x-customer-id', endpoint: (req) => routeOf(req) });
 * const server = createServer((req, res) => {
 *   metered(req, res);
 *   proxy.web(req, res);
 * });
 * server.on('upgrade', metered.upgrade);
 * ```
 *
 * @packageDocumentation
 */

export * from './http';
