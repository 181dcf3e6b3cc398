import 'reflect-metadata';
import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { after, test } from 'node:test';
import { All, Controller, Get, Module, Param, Req, Res, StreamableFile } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ExpressAdapter } from '@nestjs/platform-express';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { meter, setCustomer, setUnits } from 'dodo-ingestion/nestjs';
import { arrivals, CHUNKS, suite } from './suite.mjs';
import { call, client, events, someone } from './support.mjs';

/** What TypeScript makes of decorators. */
function decorate(type, decorators, methods) {
  for (const [name, [own, ...parameters]] of Object.entries(methods)) {
    const descriptor = Object.getOwnPropertyDescriptor(type.prototype, name);
    for (const decorator of [].concat(own)) {
      decorator(type.prototype, name, descriptor);
    }
    parameters.forEach((decorator, index) => {
      decorator(type.prototype, name, index);
    });
  }
  for (const decorator of decorators) {
    decorator(type);
  }
  return type;
}

function moduleOf(here) {
  class Answers {
    status(code, res) {
      res.status(Number(code)).send('a body');
    }
    hang(code, res) {
      const raw = res.raw ?? res;
      res.hijack?.();
      raw.writeHead(Number(code)).write('some');
    }
    silent(req) {
      here(req.headers['x-customer-id']);
      return new Promise(() => {});
    }
    stream() {
      return new StreamableFile(Readable.from(CHUNKS.map((chunk) => Buffer.from(chunk))));
    }
    throws() {
      throw new Error('planted');
    }
    async rejects() {
      throw new Error('planted');
    }
    told(req) {
      setCustomer(req, req.headers['x-told']);
      setUnits(req, 12);
      return 'told';
    }
  }
  decorate(Answers, [Controller()], {
    status: [All('status/:code'), Param('code'), Res()],
    hang: [Get('hang/:code'), Param('code'), Res()],
    silent: [Get('silent'), Req()],
    stream: [Get('stream')],
    throws: [Get('throws')],
    rejects: [Get('rejects')],
    told: [Get('told'), Req()],
  });
  class Orders {
    one() {
      return 'an order';
    }
  }
  decorate(Orders, [Controller('users/:user/orders')], { one: [Get(':order')] });
  class App {}
  return decorate(App, [Module({ controllers: [Answers, Orders] })], {});
}

const platforms = { Express: () => new ExpressAdapter(), Fastify: () => new FastifyAdapter() };

for (const [platform, adapter] of Object.entries(platforms)) {
  const start = async (ingestion, options) => {
    const { arrived, here } = arrivals();
    const app = await NestFactory.create(moduleOf(here), adapter(), {
      logger: false,
      forceCloseConnections: true,
    });
    const { stats } = meter(app, ingestion, options);
    app.setGlobalPrefix('v1', {
      exclude: ['status/:code', 'hang/:code', 'silent', 'stream', 'throws', 'rejects', 'told'],
    });
    await app.listen(0, '127.0.0.1');
    after(() => app.close());
    return { port: app.getHttpServer().address().port, arrived, stats };
  };
  suite(`NestJS on ${platform}`, start, {
    endpoint: '/v1/users/:user/orders/:order',
    fallback: false,
  });

  test(`NestJS on ${platform}: what is not found under the prefix has no route`, async () => {
    const ingestion = client();
    const { port } = await start(ingestion, { customer: 'x-customer-id' });
    const customer = someone();
    await call(port, '/v1/nowhere', { headers: { 'x-customer-id': customer } });
    const [{ event_name: name, metadata }] = await events(ingestion, customer);
    assert.deepEqual([name, metadata.endpoint], ['api_error', undefined]);
  });
  test(`NestJS on ${platform}: what a middleware answers is a call`, async () => {
    const ingestion = client();
    class Gateway {
      use(_, res) {
        res.end('answered');
      }
    }
    class App {
      configure(consumer) {
        consumer.apply(Gateway).forRoutes('gateway');
      }
    }
    decorate(App, [Module({})], {});
    const app = await NestFactory.create(App, adapter(), { logger: false });
    const hooked = [];
    app.getHttpAdapter().setOnRequestHook((_, __, done) => {
      hooked.push('the own hook');
      done();
    });
    const { stats } = meter(app, ingestion, { customer: 'x-customer-id' });
    app.use('/used', (_, res) => res.end('used'));
    await app.listen(0, '127.0.0.1');
    after(() => app.close());
    const { port } = app.getHttpServer().address();
    const customer = someone();
    for (const path of ['/gateway', '/used']) {
      await call(port, path, { headers: { 'x-customer-id': customer } });
    }
    const found = await events(ingestion, customer, 2);
    assert.deepEqual(found.map(({ metadata }) => metadata.response_bytes).sort(), [4, 8]);
    assert.equal(stats().billed, 2);
    assert.equal(hooked.length, 2);
  });
}
