// A server of one route, until standard input ends. It prints its port when it is up, and at its end
// the processor time that it took since it was last told to measure.

import { once } from 'node:events';
import express from 'express';
import fastify from 'fastify';
import { ours, PATIENCE } from './clients.mjs';
import { run, tell } from './contender.mjs';

const METERED = { customer: 'x-customer-id' };

function expressApp(...middleware) {
  const app = express();
  for (const one of middleware) {
    app.use(one);
  }
  app.get('/v1/users/:id', (_, response) => {
    response.type('text').send('a user');
  });
  return app.listen(0, '127.0.0.1');
}

async function fastifyApp(...plugins) {
  const app = fastify();
  for (const one of plugins) {
    app.register(one);
  }
  app.get('/v1/users/:id', async () => 'a user');
  await app.ready();
  return app.server.listen(0, '127.0.0.1');
}

/** Serves until nobody asks any more. */
async function serve(server) {
  if (!server.listening) {
    await once(server, 'listening');
  }
  tell({ port: server.address().port });
  let cpu = process.cpuUsage();
  for await (const _ of process.stdin) {
    cpu = process.cpuUsage();
  }
  const { user, system } = process.cpuUsage(cpu);
  server.close();
  server.closeAllConnections();
  return { cpu_seconds: (user + system) / 1e6 };
}

/** Sees the end of each response, and does nothing. */
function seeing(response) {
  response.on('finish', () => {});
  response.on('close', () => {});
}

function expressSeeing(_, response, next) {
  seeing(response);
  next();
}

function fastifySeeing(instance, _, done) {
  instance.addHook('onRequest', (_request, reply, next) => {
    seeing(reply.raw);
    next();
  });
  done();
}
fastifySeeing[Symbol.for('skip-override')] = true;

async function metered(options, app, framework) {
  const { meter } = await import(`../../node/dist/${framework}.mjs`);
  const ingestion = await ours(options);
  const measured = await serve(await app(meter(ingestion, METERED)));
  await ingestion.close(PATIENCE);
  return measured;
}

await run({
  express: () => serve(expressApp()),
  'express-seeing': () => serve(expressApp(expressSeeing)),
  'express-ours': (options) => metered(options, expressApp, 'express'),
  fastify: async () => serve(await fastifyApp()),
  'fastify-seeing': async () => serve(await fastifyApp(fastifySeeing)),
  'fastify-ours': (options) => metered(options, fastifyApp, 'fastify'),
});
