// An Express app whose calls are billed. PORT=3000 node express.mjs

import { Ingestion } from 'dodo-ingestion';
import { meter, setCustomer, setUnits } from 'dodo-ingestion/express';
import express from 'express';

const ingestion = new Ingestion({ eventName: 'api_call' }); // the key: DODO_PAYMENTS_API_KEY
const app = express();
app.use(meter(ingestion, { exclude: ['/healthz'] }));

app.use((req, res, next) => {
  // Stands for what looks a key up.
  const customer = { 'key-1': 'cus_1', 'key-2': 'cus_2' }[req.get('x-api-key')];
  if (!customer) {
    return res.sendStatus(401);
  }
  setCustomer(req, customer);
  next();
});
app.get('/users/:id', (req, res) => res.json({ id: req.params.id }));
app.get('/convert', (req, res) => {
  setUnits(req, 12); // pages
  res.send('done');
});
app.get('/healthz', (_, res) => res.send('fine'));

const server = app.listen(process.env.PORT ?? 3000, () => {
  console.log(`http://localhost:${server.address().port}`);
});
