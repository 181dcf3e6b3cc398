// The wrapper of route handlers, without Next.js itself: a handler is a function from `Request` to `Response`,
// served here by an adapter for Node.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { getRequestListener } from '@hono/node-server';
import { meter, setCustomer, setUnits } from 'dodo-ingestion/next';
import { arrivals, CHUNKS, suite } from './suite.mjs';
import { client, events, listen, someone } from './support.mjs';

const encoder = new TextEncoder();

/** As Next.js finds its routes: by files. */
function routes(withMeter, here) {
  const route = (pattern, endpoint, handler) => [pattern, withMeter(handler, { endpoint })];
  return [
    route(/^\/status\/(?<code>\d+)$/, '/status/:code', async (_, { params }) => {
      const status = Number((await params).code);
      return new Response(status === 204 || status === 304 ? null : 'a body', { status });
    }),
    route(/^\/hang\/(?<code>\d+)$/, '/hang/:code', async (_, { params }) => {
      const body = new ReadableStream({ start: (to) => to.enqueue(encoder.encode('some')) });
      return new Response(body, { status: Number((await params).code) });
    }),
    route(/^\/silent$/, '/silent', (request) => {
      here(request.headers.get('x-customer-id'));
      return new Promise(() => {});
    }),
    route(/^\/stream$/, '/stream', () => {
      const chunks = CHUNKS.map((chunk) => encoder.encode(chunk));
      return new Response(ReadableStream.from(chunks));
    }),
    route(/^\/throws$/, '/throws', () => {
      throw new Error('planted');
    }),
    route(/^\/rejects$/, '/rejects', async () => {
      throw new Error('planted');
    }),
    route(/^\/told$/, '/told', (request) => {
      setCustomer(request, request.headers.get('x-told'));
      setUnits(request, 12);
      return new Response('told');
    }),
    route(/^\/v1\/users\/[^/]+\/orders\/[^/]+$/, '/v1/users/[user]/orders/[order]', () =>
      Response.json('an order'),
    ),
  ];
}

const start = async (ingestion, options) => {
  const { arrived, here } = arrivals();
  const withMeter = meter(ingestion, options);
  const table = routes(withMeter, here);
  const listener = getRequestListener(
    async (request) => {
      const { pathname } = new URL(request.url);
      for (const [pattern, handler] of table) {
        const match = pattern.exec(pathname);
        if (match) {
          return handler(request, { params: Promise.resolve(match.groups) });
        }
      }
      return new Response('nothing here', { status: 404 });
    },
    { errorHandler: () => new Response('failed', { status: 500 }) },
  );
  return { port: await listen(createServer(listener)), arrived, stats: withMeter.stats };
};
suite('Next.js', start, {
  endpoint: '/v1/users/[user]/orders/[order]',
  // What has no handler is not wrapped.
  unmatched: false,
});

test('Next.js: redirect() and notFound() throw', async () => {
  const ingestion = client();
  const withMeter = meter(ingestion, { customer: 'x-customer-id' });
  const customer = someone();
  const request = new Request('http://x/', { headers: { 'x-customer-id': customer } });
  const digests = {
    'NEXT_REDIRECT;replace;/elsewhere;308;': 308,
    NEXT_NOT_FOUND: 404,
    'NEXT_HTTP_ERROR_FALLBACK;403': 403,
    other: 500,
  };
  for (const digest of Object.keys(digests)) {
    const thrown = Object.assign(new Error('planted'), { digest });
    const handler = withMeter(
      () => {
        throw thrown;
      },
      { endpoint: '/' },
    );
    await assert.rejects(handler(request.clone()), thrown);
  }
  const found = await events(ingestion, customer, 4);
  assert.deepEqual(
    found.map(({ metadata }) => metadata.status_code).sort(),
    Object.values(digests).sort(),
  );
});

