// The status of an event is the one that the client was sent, whatever is set after the head.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { connect, createServer as createHttp2Server } from 'node:http2';
import { after, test } from 'node:test';
import { meter as meterExpress } from 'dodo-ingestion/express';
import { meter as meterFastify } from 'dodo-ingestion/fastify';
import { meter as meterNode } from 'dodo-ingestion/http';
import express5 from 'express';
import express4 from 'express4';
import fastify5 from 'fastify';
import { call, client, events, listen, someone } from './support.mjs';

const OPTIONS = { customer: 'x-customer-id', endpoint: ({ url }) => url };

/** Handlers whose status changes after the head, and what a client is sent. */
const WAYS = {
  '/written': [
    200,
    (res) => {
      res.write('data: 1\n\n');
      res.statusCode = 500;
      res.end();
    },
  ],
  '/flushed': [
    201,
    (res) => {
      res.statusCode = 201;
      res.flushHeaders();
      res.statusCode = 204;
      res.end('fine');
    },
  ],
  '/head': [
    503,
    (res) => {
      res.writeHead(503);
      res.statusCode = 200;
      res.end('fine');
    },
  ],
  '/not-yet': [
    402,
    (res) => {
      res.statusCode = 402;
      res.end('fine');
      res.statusCode = 200;
    },
  ],
};
const answer = ({ url }, res) => WAYS[url][1](res);
const SENT = Object.fromEntries(Object.entries(WAYS).map(([path, [status]]) => [path, status]));

const byExpress = (express) => async (ingestion) => {
  const app = express();
  app.use(meterExpress(ingestion, OPTIONS), answer);
  return listen(createServer(app));
};

const APPS = {
  'node:http': async (ingestion) => {
    const metered = meterNode(ingestion, OPTIONS);
    return listen(createServer((req, res) => metered(req, res, () => answer(req, res))));
  },
  'Express 4': byExpress(express4),
  'Express 5': byExpress(express5),
  Fastify: async (ingestion) => {
    const app = fastify5({ forceCloseConnections: true });
    after(() => app.close());
    app.register(meterFastify(ingestion, OPTIONS));
    app.get('/*', (request, reply) => {
      reply.hijack();
      answer(request, reply.raw);
    });
    await app.listen({ host: '127.0.0.1', port: 0 });
    return app.server.address().port;
  },
};

async function assertSent(ingestion, customer, sent) {
  const found = await events(ingestion, customer, Object.keys(sent).length);
  const told = found.map(({ metadata }) => [metadata.endpoint, metadata.status_code]);
  assert.deepEqual(Object.fromEntries(told), sent);
}

for (const [name, start] of Object.entries(APPS)) {
  test(`${name}: the status is the one that is sent`, async () => {
    const ingestion = client();
    const port = await start(ingestion);
    const customer = someone();
    for (const [path, status] of Object.entries(SENT)) {
      const answered = await call(port, path, { headers: { 'x-customer-id': customer } });
      assert.equal(answered.status, status, path);
    }
    await assertSent(ingestion, customer, SENT);
  });
}

test('HTTP/2: the status is the one that is sent', async () => {
  const ingestion = client();
  const metered = meterNode(ingestion, OPTIONS);
  const server = createHttp2Server((req, res) => {
    metered(req, res);
    if (req.url === '/stream') {
      // By the stream itself, of which the response is not told.
      res.stream.respond({ ':status': 404 });
      res.stream.end('nothing here');
    } else {
      answer(req, res);
    }
  });
  const session = connect(`http://127.0.0.1:${await listen(server)}`);
  const customer = someone();
  const all = { ...SENT, '/stream': 404 };
  for (const [path, status] of Object.entries(all)) {
    const stream = session.request({ ':path': path, 'x-customer-id': customer });
    const answered = new Promise((resolve) => stream.once('response', resolve));
    stream.resume();
    assert.equal((await answered)[':status'], status, path);
  }
  session.close();
  await assertSent(ingestion, customer, all);
});
