import {
  type MeterOptions,
  type MeterStats,
  meter,
  setCustomer,
  setUnits,
} from 'dodo-ingestion/express';
import express, { type Request } from 'express';
import { ingestion } from './ingestion.mjs';

const options: MeterOptions<Request> = {
  customer: async (req, call) => (call.statusCode === 200 ? req.get('x-customer-id') : undefined),
  onMissingCustomer: { default: 'cus_1' },
  billStatus: (status) => status < 400,
  errorEventName: null,
  exclude: ['/healthz'],
  skip: (req) => req.ip === '::1',
  metadata: (_, { endpoint }) => ({ endpoint, at: new Date(), count: 1n }),
  units: () => 3,
};
const app = express();
const metered = meter(ingestion, options);
app.use(metered);
app.get('/users/:id', (req, res) => {
  setCustomer(req, req.params.id);
  setUnits(req, 2);
  res.end();
});
app.listen();
export const stats: MeterStats = metered.stats();

// @ts-expect-error: the callbacks would be given a request of Node's, which has no `get`
metered.upgrade;
// @ts-expect-error: it is no option
meter(ingestion, { customr: 'x' });
// @ts-expect-error: units are numbers
meter(ingestion, { units: () => 'many' });
// @ts-expect-error: there is no such choice
meter(ingestion, { onMissingCustomer: 'raise' });
// @ts-expect-error: only the customer may be waited for
meter(ingestion, { metadata: async () => ({}) });
