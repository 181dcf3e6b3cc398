import { createServer } from 'node:http';
import { Ingestion } from 'dodo-ingestion';
import { meter } from 'dodo-ingestion/http';

const EDITION: number = 1;

const ingestion = new Ingestion({ environment: 'test_mode' });
const metered = meter(ingestion, { customer: 'x-customer-id', endpoint: () => '/' });

const server = createServer((req, res) => {
  metered(req, res);
  res.end(String(EDITION));
}).listen(Number(process.env.PORT), '127.0.0.1');

process.once('SIGTERM', () => {
  server.close();
  server.closeAllConnections();
});
