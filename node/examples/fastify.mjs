// A Fastify server whose calls are billed. PORT=3000 node fastify.mjs

import { Ingestion } from 'dodo-ingestion';
import { meter } from 'dodo-ingestion/fastify';
import fastify from 'fastify';

const ingestion = new Ingestion({ eventName: 'api_call' }); // the key: DODO_PAYMENTS_API_KEY
const app = fastify();
app.register(meter(ingestion, { customer: (request) => request.customerId }));

app.decorateRequest('customerId', null);
app.addHook('onRequest', async (request) => {
  // Stands for what looks a key up.
  request.customerId = { 'key-1': 'cus_1', 'key-2': 'cus_2' }[request.headers['x-api-key']];
});
app.get('/users/:id', async (request) => ({ id: request.params.id }));

console.log(await app.listen({ port: process.env.PORT ?? 3000 }));
