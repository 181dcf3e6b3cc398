import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import Router from '@koa/router';
import { meter, setCustomer, setUnits } from 'dodo-ingestion/koa';
import Koa from 'koa';
import mount from 'koa-mount';
import Koa2 from 'koa2';
import { arrivals, CHUNKS, suite } from './suite.mjs';
import { call, client, events, listen, someone } from './support.mjs';

const start = (Koa) => async (ingestion, options) => {
  const { arrived, here } = arrivals();
  const metered = meter(ingestion, options);
  const app = new Koa();
  app.silent = true;
  app.use(metered);
  const router = new Router();
  router.all('/status/:code', (ctx) => {
    ctx.status = Number(ctx.params.code);
    ctx.body = 'a body';
    ctx.status = Number(ctx.params.code);
  });
  router.get('/hang/:code', (ctx) => {
    ctx.respond = false;
    ctx.res.writeHead(Number(ctx.params.code)).write('some');
  });
  router.get('/silent', (ctx) => {
    here(ctx.get('x-customer-id'));
    return new Promise(() => {});
  });
  router.get('/stream', (ctx) => {
    ctx.body = Readable.from(CHUNKS);
  });
  router.get('/throws', () => {
    throw new Error('planted');
  });
  router.get('/rejects', async () => {
    throw new Error('planted');
  });
  router.get('/told', (ctx) => {
    setCustomer(ctx, ctx.get('x-told'));
    setUnits(ctx, 12);
    ctx.body = 'told';
  });
  const orders = new Router();
  orders.get('/orders/:order', (ctx) => {
    ctx.body = 'an order';
  });
  const users = new Router({ prefix: '/v1/users' });
  users.use('/:user', orders.routes());
  app.use(router.routes()).use(users.routes());
  app.use((ctx) => {
    if (ctx.path === '/fallback') {
      ctx.body = 'fallback';
    }
  });
  return { port: await listen(createServer(app.callback())), arrived, stats: metered.stats };
};
for (const [version, each] of [
  ['Koa 2', Koa2],
  ['Koa 3', Koa],
]) {
  suite(version, start(each), { endpoint: '/v1/users/:user/orders/:order' });
}

test('Koa: the route, whatever runs around it', async () => {
  const ingestion = client();
  const app = new Koa();
  app.silent = true;
  app.use(meter(ingestion, { customer: 'x-customer-id' }));
  const router = new Router();
  router.use((ctx, next) => {
    ctx.assert(!ctx.query.refused, 401);
    return next();
  });
  router.get('/things/:id', (ctx) => {
    ctx.body = 'a thing';
  });
  router.get('/things/{*rest}', (ctx) => {
    ctx.body = 'the rest';
  });
  router.post('/things/:id', (ctx) => {
    ctx.body = 'posted';
  });
  router.get(/^\/items\/(\d+)$/, (ctx) => {
    ctx.body = 'an item';
  });
  app.use(router.routes()).use(router.allowedMethods());
  const port = await listen(createServer(app.callback()));
  const endpointOf = async (path, method = 'GET') => {
    const customer = someone();
    await call(port, path, { method, headers: { 'x-customer-id': customer } });
    const [{ metadata }] = await events(ingestion, customer);
    return metadata.endpoint;
  };
  assert.equal(await endpointOf('/things/1'), '/things/:id');
  assert.equal(await endpointOf('/things/1', 'HEAD'), '/things/:id');
  assert.equal(await endpointOf('/things/1', 'POST'), '/things/:id');
  assert.equal(await endpointOf('/things/a/b'), '/things/{*rest}');
  assert.equal(await endpointOf('/items/42'), '/^\\/items\\/(\\d+)$/');
  assert.equal(await endpointOf('/items/42?refused=1'), '/^\\/items\\/(\\d+)$/');
  assert.equal(await endpointOf('/things/1', 'DELETE'), undefined);
});

test('Koa: the prefixes of mounted apps', async () => {
  const ingestion = client();
  const app = new Koa();
  const customer = someone();
  app.use(meter(ingestion, { customer: () => customer }));
  const routed = (path) => {
    const router = new Router();
    router.get(path, (ctx) => {
      ctx.body = 'here';
    });
    return router.routes();
  };
  const inner = new Koa();
  inner.use(mount('/inner', new Koa().use(routed('/:id'))));
  inner.use(routed('/own/:id'));
  inner.use(mount('/root', routed('/')));
  inner.use(routed('/'));
  app.use(mount('/outer', inner));
  app.use(mount('/files/', routed('/')));
  app.use(mount('/outer', routed('/other/:id')));
  // A part of the path that a client makes up is no mount.
  app.use((ctx, next) => {
    ctx.path = ctx.path.replace(/^\/lang-\w+/, '');
    return next();
  });
  app.use(routed('/'));
  app.use(routed('/outer/plain/:id'));
  app.use(routed('/plain/:id'));
  const port = await listen(createServer(app.callback()));
  const paths = ['inner/1', 'own/1', 'other/1', 'plain/1'].map((path) => `/outer/${path}`);
  const roots = ['/', '/outer', '/outer/', '/outer/root', '/files/'];
  for (const path of [...paths, ...roots, '/lang-secret/plain/1', '/lang-secret/']) {
    assert.equal((await call(port, path)).body.toString(), 'here', path);
  }
  const found = (await events(ingestion, customer, 11)).map(({ metadata }) => metadata.endpoint);
  assert.deepEqual(found.sort(), [
    '/',
    '/',
    '/files',
    '/outer',
    '/outer',
    '/outer/inner/:id',
    '/outer/other/:id',
    '/outer/own/:id',
    '/outer/plain/:id',
    '/outer/root',
    '/plain/:id',
  ]);
});
