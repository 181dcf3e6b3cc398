// The suite's app without a framework, and what it knows of its routes.

import { pipeline, Readable } from 'node:stream';
import { CHUNKS } from './suite.mjs';

const ROUTES = [
  [/^\/v1\/users\/[^/]+\/orders\/[^/]+$/, '/v1/users/:user/orders/:order'],
  [/^\/status\/\d+$/, '/status/:code'],
  [/^\/hang\/\d+$/, '/hang/:code'],
  [/^\/silent$/, '/silent'],
  [/^\/stream$/, '/stream'],
  [/^\/throws$/, '/throws'],
  [/^\/rejects$/, '/rejects'],
  [/^\/told$/, '/told'],
];

/** The template of the route that takes a request. */
export function routeOf({ url }) {
  const path = url.split('?')[0];
  return ROUTES.find(([pattern]) => pattern.test(path))?.[1];
}

/** The answers of the suite, without a framework. */
export function handler(here, tell) {
  return async (req, res) => {
    const [, what, code] = req.url.split('?')[0].split('/');
    switch (what) {
      case 'status':
        res.writeHead(Number(code)).end('a body');
        break;
      case 'hang':
        res.writeHead(Number(code)).write('some');
        break;
      case 'silent':
        here(req.headers['x-customer-id']);
        break;
      case 'stream':
        pipeline(Readable.from(CHUNKS), res, () => {});
        break;
      case 'throws':
      case 'rejects':
        res.writeHead(500).end('failed');
        break;
      case 'told':
        tell.setCustomer(req, req.headers['x-told']);
        tell.setUnits(req, 12);
        res.end('told');
        break;
      case 'v1':
      case 'fallback':
        res.end('here');
        break;
      default:
        res.writeHead(404).end('nothing here');
    }
  };
}
