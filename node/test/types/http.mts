import { createServer } from 'node:http';
import { meter, setCustomer } from 'dodo-ingestion/http';
import { meter as proxied } from 'dodo-ingestion/http-proxy';
import { ingestion } from './ingestion.mjs';

const metered = meter(ingestion, { endpoint: (req) => (req.url === '/' ? '/' : undefined) });
const server = createServer((req, res) => {
  metered(req, res);
  setCustomer(req, 'cus_1');
  res.end();
});
server.on('upgrade', metered.upgrade);
server.on('request', proxied(ingestion));
