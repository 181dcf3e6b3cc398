// A server that answers and then has more to do, until it is killed. It tells its port.

const { createServer } = require('node:http');
const { Ingestion } = require('dodo-ingestion');
const say = require('./say.cjs');

const [framework] = process.argv.slice(2);
const ingestion = new Ingestion({ ...JSON.parse(process.env.OPTIONS), onAlarm() {} });
const { meter } = require(`dodo-ingestion/${framework}`);
const options = {
  customer: 'x-customer-id',
  metadata: (request) => ({ n: Number((request.req ?? request).headers['x-number']) }),
};

/** What an app does after its answer, before Node tells of the response's end. */
function work() {
  const until = performance.now() + 2;
  while (performance.now() < until);
}

const up = (server) => server.listen(0, '127.0.0.1', () => say(server.address().port));

const apps = {
  http() {
    const metered = meter(ingestion, options);
    up(
      createServer((request, response) => {
        metered(request, response);
        // Of what has a length, the client has the whole before the end.
        if (request.headers['x-number'] % 2) {
          response.setHeader('content-length', 8);
        } else {
          response.writeHead(200, { 'Content-Length': 8 });
        }
        response.write('answered');
        setImmediate(() => {
          work();
          response.end();
        });
      }),
    );
  },
  express() {
    const app = require('express')();
    app.use(meter(ingestion, options));
    app.get('/', (_, response) => {
      response.send('answered');
      work();
    });
    up(createServer(app));
  },
  async fastify() {
    const app = require('fastify')();
    app.register(meter(ingestion, options));
    app.get('/', (_, reply) => {
      reply.send('answered');
      work();
    });
    await app.ready();
    up(app.server);
  },
  koa() {
    const app = new (require('koa'))();
    app.use(meter(ingestion, options));
    app.use((context) => {
      context.body = 'answered';
      context.res.once('prefinish', work);
    });
    up(createServer(app.callback()));
  },
};

apps[framework]();
