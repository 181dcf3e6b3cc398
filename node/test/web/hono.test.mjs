import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { getRequestListener } from '@hono/node-server';
import {
  meter,
  setCustomer,
  setEndpoint,
  setMetadata,
  setUnits,
  skipMetering,
} from 'dodo-ingestion/hono';
import { meter as meterNode } from 'dodo-ingestion/http';
import { meter as meterNext } from 'dodo-ingestion/next';
import { Hono } from 'hono';
import { arrivals, CHUNKS, STREAMED, suite } from './suite.mjs';
import { call, client, events, listen, someone } from './support.mjs';

const encoder = new TextEncoder();

function streamed(chunks, end = true) {
  return new ReadableStream({
    start(controller) {
      for (const chunk of chunks) {
        controller.enqueue(encoder.encode(chunk));
      }
      if (end) {
        controller.close();
      }
    },
  });
}

function appOf(ingestion, options) {
  const { arrived, here } = arrivals();
  const metered = meter(ingestion, options);
  const app = new Hono();
  app.use(metered);
  app.all('/status/:code', (c) => {
    const status = Number(c.req.param('code'));
    return new Response(status === 204 || status === 304 ? null : 'a body', { status });
  });
  app.get('/hang/:code', (c) => {
    const status = Number(c.req.param('code'));
    return new Response(streamed(['some'], false), { status });
  });
  app.get('/silent', (c) => {
    here(c.req.header('x-customer-id'));
    return new Promise(() => {});
  });
  app.get('/stream', () => new Response(streamed(CHUNKS)));
  app.get('/throws', () => {
    throw new Error('planted');
  });
  app.get('/rejects', async () => {
    throw new Error('planted');
  });
  app.get('/told', (c) => {
    setCustomer(c, c.req.header('x-told'));
    setUnits(c, 12);
    return c.text('told');
  });
  const orders = new Hono();
  orders.get('/:order', (c) => c.text('an order'));
  // An app with an error handler of its own has its handlers wrapped.
  orders.onError((_, c) => c.text('failed', 500));
  const users = new Hono();
  users.route('/:user/orders', orders);
  app.route('/v1/users', users);
  app.use('/fallback', async (c, next) => {
    await next();
    c.res = c.text('fallback');
  });
  app.onError((_, c) => c.text('failed', 500));
  return { app, arrived, stats: metered.stats };
}

const onNode = async (ingestion, options) => {
  const { app, arrived, stats } = appOf(ingestion, options);
  return { port: await listen(createServer(getRequestListener(app.fetch))), arrived, stats };
};
suite('Hono on Node', onNode, { endpoint: '/v1/users/:user/orders/:order' });

const byFetch = async (ingestion, options) => {
  const { app, arrived, stats } = appOf(ingestion, options);
  const listener = getRequestListener((request) => app.fetch(request));
  return { port: await listen(createServer(listener)), arrived, stats };
};
suite('Hono by fetch', byFetch, { endpoint: '/v1/users/:user/orders/:order' });

test('Hono by fetch: without a server', async () => {
  const ingestion = client();
  const { app } = appOf(ingestion, { customer: 'x-customer-id' });
  const customer = someone();
  const headers = { 'x-customer-id': customer };
  const response = await app.request('/stream', { headers });
  assert.equal(await response.text(), STREAMED);
  const broken = await app.request('/hang/200', { headers });
  const reader = broken.body.getReader();
  await reader.read();
  await reader.cancel();
  const told = await app.request('/told', { headers: { 'x-told': customer } });
  assert.equal(told.headers.get('content-type'), 'text/plain;charset=UTF-8');
  await told.text();
  const found = (await events(ingestion, customer, 3)).map(({ metadata }) => metadata);
  const seen = found.map(({ endpoint, aborted, response_bytes: bytes }) => [
    endpoint,
    aborted,
    bytes,
  ]);
  assert.deepEqual(seen.sort(), [
    ['/hang/:code', true, 4],
    ['/stream', undefined, Buffer.byteLength(STREAMED)],
    ['/told', undefined, 4],
  ]);
});

test('Hono by fetch: a body of whatever is in its stream', async () => {
  const ingestion = client();
  const app = new Hono();
  const customer = someone();
  app.use(meter(ingestion, { customer: () => customer }));
  const chunks = ['é', new Uint8Array(3), new ArrayBuffer(4), undefined];
  app.get('/chunks', () => new Response(ReadableStream.from(chunks)));
  const reader = (await app.request('/chunks')).body.getReader();
  const seen = [];
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
    seen.push(piece.value);
  }
  assert.deepEqual(seen, chunks);
  const [{ metadata }] = await events(ingestion, customer);
  assert.deepEqual([metadata.response_bytes, metadata.aborted], [2 + 3 + 4, undefined]);
});

