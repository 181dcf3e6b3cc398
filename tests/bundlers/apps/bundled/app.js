import { createServer } from 'node:http';
import { ConfigurationError, Ingestion } from 'dodo-ingestion';
import { meter } from 'dodo-ingestion/http';

const ingestion = new Ingestion({ environment: 'test_mode' });
const metered = meter(ingestion, { customer: 'x-customer-id', endpoint: () => '/users/{id}' });

const server = createServer((req, res) => {
  metered(req, res);
  res.end('here');
}).listen(0, '127.0.0.1', async () => {
  const url = `http://127.0.0.1:${server.address().port}/users/7`;
  await (await fetch(url, { headers: { 'x-customer-id': 'cus_bundled' } })).text();
  server.close();
  server.closeAllConnections();
  try {
    new Ingestion({ lingr: 1 });
  } catch (error) {
    console.log(error instanceof ConfigurationError);
  }
});
