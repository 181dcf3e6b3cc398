// What `AsyncLocalStorage` keeps for a call is there for the callbacks, wherever the response comes to its end.

import assert from 'node:assert/strict';
import { AsyncLocalStorage } from 'node:async_hooks';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { connect, createServer as createHttp2Server } from 'node:http2';
import { test } from 'node:test';
import { meter as meterExpress } from 'dodo-ingestion/express';
import { meter } from 'dodo-ingestion/http';
import { meter as meterNext } from 'dodo-ingestion/next';
import express from 'express';
import { WebSocket, WebSocketServer } from 'ws';
import { client, events, leave, listen, someone } from './support.mjs';

const calls = new AsyncLocalStorage();
const options = { customer: async () => calls.getStore() };

const handlers = {
  'of what is written': (res) => res.write('some'),
  'of a head': (res) => res.writeHead(200).flushHeaders(),
};
for (const [what, begin] of Object.entries(handlers)) {
  for (const [where, server] of Object.entries({
    'around the meter': (metered, customer) => (req, res) =>
      calls.run(customer, () => {
        metered(req, res);
        begin(res);
      }),
    'within the meter': (metered, customer) => (req, res) => {
      metered(req, res);
      calls.run(customer, () => begin(res));
    },
    'in Express': (_, customer, ingestion) =>
      express()
        .use(meterExpress(ingestion, options))
        .use((_, res) => calls.run(customer, () => begin(res))),
  })) {
    test(`a client leaves, ${what}, ${where}`, async () => {
      const ingestion = client();
      const customer = someone();
      const handle = server(meter(ingestion, options), customer, ingestion);
      const arrived = new Promise((resolve) => setTimeout(resolve, 100));
      const port = await listen(createServer(handle));
      await leave(port, '/', { begun: what === 'of what is written', arrived });
      const [{ metadata }] = await events(ingestion, customer);
      assert.deepEqual([metadata.status_code, metadata.aborted], [200, true]);
    });
  }
}

test('a client of HTTP/2 leaves', async () => {
  const ingestion = client();
  const customer = someone();
  const metered = meter(ingestion, options);
  const server = createHttp2Server((req, res) => {
    metered(req, res);
    calls.run(customer, () => res.write('some'));
  });
  const session = connect(`http://127.0.0.1:${await listen(server)}`);
  const stream = session.request({ ':path': '/' });
  await once(stream, 'data');
  stream.close();
  const [{ metadata }] = await events(ingestion, customer);
  assert.equal(metadata.aborted, true);
  session.destroy();
});

test('a WebSocket is closed', async () => {
  const ingestion = client();
  const customer = someone();
  const sockets = new WebSocketServer({ noServer: true });
  const server = createServer();
  server.on('upgrade', meter(ingestion, options).upgrade);
  server.on('upgrade', (req, socket, head) =>
    calls.run(customer, () => sockets.handleUpgrade(req, socket, head, () => {})),
  );
  const socket = new WebSocket(`ws://127.0.0.1:${await listen(server)}`);
  await once(socket, 'open');
  socket.terminate();
  const [{ metadata }] = await events(ingestion, customer);
  assert.equal(metadata.status_code, 101);
});

test('a body of a route handler is read where its request is over, as in Next.js', async () => {
  const ingestion = client();
  const customer = someone();
  const handler = meterNext(ingestion, options)(async () => new Response('a body'), {
    endpoint: '/',
  });
  const request = () => handler(new Request('http://127.0.0.1/'));
  const response = await calls.run(customer, request);
  assert.equal(await response.text(), 'a body');
  await (await calls.run(customer, request)).body.cancel();
  const found = await events(ingestion, customer, 2);
  assert.deepEqual(found.map(({ metadata }) => metadata.aborted).sort(), [true, undefined]);
});