test('Hono by fetch: a body of a declared length is metered when it is whole', async () => {
  const ingestion = client();
  const app = new Hono();
  const customer = someone();
  const metered = meter(ingestion, { customer: () => customer });
  app.use(metered);
  app.get('/whole', () => {
    const body = ReadableStream.from(['four', 'teen chars']);
    return new Response(body, { headers: { 'content-length': '14' } });
  });
  const reader = (await app.request('/whole')).body.getReader();
  await reader.read();
  assert.equal(metered.stats().billed, 0);
  await reader.read();
  assert.equal(metered.stats().billed, 1);
  await reader.cancel();
  const [{ metadata }] = await events(ingestion, customer);
  assert.deepEqual([metadata.response_bytes, metadata.aborted], [14, undefined]);
});

test('Hono by fetch: a signal that outlives its requests keeps nothing of them', async () => {
  const ingestion = client();
  const { app } = appOf(ingestion, { customer: () => 'cus_signal' });
  const stop = new AbortController();
  for (let n = 0; n < 20; n += 1) {
    const request = new Request('http://localhost/stream');
    Object.defineProperty(request, 'signal', { value: stop.signal });
    await (await app.request(request)).text();
  }
  assert.equal(getEventListeners(stop.signal, 'abort').length, 0);
});

test('Hono: a middleware that takes whatever is left is no route for what is not found', async () => {
  const ingestion = client();
  const app = new Hono();
  const customer = someone();
  app.use(meter(ingestion, { customer: () => customer }));
  app.get('/api/*', (_, next) => next());
  app.get('/api/users/:id', (c) => c.text('here', c.req.param('id') === '0' ? 404 : 200));
  app.get('/files/*', (c) => c.text('here'));
  for (const path of ['/api/nothing', '/api/users/1', '/api/users/0', '/files/a']) {
    await (await app.request(path)).text();
  }
  const found = (await events(ingestion, customer, 4)).map(({ event_name: name, metadata }) =>
    [name, metadata.status_code, metadata.endpoint].join(' '),
  );
  assert.deepEqual(found.sort(), [
    'api_call 200 /api/users/:id',
    'api_call 200 /files/*',
    'api_call 404 /api/users/:id',
    'api_error 404 ',
  ]);
});

test('Hono by fetch: a handler that gives no response has failed', async () => {
  const ingestion = client();
  const app = new Hono();
  const customer = someone();
  app.use(meter(ingestion, { customer: () => customer }));
  app.get('/forgotten', (c) => {
    c.text('not returned');
  });
  app.onError((_error, c) => c.text('failed', 500));
  assert.equal((await app.request('/forgotten')).status, 500);
  const [{ event_name: name, metadata }] = await events(ingestion, customer);
  assert.deepEqual(
    [name, metadata.status_code, metadata.endpoint],
    ['api_error', 500, '/forgotten'],
  );
});

test('Hono: a middleware that answers is no route', async () => {
  const ingestion = client();
  const app = new Hono();
  app.use(meter(ingestion, { customer: 'x-customer-id' }));
  app.use('/guarded/*', async (c, _next) => c.text('not you', 401));
  app.get('/guarded/:id', (c) => c.text('here'));
  const customer = someone();
  await (await app.request('/guarded/1', { headers: { 'x-customer-id': customer } })).text();
  const [{ metadata }] = await events(ingestion, customer);
  assert.deepEqual([metadata.status_code, metadata.endpoint], [401, undefined]);
});

test('Hono: of what may be a middleware, an endpoint is what it says', async () => {
  const ingestion = client();
  const app = new Hono();
  const customer = someone();
  app.use(meter(ingestion, { customer: () => customer }));
  app.all('/one/:id', (c) => c.text('one', 404));
  app.all('/two/:id', (c, _next) => c.text('two', 404));
  app.all('/told/:id', (c, _next) => {
    setEndpoint(c, '/told/:id');
    return c.text('told', 404);
  });
  app.mount('/mounted', () => new Response('mounted'));
  app.use('/old/*', (c, next) => {
    setEndpoint(c, '/old/*');
    return next();
  });
  app.mount('/old', () => new Response('old'));
  for (const path of ['/one/1', '/two/1', '/told/1', '/mounted/1', '/old/1']) {
    await (await app.request(path)).text();
  }
  const found = (await events(ingestion, customer, 5)).map(({ event_name: name, metadata }) =>
    [name, metadata.status_code, metadata.endpoint].join(' '),
  );
  assert.deepEqual(found.sort(), [
    'api_call 200 ',
    'api_call 200 /old/*',
    'api_call 404 /one/:id',
    'api_call 404 /told/:id',
    'api_error 404 ',
  ]);
});

