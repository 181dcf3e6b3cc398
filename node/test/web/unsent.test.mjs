// A head that was made and not sent is no response: the client that leaves, or is left, has none.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import { after, test } from 'node:test';
import { meter as meterExpress } from 'dodo-ingestion/express';
import { meter as meterFastify } from 'dodo-ingestion/fastify';
import { meter as meterNode } from 'dodo-ingestion/http';
import express5 from 'express';
import express4 from 'express4';
import fastify5 from 'fastify';
import { client, events, listen, someone } from './support.mjs';

const OPTIONS = { customer: 'x-customer-id', endpoint: ({ url }) => url };

const NONE = ['api_error', undefined, undefined, true];
const BEGUN = (bytes) => ['api_call', 200, bytes, true];

/** What handlers do before the connection ends, and what the event says of it. */
const WAYS = {
  '/made': [NONE, (res) => res.writeHead(200)],
  '/made-and-broken-off': [NONE, (res) => res.writeHead(200).destroy()],
  '/flushed': [BEGUN(0), (res) => res.flushHeaders()],
  '/made-and-flushed': [BEGUN(0), (res) => res.writeHead(200).flushHeaders()],
  '/written': [BEGUN(4), (res) => res.writeHead(200).write('some')],
  // As in a Node that keeps nothing of it.
  '/not-known': [
    BEGUN(0),
    (res) => {
      res.writeHead(200);
      delete res._headerSent;
    },
  ],
};

const byExpress = (express) => async (ingestion, handle) => {
  const app = express();
  app.use(meterExpress(ingestion, OPTIONS), handle);
  app.use((_error, req, _res, _next) => req.socket.destroy());
  return listen(createServer(app));
};

const APPS = {
  'node:http': async (ingestion, handle) => {
    const metered = meterNode(ingestion, OPTIONS);
    return listen(createServer((req, res) => metered(req, res, () => handle(req, res))));
  },
  'Express 4': byExpress(express4),
  'Express 5': byExpress(express5),
  Fastify: async (ingestion, handle) => {
    const app = fastify5({ forceCloseConnections: true });
    after(() => app.close());
    app.register(meterFastify(ingestion, OPTIONS));
    app.get('/*', (request, reply) => {
      reply.hijack();
      handle(request.raw, reply.raw);
    });
    await app.listen({ host: '127.0.0.1', port: 0 });
    return app.server.address().port;
  },
};

/** Sends requests over one connection, and leaves when the last of them has been handled; gives what was answered. */
async function leaves(port, customer, paths, handled) {
  const socket = connect(port, '127.0.0.1');
  let answer = '';
  socket.on('data', (chunk) => {
    answer += chunk;
  });
  socket.on('error', () => {});
  const head = `HTTP/1.1\r\nhost: x\r\nx-customer-id: ${customer}\r\n\r\n`;
  socket.write(paths.map((path) => `GET ${path} ${head}`).join(''));
  await handled;
  socket.destroy();
  return answer;
}

const saidOf = ({ event_name: name, metadata }) => [
  name,
  metadata.status_code,
  metadata.response_bytes,
  metadata.aborted,
];

for (const [name, start] of Object.entries(APPS)) {
  test(`${name}: a head that was not sent is no response`, async () => {
    const ingestion = client();
    let here;
    const port = await start(ingestion, (req, res) => {
      WAYS[req.url][1](res);
      setImmediate(here);
    });
    const customer = someone();
    for (const path of Object.keys(WAYS)) {
      const handled = new Promise((resolve) => {
        here = resolve;
      });
      await leaves(port, customer, [path], handled);
    }
    const found = await events(ingestion, customer, Object.keys(WAYS).length);
    const said = found.map((event) => [event.metadata.endpoint, saidOf(event)]);
    const expected = Object.entries(WAYS).map(([path, [event]]) => [path, event]);
    assert.deepEqual(Object.fromEntries(said), Object.fromEntries(expected));
  });

  test(`${name}: what waits in the pipeline is no response`, async () => {
    const ingestion = client();
    let here;
    const handled = new Promise((resolve) => {
      here = resolve;
    });
    const port = await start(ingestion, ({ url }, res) => {
      if (url === '/first') {
        res.write('some');
      } else if (url === '/whole') {
        res.end('whole');
      } else {
        res.write('part');
        setImmediate(here);
      }
    });
    const customer = someone();
    const answer = await leaves(port, customer, ['/first', '/whole', '/part'], handled);
    assert.doesNotMatch(answer, /whole|part/);
    const found = await events(ingestion, customer, 3);
    const said = found.map((event) => [event.metadata.endpoint, saidOf(event)]);
    assert.deepEqual(Object.fromEntries(said), {
      '/first': BEGUN(4),
      '/whole': NONE,
      '/part': NONE,
    });
  });

  test(`${name}: what has had its turn in the pipeline is a response`, async () => {
    const ingestion = client();
    let first;
    const port = await start(ingestion, ({ url }, res) => {
      if (url === '/first') {
        first = res;
      } else {
        res.write('part');
        first.end('first');
      }
    });
    const customer = someone();
    const socket = connect(port, '127.0.0.1');
    const head = `HTTP/1.1\r\nhost: x\r\nx-customer-id: ${customer}\r\n\r\n`;
    socket.write(`GET /first ${head}GET /part ${head}`);
    for (let answer = ''; !answer.includes('part'); ) {
      answer += (await once(socket, 'data'))[0];
    }
    socket.destroy();
    const found = await events(ingestion, customer, 2);
    const said = found.map((event) => [event.metadata.endpoint, saidOf(event)]);
    assert.deepEqual(Object.fromEntries(said), {
      '/first': ['api_call', 200, 5, undefined],
      '/part': BEGUN(4),
    });
  });
}

for (const [version, express] of [
  ['Express 4', express4],
  ['Express 5', express5],
]) {
  test(`${version}: a handler that throws after it has made a head`, async () => {
    const ingestion = client();
    const port = await byExpress(express)(ingestion, (_, res) => {
      res.writeHead(200);
      throw new Error('planted');
    });
    const customer = someone();
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => {});
    socket.write(`GET /throws HTTP/1.1\r\nhost: x\r\nx-customer-id: ${customer}\r\n\r\n`);
    await new Promise((resolve) => socket.once('close', resolve));
    assert.equal(socket.bytesRead, 0);
    const [event] = await events(ingestion, customer);
    assert.deepEqual(saidOf(event), NONE);
  });
}
