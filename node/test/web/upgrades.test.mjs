// WebSockets of the frameworks that have something of their own for them: one call each, when they close.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { after, test } from 'node:test';
import websocket from '@fastify/websocket';
import { getRequestListener, serve, upgradeWebSocket } from '@hono/node-server';
import 'reflect-metadata';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ExpressAdapter } from '@nestjs/platform-express';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { WsAdapter } from '@nestjs/platform-ws';
import { SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import { meter as meterFastify } from 'dodo-ingestion/fastify';
import { meter as meterHono, setCustomer } from 'dodo-ingestion/hono';
import { meter as meterNode } from 'dodo-ingestion/http';
import { meter as meterKoa } from 'dodo-ingestion/koa';
import { meter as meterNest } from 'dodo-ingestion/nestjs';
import fastify from 'fastify';
import { Hono } from 'hono';
import Koa from 'koa';
import { WebSocket, WebSocketServer } from 'ws';
import { echo } from './suite.mjs';
import { client, events, listen, raw, someone } from './support.mjs';

const OPTIONS = { customer: 'x-customer-id' };
const ECHO = 'hello';

/** Says hello on a new connection, and closes it with the answer in hand. */
async function talk(port, path, customer, message = ECHO) {
  const headers = customer && { 'x-customer-id': customer };
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, { headers });
  const answered = new Promise((resolve, reject) => {
    socket.once('message', resolve);
    socket.once('error', reject);
  });
  socket.once('open', () => socket.send(message));
  const answer = String(await answered);
  socket.close();
  return answer;
}

async function metered(ingestion, customer, expected) {
  const [{ event_name: name, metadata }] = await events(ingestion, customer);
  assert.equal(name, 'api_call');
  assert.deepEqual([metadata.status_code, metadata.endpoint], [101, expected]);
  // A frame with the answer, and one that closes.
  assert.ok(metadata.response_bytes >= 4 + ECHO.length, `${metadata.response_bytes} bytes`);
}

for (const upgrades of [false, true]) {
  const how = upgrades ? ', of which upgrade has heard before' : '';
  test(`routes of @fastify/websocket${how}`, async () => {
    const ingestion = client();
    const app = fastify();
    after(() => app.close());
    if (upgrades) {
      app.server.on('upgrade', meterNode(ingestion, OPTIONS).upgrade);
    }
    app.register(meterFastify(ingestion, OPTIONS));
    app.register(websocket);
    app.register(async (instance) => {
      instance.get('/sockets/:id', { websocket: true }, (socket) => {
        socket.on('message', (data) => socket.send(String(data)));
      });
    });
    await app.listen({ host: '127.0.0.1', port: 0 });
    const customer = someone();
    assert.equal(await talk(app.server.address().port, '/sockets/1', customer), ECHO);
    await metered(ingestion, customer, '/sockets/:id');
  });
}

test('Fastify with a server of WebSockets beside it', async () => {
  const ingestion = client();
  const app = fastify();
  after(() => app.close());
  app.register(meterFastify(ingestion, OPTIONS));
  const { upgrade } = meterNode(ingestion, { ...OPTIONS, endpoint: () => '/socket' });
  await echo(app.server, upgrade);
  await app.listen({ host: '127.0.0.1', port: 0 });
  const customer = someone();
  assert.equal(await talk(app.server.address().port, '/socket', customer), ECHO);
  await metered(ingestion, customer, '/socket');
});

test('Koa', async () => {
  const ingestion = client();
  const server = createServer(new Koa().use(meterKoa(ingestion, OPTIONS)).callback());
  await echo(server, meterNode(ingestion, OPTIONS).upgrade);
  const port = await listen(server);
  const customer = someone();
  assert.equal(await talk(port, '/socket', customer), ECHO);
  await metered(ingestion, customer, undefined);
});

