// A gateway in front of another server, whose calls and WebSockets are billed.
// UPSTREAM=http://localhost:8080 PORT=3000 node gateway.mjs

import { createServer } from 'node:http';
import { Ingestion } from 'dodo-ingestion';
import { meter } from 'dodo-ingestion/http-proxy';
import httpProxy from 'http-proxy';

const ingestion = new Ingestion({ eventName: 'api_call' }); // the key: DODO_PAYMENTS_API_KEY
const proxy = httpProxy.createProxyServer({ target: process.env.UPSTREAM });
proxy.on('error', (_, __, res) => res.destroy());

// Stands for what looks a key up.
const customers = { 'key-1': 'cus_1', 'key-2': 'cus_2' };
const metered = meter(ingestion, {
  customer: (req) => customers[req.headers['x-api-key']],
  // A gateway names the routes that it sells: what is in a path is not for a bill.
  endpoint: (req) => (/^\/users\/[^/?]+/.test(req.url) ? '/users/{id}' : undefined),
});

const server = createServer((req, res) => {
  metered(req, res);
  proxy.web(req, res);
});
server.on('upgrade', metered.upgrade);
server.on('upgrade', (req, socket, head) => proxy.ws(req, socket, head));
server.listen(process.env.PORT ?? 3000, () => {
  console.log(`http://localhost:${server.address().port}`);
});
