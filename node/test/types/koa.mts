import { createSecureServer } from 'node:http2';
import Router from '@koa/router';
import { meter, setCustomer } from 'dodo-ingestion/koa';
import Koa from 'koa';
import { ingestion } from './ingestion.mjs';

const app = new Koa<{ user: string }>();
app.use(meter(ingestion, { customer: (ctx) => ctx.state.user }));
const router = new Router();
router.get('/users/:id', (ctx) => {
  setCustomer(ctx, 'cus_1');
});
app.use(router.routes());
createSecureServer({}, app.callback());