test('Hono, whose adapter asks the app', async () => {
  const ingestion = client();
  const app = new Hono();
  app.use((c, next) => {
    const told = c.req.query('told');
    if (told) {
      setCustomer(c, told);
    }
    return next();
  });
  app.use(meterHono(ingestion, { customer: (c) => c.req.header('x-customer-id') }));
  app.get(
    '/sockets/:id',
    upgradeWebSocket(() => ({ onMessage: ({ data }, socket) => socket.send(data) })),
  );
  app.get('/refused/:id', (c) => c.text('not you', 401));
  const wss = new WebSocketServer({ noServer: true });
  const server = serve({
    fetch: app.fetch,
    port: 0,
    hostname: '127.0.0.1',
    websocket: { server: wss },
  });
  after(() => server.close());
  await once(server, 'listening');
  const { port } = server.address();

  const customer = someone();
  assert.equal(await talk(port, '/sockets/1', customer), ECHO);
  await metered(ingestion, customer, '/sockets/:id');
  const told = someone();
  assert.equal(await talk(port, `/sockets/1?told=${told}`), ECHO);
  await metered(ingestion, told, '/sockets/:id');

  for (const [path, status, endpoint] of [
    ['/refused/1', 401, '/refused/:id'],
    ['/nowhere', 404, undefined],
  ]) {
    const refused = someone();
    const head = `GET ${path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n`;
    const answer = await raw(port, `${head}x-customer-id: ${refused}\r\n\r\n`, () => false);
    assert.match(answer, new RegExp(`^HTTP/1.1 ${status} `));
    const [{ event_name: name, metadata }] = await events(ingestion, refused);
    const { status_code: code, aborted } = metadata;
    assert.deepEqual([name, code, metadata.endpoint], ['api_error', status, endpoint]);
    assert.equal(aborted, undefined);
  }
});

/** An app of Hono's that is asked when `upgrade` has the connection in hand. */
async function heardBefore(options) {
  const ingestion = client();
  const customer = someone();
  const app = new Hono();
  app.use(meterHono(ingestion));
  app.get('/sockets/:id', (c) => {
    setCustomer(c, customer);
    return c.body(null);
  });
  const server = createServer(getRequestListener(app.fetch));
  server.on('upgrade', meterNode(ingestion, { ...OPTIONS, ...options }).upgrade);
  await echo(server, (incoming) => {
    const { url, headers } = incoming;
    app.request(url, { headers: new Headers(Object.entries(headers)) }, { incoming });
  });
  return { ingestion, customer, port: await listen(server) };
}

test('Hono, of which upgrade has heard before', async () => {
  const { ingestion, customer, port } = await heardBefore();
  assert.equal(await talk(port, '/sockets/1'), ECHO);
  await metered(ingestion, customer, '/sockets/:id');

  const named = await heardBefore({ endpoint: () => '/named' });
  assert.equal(await talk(named.port, '/sockets/1'), ECHO);
  await metered(named.ingestion, named.customer, '/named');
});

test('an answer that is written in pieces by who has wrapped the connection meanwhile', async () => {
  const ingestion = client();
  const server = createServer();
  server.on('upgrade', meterNode(ingestion, OPTIONS).upgrade);
  server.on('upgrade', (_, socket) => {
    for (const name of ['write', 'end']) {
      const method = socket[name];
      socket[name] = (...args) => method.apply(socket, args);
    }
    socket.write('HTTP/1.1 401 Unauthorized\r\nconnection: close\r\n\r\n');
    socket.end('denied');
  });
  const port = await listen(server);
  const customer = someone();
  const head = 'GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n';
  await raw(port, `${head}x-customer-id: ${customer}\r\n\r\n`, () => false);
  const [{ event_name: name, metadata }] = await events(ingestion, customer);
  assert.deepEqual([name, metadata.status_code], ['api_error', 401]);
  assert.equal(metadata.response_bytes, 'denied'.length);
});

class Gateway {
  hello(_socket, data) {
    return { event: 'hello', data };
  }
}
SubscribeMessage('hello')(
  Gateway.prototype,
  'hello',
  Object.getOwnPropertyDescriptor(Gateway.prototype, 'hello'),
);
WebSocketGateway({ path: '/gateway' })(Gateway);
class App {}
Module({ providers: [Gateway] })(App);

for (const [platform, Adapter] of [
  ['Express', ExpressAdapter],
  ['Fastify', FastifyAdapter],
]) {
  test(`a gateway of NestJS on ${platform}`, async () => {
    const ingestion = client();
    const app = await NestFactory.create(App, new Adapter(), {
      logger: false,
      forceCloseConnections: true,
    });
    after(() => app.close());
    meterNest(app, ingestion, OPTIONS);
    const { upgrade } = meterNode(ingestion, { ...OPTIONS, endpoint: () => '/gateway' });
    app.getHttpServer().on('upgrade', upgrade);
    app.useWebSocketAdapter(new WsAdapter(app));
    await app.listen(0, '127.0.0.1');
    const customer = someone();
    const { port } = app.getHttpServer().address();
    const message = JSON.stringify({ event: 'hello', data: 1 });
    assert.equal(await talk(port, '/gateway', customer, message), message);
    await metered(ingestion, customer, '/gateway');
  });
}