test('Hono by fetch: a request that another meter has in hand is not metered again', async () => {
  const [outer, inner] = [client(), client()];
  const app = new Hono();
  const metered = meter(inner, { customer: () => 'cus_inner' });
  app.use(metered, metered);
  app.get('*', (c) => {
    setCustomer(c, c.req.header('x-told'));
    setUnits(c, 3);
    return c.text('here');
  });
  const withMeter = meterNext(outer);
  const byNext = withMeter((request) => app.fetch(request), { endpoint: '/outer' });
  const byHono = new Hono();
  byHono.use(meter(outer, { endpoint: () => '/outer' }));
  byHono.mount('/mounted', app.fetch, { replaceRequest: false });
  byHono.all('/handed-on', (c) => app.fetch(c.req.raw));
  byHono.all('/by-next', (c) => byNext(c.req.raw));

  const customer = someone();
  const ask = (path) => new Request(`http://localhost${path}`, { headers: { 'x-told': customer } });
  const answers = [
    await byNext(ask('/')),
    await byHono.fetch(ask('/mounted')),
    await byHono.fetch(ask('/handed-on')),
    await byHono.fetch(ask('/by-next')),
  ];
  for (const answer of answers) {
    assert.equal(await answer.text(), 'here');
  }
  for (const { metadata } of await events(outer, customer, answers.length)) {
    assert.deepEqual([metadata.endpoint, metadata.units], ['/outer', 3]);
  }
  assert.equal(outer.stats().accepted, answers.length);
  assert.equal(inner.stats().accepted, 0);
});

test('Hono by fetch: one request that is used again is another call', async () => {
  const ingestion = client();
  const { app } = appOf(ingestion, { customer: 'x-customer-id' });
  const customer = someone();
  const request = new Request('http://localhost/stream', {
    headers: { 'x-customer-id': customer },
  });
  await (await app.fetch(request)).text();
  await (await app.fetch(request)).text();
  await events(ingestion, customer, 2);
});

test('Hono by fetch: a client that had left before the call is no response', async () => {
  const ingestion = client();
  const { app } = appOf(ingestion, { customer: 'x-customer-id' });
  const customer = someone();
  const headers = { 'x-customer-id': customer };
  const left = { headers, signal: AbortSignal.abort() };
  assert.equal(await (await app.request('/stream', left)).text(), STREAMED);
  const [{ event_name: name, metadata }] = await events(ingestion, customer);
  const { endpoint, status_code: status, aborted } = metadata;
  assert.deepEqual([name, endpoint, status, aborted], ['api_error', '/stream', undefined, true]);
});

test('Hono on Node: a handler with a meter of its own is not metered again', async () => {
  const ingestion = client();
  const { app } = appOf(ingestion, { customer: 'x-customer-id' });
  const withMeter = meterNext(ingestion, { customer: 'x-customer-id' });
  const handler = withMeter(() => new Response('inner'), { endpoint: '/inner' });
  app.get('/inner/:id', (c) => handler(c.req.raw));
  const port = await listen(createServer(getRequestListener(app.fetch)));
  const customer = someone();
  await call(port, '/inner/1', { headers: { 'x-customer-id': customer } });
  const [{ metadata }] = await events(ingestion, customer);
  assert.equal(metadata.endpoint, '/inner/:id');
  assert.equal(ingestion.stats().accepted, 1);
});

test('Hono on Node: behind a meter of the server it is not metered again', async () => {
  const ingestion = client();
  const { app } = appOf(ingestion, { customer: 'x-customer-id' });
  const listener = getRequestListener(app.fetch);
  const outer = meterNode(ingestion, { customer: 'x-customer-id', endpoint: () => '/outer' });
  const server = createServer((req, res) => {
    outer(req, res);
    listener(req, res);
  });
  const port = await listen(server);
  const customer = someone();
  const headers = { 'x-customer-id': customer };
  assert.equal((await call(port, '/stream', { headers })).body.toString(), STREAMED);
  const [{ metadata }] = await events(ingestion, customer);
  assert.equal(metadata.endpoint, '/outer');
  assert.equal(metadata.response_bytes, Buffer.byteLength(STREAMED));
});

test('Hono on Node: what handlers say is heard by a meter of the server', async () => {
  const { app } = appOf(client(), { customer: 'x-customer-id' });
  app.get('/said', (c) => {
    setCustomer(c, c.req.header('x-told'));
    setMetadata(c, { plan: 'pro' });
    setEndpoint(c, '/said');
    setUnits(c, 3);
    return c.text('said');
  });
  app.get('/skipped', (c) => {
    setCustomer(c, c.req.header('x-told'));
    skipMetering(c);
    return c.text('skipped');
  });
  const ingestion = client();
  const listener = getRequestListener(app.fetch);
  // Who is billed, the handler alone says.
  const outer = meterNode(ingestion);
  const server = createServer((req, res) => {
    outer(req, res);
    listener(req, res);
  });
  const port = await listen(server);
  const customer = someone();
  await call(port, '/skipped', { headers: { 'x-told': customer } });
  await call(port, '/said', { headers: { 'x-told': customer } });
  const [{ metadata }] = await events(ingestion, customer);
  const { endpoint, plan, units } = metadata;
  assert.deepEqual({ endpoint, plan, units }, { endpoint: '/said', plan: 'pro', units: 3 });
});
