import { meter, setCustomer } from 'dodo-ingestion/hono';
import { Hono } from 'hono';
import { ingestion } from './ingestion.mjs';

const app = new Hono<{ Variables: { user: string } }>();
app.use(meter(ingestion, { customer: (c) => c.get('user') }));
app.use('/v1/*', meter(ingestion));
app.get('/users/:id', (c) => {
  setCustomer(c, c.req.param('id'));
  return c.text('here');
});
