// WebSockets of the frameworks that have something of their own for them: one call each, when they close.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, test } from 'node:test';
import websocket from '@fastify/websocket';
import { getRequestListener } from '@hono/node-server';
import 'reflect-metadata';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ExpressAdapter } from '@nestjs/platform-express';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { WsAdapter } from '@nestjs/platform-ws';
import { SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import { meter as meterFastify } from 'dodo-ingestion/fastify';
import { meter as meterHono, setCustomer } from 'dodo-ingestion/hono';
import { meter as meterKoa } from 'dodo-ingestion/koa';
import { meter as meterNest } from 'dodo-ingestion/nestjs';
import fastify from 'fastify';
import { Hono } from 'hono';
import Koa from 'koa';
import { WebSocket } from 'ws';
import { echo } from './suite.mjs';
import { client, events, listen, someone } from './support.mjs';

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
    const plugin = meterFastify(ingestion, OPTIONS);
    if (upgrades) {
      app.server.on('upgrade', plugin.upgrade);
    }
    app.register(plugin);
    app.register(websocket);
    app.register(async (instance) => {
      instance.get('/sockets/:id', { websocket: true }, (socket) => {
        socket.on('message', (data) => socket.send(String(data)));
      });
    });
    await app.listen({ host: '127.0.0.1', port: 0 });
    const customer = someone();
    assert.equal(await talk(app.server.address().port, '/sockets/1', customer), ECHO);
    await metered(ingestion, customer, upgrades ? undefined : '/sockets/:id');
  });
}

test('Fastify with a server of WebSockets beside it', async () => {
  const ingestion = client();
  const app = fastify();
  after(() => app.close());
  const plugin = meterFastify(ingestion, { ...OPTIONS, endpoint: () => '/socket' });
  app.register(plugin);
  await echo(app.server, plugin.upgrade);
  await app.listen({ host: '127.0.0.1', port: 0 });
  const customer = someone();
  assert.equal(await talk(app.server.address().port, '/socket', customer), ECHO);
  await metered(ingestion, customer, '/socket');
});

test('Koa', async () => {
  const ingestion = client();
  const middleware = meterKoa(ingestion, OPTIONS);
  const server = createServer(new Koa().use(middleware).callback());
  await echo(server, middleware.upgrade);
  const port = await listen(server);
  const customer = someone();
  assert.equal(await talk(port, '/socket', customer), ECHO);
  await metered(ingestion, customer, undefined);
});

test('Hono, whose adapter asks the app', async () => {
  const ingestion = client();
  const middleware = meterHono(ingestion);
  const customer = someone();
  const app = new Hono();
  app.use(middleware);
  app.get('/sockets/:id', (c) => {
    setCustomer(c, customer);
    return c.body(null);
  });
  const server = createServer(getRequestListener(app.fetch));
  server.on('upgrade', middleware.upgrade);
  await echo(server, (incoming) => {
    app.request(incoming.url, { headers: incoming.headers }, { incoming });
  });
  const port = await listen(server);
  assert.equal(await talk(port, '/sockets/1'), ECHO);
  await metered(ingestion, customer, '/sockets/:id');
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
    const { upgrade } = meterNest(app, ingestion, { ...OPTIONS, endpoint: () => '/gateway' });
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
