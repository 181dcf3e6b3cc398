import { createBatch } from 'dodo-ingestion';
import { meter, setCustomer } from 'dodo-ingestion/fastify';
import fastify from 'fastify';
import { ingestion } from './ingestion.mjs';

const app = fastify();
const plugin = meter(ingestion, { customer: (request) => request.headers.authorization });
app.register(plugin);
app.addHook('onClose', createBatch(ingestion).cleanup);
app.get<{ Params: { id: string } }>('/users/:id', async (request) => {
  setCustomer(request, request.params.id);
});
export const { billed } = plugin.stats();

const http2 = fastify({ http2: true });
http2.register(meter(ingestion, { skip: (request) => request.method === 'PURGE' }));
http2.get('/users/:id', async (request) => {
  setCustomer(request, 'cus_1');
});