test('Next.js: a response whose body cannot be watched is handed on as it is', async () => {
  const ingestion = client();
  const withMeter = meter(ingestion, { customer: 'x-customer-id' });
  const response = Response.redirect('http://x/elsewhere');
  const handler = withMeter(() => response, { endpoint: '/' });
  const customer = someone();
  const headers = { 'x-customer-id': customer };
  assert.equal(await handler(new Request('http://x/', { headers })), response);
  await events(ingestion, customer);

  const taken = new Response('a body');
  taken.body.getReader();
  const other = withMeter(() => taken, { endpoint: '/' });
  assert.equal(await other(new Request('http://x/', { headers })), taken);
  await events(ingestion, customer, 2);
});

test('Next.js: a response that cannot be sent has failed', async () => {
  const ingestion = client();
  const customer = someone();
  const withMeter = meter(ingestion, { customer: () => customer });
  const response = Response.error();
  const handler = withMeter(() => response, { endpoint: '/' });
  assert.equal(await handler(new Request('http://x/')), response);
  const [{ event_name: name, metadata }] = await events(ingestion, customer);
  assert.deepEqual([name, metadata.status_code], ['api_error', 500]);
});

test('Next.js: what takes whatever is left is no route for what is not found', async () => {
  const ingestion = client();
  const customer = someone();
  const withMeter = meter(ingestion, { customer: () => customer });
  for (const endpoint of ['/api/[...slug]', '/api/[[...slug]]', '/api/[slug]']) {
    const handler = withMeter(() => new Response('nothing here', { status: 404 }), { endpoint });
    await (await handler(new Request('http://localhost/api/a'))).text();
  }
  const found = (await events(ingestion, customer, 3)).map(({ event_name: name, metadata }) =>
    [name, metadata.endpoint].join(' '),
  );
  assert.deepEqual(found.sort(), ['api_call /api/[slug]', 'api_error ', 'api_error ']);
});

test('Next.js: what is no route is refused', () => {
  const withMeter = meter(client());
  const refused = { name: 'ConfigurationError', field: 'endpoint' };
  for (const route of [undefined, null, {}, { endpoint: 7 }]) {
    assert.throws(() => withMeter(() => new Response(), route), refused);
  }
  assert.throws(() => withMeter(() => new Response(), { endpiont: '/' }), {
    field: 'endpiont',
    message: 'endpiont: is no option; the nearest is endpoint',
  });
});

test('Next.js: a client that had left before the call is no response', async () => {
  const ingestion = client();
  const customer = someone();
  const withMeter = meter(ingestion);
  const handler = withMeter(
    (request) => {
      setCustomer(request, customer);
      return new Response('a body');
    },
    { endpoint: '/left' },
  );
  const request = new Request('http://localhost/left', { signal: AbortSignal.abort() });
  assert.equal(await (await handler(request)).text(), 'a body');
  const [{ event_name: name, metadata }] = await events(ingestion, customer);
  const { endpoint, status_code: status, aborted, response_bytes: bytes } = metadata;
  assert.deepEqual(
    [name, endpoint, status, aborted, bytes],
    ['api_error', '/left', undefined, true, undefined],
  );
});

test('Next.js: a handler that gives no response has failed', async () => {
  const ingestion = client();
  const customer = someone();
  const withMeter = meter(ingestion, { customer: () => customer });
  const handler = withMeter(() => undefined, { endpoint: '/nothing' });
  assert.equal(await handler(new Request('http://localhost/nothing')), undefined);
  const [{ event_name: name, metadata }] = await events(ingestion, customer);
  assert.deepEqual([name, metadata.status_code], ['api_error', 500]);
});

test('Next.js: a response of its own stays one', async () => {
  /** As `NextResponse`. */
  class Answer extends Response {
    cookies = { set: (name, value) => this.headers.append('set-cookie', `${name}=${value}`) };
  }
  const ingestion = client();
  const customer = someone();
  const init = { status: 201, headers: { 'set-cookie': 'a=1' } };
  const withMeter = meter(ingestion, { customer: () => customer });
  const handler = withMeter(() => new Answer('a body', init), { endpoint: '/' });
  const response = await handler(new Request('http://127.0.0.1/'));
  response.cookies.set('b', '2');
  assert.deepEqual(
    [response.status, response.headers.getSetCookie(), await response.text()],
    [201, ['a=1', 'b=2'], 'a body'],
  );
  assert.equal((await events(ingestion, customer)).length, 1);
});
