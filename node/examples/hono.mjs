// A Hono app whose calls are billed. PORT=3000 node hono.mjs

import { serve } from '@hono/node-server';
import { Ingestion } from 'dodo-ingestion';
import { meter, setCustomer } from 'dodo-ingestion/hono';
import { Hono } from 'hono';

const ingestion = new Ingestion({ eventName: 'api_call' }); // the key: DODO_PAYMENTS_API_KEY
const app = new Hono();
app.use(meter(ingestion));

app.use(async (c, next) => {
  // Stands for what looks a key up.
  const customer = { 'key-1': 'cus_1', 'key-2': 'cus_2' }[c.req.header('x-api-key')];
  if (customer) {
    setCustomer(c, customer);
  }
  await next();
});
app.get('/users/:id', (c) => c.json({ id: c.req.param('id') }));

serve({ fetch: app.fetch, port: Number(process.env.PORT ?? 3000) }, ({ port }) => {
  console.log(`http://localhost:${port}`);
});
