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
