import { Agent, createServer } from 'node:http';
import { after } from 'node:test';
import { meter, setCustomer, setUnits } from 'dodo-ingestion/http-proxy';
import express from 'express';
import httpProxy from 'http-proxy';
import { createProxyMiddleware } from 'http-proxy-middleware';
import { handler, routeOf } from './plain.mjs';
import { arrivals, echo, suite } from './suite.mjs';
import { listen } from './support.mjs';

// Else a proxy closes its client's connection after each call.
const agent = new Agent({ keepAlive: true });
after(() => agent.destroy());

/** What is behind the gateway. */
async function upstream(here) {
  const server = createServer(handler(here, { setCustomer() {}, setUnits() {} }));
  await echo(server, () => {});
  return `http://127.0.0.1:${await listen(server)}`;
}

/** What only the gateway can say of a call. */
function tell(req) {
  if (req.headers['x-told']) {
    setCustomer(req, req.headers['x-told']);
    setUnits(req, 12);
  }
}

const gateways = {
  'http-proxy': async (metered, target) => {
    const proxy = httpProxy.createProxyServer({ target, agent });
    proxy.on('error', (_, __, res) => res.destroy());
    const server = createServer((req, res) => {
      metered(req, res);
      tell(req);
      proxy.web(req, res);
    });
    server.on('upgrade', metered.upgrade);
    server.on('upgrade', (req, socket, head) => proxy.ws(req, socket, head));
    return server;
  },
  'http-proxy-middleware': async (metered, target) => {
    const proxy = createProxyMiddleware({ target, agent });
    const app = express();
    app.use(metered, (req, _, next) => {
      tell(req);
      next();
    });
    app.use(proxy);
    const server = createServer(app);
    server.on('upgrade', metered.upgrade);
    server.on('upgrade', proxy.upgrade);
    return server;
  },
};

for (const [name, gateway] of Object.entries(gateways)) {
  const start = async (ingestion, options) => {
    const { arrived, here } = arrivals();
    const metered = meter(ingestion, { endpoint: routeOf, ...options });
    const server = await gateway(metered, await upstream(here));
    return { port: await listen(server), arrived, stats: metered.stats };
  };
  suite(name, start, { endpoint: '/v1/users/:user/orders/:order', upgrades: true });
}
