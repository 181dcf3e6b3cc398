import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { after, test } from 'node:test';
import { meter, setCustomer, setUnits } from 'dodo-ingestion/fastify';
import fastify5 from 'fastify';
import fastify4 from 'fastify4';
import { arrivals, CHUNKS, suite } from './suite.mjs';
import { call, client, events, someone } from './support.mjs';

async function listening(app) {
  after(() => app.close());
  await app.listen({ host: '127.0.0.1', port: 0 });
  return app.server.address().port;
}

for (const [version, fastify] of [
  ['Fastify 4', fastify4],
  ['Fastify 5', fastify5],
]) {
  const start = async (ingestion, options) => {
    const { arrived, here } = arrivals();
    const plugin = meter(ingestion, options);
    const app = fastify({ forceCloseConnections: true });
    app.register(plugin);
    app.all('/status/:code', (request, reply) =>
      reply.code(Number(request.params.code)).send('a body'),
    );
    app.get('/hang/:code', (request, reply) => {
      reply.hijack();
      reply.raw.writeHead(Number(request.params.code)).write('some');
    });
    app.get('/silent', (request) => {
      here(request.headers['x-customer-id']);
      return new Promise(() => {});
    });
    app.get('/stream', (_, reply) => reply.send(Readable.from(CHUNKS)));
    app.get('/throws', () => {
      throw new Error('planted');
    });
    app.get('/rejects', async () => {
      throw new Error('planted');
    });
    app.get('/told', async (request) => {
      setCustomer(request, request.headers['x-told']);
      setUnits(request, 12);
      return 'told';
    });
    app.register(
      async (users) => {
        users.register(
          async (orders) => {
            orders.get('/:order', async () => 'an order');
          },
          { prefix: '/:user/orders' },
        );
      },
      { prefix: '/v1/users' },
    );
    app.setNotFoundHandler((request, reply) =>
      request.url === '/fallback' ? reply.code(200).send('fallback') : reply.code(404).send('no'),
    );
    return { port: await listening(app), arrived, stats: plugin.stats };
  };
  suite(version, start, { endpoint: '/v1/users/:user/orders/:order' });

  test(`${version}: a plugin's own instance alone can be metered`, async () => {
    const ingestion = client();
    const app = fastify();
    app.register(async (inner) => {
      inner.register(meter(ingestion, { customer: 'x-customer-id' }));
      inner.get('/inner/:id', async () => 'here');
    });
    app.get('/outer', async () => 'here');
    const port = await listening(app);
    const customer = someone();
    const headers = { 'x-customer-id': customer };
    await call(port, '/outer', { headers });
    await call(port, '/inner/1', { headers });
    const [{ metadata }] = await events(ingestion, customer);
    assert.equal(metadata.endpoint, '/inner/:id');
  });

  test(`${version}: what takes whatever is left is no route for what is not found`, async () => {
    const ingestion = client();
    const app = fastify();
    app.register(meter(ingestion, { customer: 'x-customer-id' }));
    for (const url of ['/star/*', '/regexp/:path(^.*$)', '/digits/:id(^\\d+$)']) {
      app.get(url, (_, reply) => reply.code(404).send('by a route'));
    }
    const customer = someone();
    const headers = { 'x-customer-id': customer };
    for (const url of ['/star/a', '/regexp/a', '/digits/1']) {
      assert.equal((await app.inject({ url, headers })).body, 'by a route', url);
    }
    const found = (await events(ingestion, customer, 3)).map(({ event_name: name, metadata }) =>
      [name, metadata.endpoint].join(' '),
    );
    assert.deepEqual(found.sort(), ['api_call /digits/:id(^\\d+$)', 'api_error ', 'api_error ']);
  });

  test(`${version}: what is injected is metered`, async () => {
    const ingestion = client();
    const app = fastify();
    app.register(meter(ingestion, { customer: 'x-customer-id' }));
    app.get('/injected/:id', async () => 'here');
    const customer = someone();
    await app.inject({ url: '/injected/1', headers: { 'x-customer-id': customer } });
    const [{ metadata }] = await events(ingestion, customer);
    assert.deepEqual([metadata.endpoint, metadata.response_bytes], ['/injected/:id', 4]);
  });
}

test('Fastify: a plugin that says nothing was sent, as @fastify/express does, leaves a call billed', async () => {
  const ingestion = client();
  const customer = someone();
  const app = fastify5({ forceCloseConnections: true });
  app.register(meter(ingestion, { customer: 'x-customer-id' }));
  app.addHook('onRequest', async (_, { raw }) => {
    Object.defineProperty(raw, 'headersSent', { configurable: true, get: () => false });
  });
  app.get('/users/:id', async () => 'a user');
  app.get('/stream', (_, reply) => reply.send(Readable.from(CHUNKS)));
  const port = await listening(app);
  for (const path of ['/users/7', '/stream']) {
    await call(port, path, { headers: { 'x-customer-id': customer } });
  }
  const found = await events(ingestion, customer, 2);
  assert.deepEqual(
    found.map(({ event_name: name, metadata }) => [name, metadata.status_code]),
    [
      ['api_call', 200],
      ['api_call', 200],
    ],
  );
});
