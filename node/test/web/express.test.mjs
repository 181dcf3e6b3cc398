import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { test } from 'node:test';
import compression from 'compression';
import { meter, setCustomer, setUnits } from 'dodo-ingestion/express';
import { meter as meterNode } from 'dodo-ingestion/http';
import express5 from 'express';
import express4 from 'express4';
import router22 from 'router22';
import { arrivals, CHUNKS, echo, suite } from './suite.mjs';
import { call, client, events, listen, raw, someone } from './support.mjs';

for (const [version, express] of [
  ['Express 4', express4],
  ['Express 5', express5],
]) {
  const start = async (ingestion, options) => {
    const { arrived, here } = arrivals();
    const metered = meter(ingestion, options);
    const app = express();
    app.use(metered);
    app.all('/status/:code', (req, res) => res.status(Number(req.params.code)).send('a body'));
    app.get('/hang/:code', (req, res) => res.status(Number(req.params.code)).write('some'));
    app.get('/silent', (req) => here(req.headers['x-customer-id']));
    app.get('/stream', async (_, res) => {
      for (const chunk of CHUNKS) {
        res.write(chunk);
        await new Promise(setImmediate);
      }
      res.end();
    });
    app.get('/throws', () => {
      throw new Error('planted');
    });
    app.get('/rejects', (_, __, next) => {
      const failed = Promise.reject(new Error('planted'));
      return express === express5 ? failed : failed.catch(next);
    });
    app.get('/told', (req, res) => {
      setCustomer(req, req.headers['x-told']);
      setUnits(req, 12);
      res.send('told');
    });
    const orders = express.Router({ mergeParams: true });
    orders.get('/:order', (_, res) => res.send('an order'));
    const users = express.Router();
    users.use('/:user/orders', orders);
    app.use('/v1/users', users);
    app.use('/fallback', (_, res) => res.send('fallback'));
    app.use((_error, _req, res, _next) => res.status(500).send('failed'));
    const server = createServer(app);
    await echo(server, meterNode(ingestion, options).upgrade);
    return { port: await listen(server), arrived, stats: metered.stats };
  };
  suite(version, start, { endpoint: '/v1/users/:user/orders/:order', upgrades: true });

  const endpointsOf = async (app, paths, ingestion) => {
    const port = await listen(createServer(app));
    const customers = paths.map(someone);
    for (const [index, path] of paths.entries()) {
      await call(port, path, { headers: { 'x-customer-id': customers[index] } });
    }
    const found = await Promise.all(customers.map((customer) => events(ingestion, customer)));
    return found.map(([{ metadata }]) => metadata.endpoint);
  };
  const answer = (_, res) => res.send('here');

  test(`${version}: templates of all kinds of mounts`, async () => {
    const ingestion = client();
    const app = express();
    app.use(meter(ingestion, { customer: 'x-customer-id' }));

    app.get(['/one/:id', '/two/:name'], answer);
    app.get(/^\/items\/(\d+)$/, answer);
    app.get('/', answer);

    const users = express.Router();
    users.get('/', answer);
    users.get('/broken', () => {
      throw new Error('planted');
    });
    // The value is the static part's text.
    app.use('/users/:id', users);
    app.use(['/apiKeys/:key', '/tokens/:token'], users);
    app.use(/^\/files\/\w+/, users);

    const admin = express();
    const inner = express.Router();
    inner.get('/:report', answer);
    admin.use('/reports/:year', inner);
    admin.get('/top/:id', answer);
    app.use('/admin/:tenant', admin);

    // A function that hands on: no one can see into it.
    app.use('/lazy', (req, res, next) => users(req, res, next));
    app.use((_error, _req, res, _next) => res.status(500).send('failed'));

    const paths = {
      '/one/secret': '/one/:id',
      '/two/secret': '/two/:name',
      '/items/42': '/^\\/items\\/(\\d+)$/',
      '/': '/',
      '/users/secret': '/users/:id',
      '/users/users': '/users/:id',
      '/USERS/secret%20x/': '/users/:id',
      '/users/secret/broken': '/users/:id/broken',
      '/APIKEYS/secret': '/apiKeys/:key',
      '/tokens/secret': '/tokens/:token',
      '/admin/secret/reports/2026/secret': '/admin/:tenant/reports/:year/:report',
      '/admin/secret/top/1?x=1': '/admin/:tenant/top/:id',
      '/lazy': '/lazy',
    };
    const found = await endpointsOf(app, Object.keys(paths), ingestion);
    assert.deepEqual(found, Object.values(paths));
    const [byRegExp] = await endpointsOf(app, ['/files/secret'], ingestion);
    assert.ok(!byRegExp.includes('secret'), byRegExp);
  });

  test(`${version}: templates of apps that a router mounts`, async () => {
    const ingestion = client();
    const ways = { '/api/adm/secret/in/secret': '/api/adm/:tenant/in/:item' };
    const root = express();
    const router = express.Router();
    const mounted = express();
    const within = express();
    mounted.get('/in/:item', answer);
    within.get('/deep/:item', answer);
    mounted.use('/w/:within', within);
    router.use('/adm/:tenant', mounted);
    root.use(meter(ingestion, { customer: 'x-customer-id' }));
    root.use('/api', router);
    ways['/api/adm/secret/w/secret/deep/secret'] = '/api/adm/:tenant/w/:within/deep/:item';

    // The middleware may be in an app that is mounted itself.
    const outer = express();
    outer.use('/outer/:region', root);
    for (const [path, template] of Object.entries(ways)) {
      ways[`/outer/secret${path}`] = `/outer/:region${template}`;
    }
    outer.use(root);
    assert.deepEqual(await endpointsOf(outer, Object.keys(ways), ingestion), Object.values(ways));
  });

  test(`${version}: a router of two apps has the template of each`, async () => {
    const ingestion = client();
    const users = express.Router();
    users.get('/users/:id', answer);
    const mounted = express();
    mounted.use('/teams', users);
    const routers = ['/:version', '/v1'].map((path) => {
      const app = express();
      app.use(meter(ingestion, { customer: 'x-customer-id' }));
      app.use(path, users);
      app.use(express.Router().use(path, mounted));
      return app;
    });
    const paths = ['/v1/users/1', '/v1/teams/users/1'];
    for (const _ of ['first', 'again']) {
      const [one, other] = [
        await endpointsOf(routers[0], paths, ingestion),
        await endpointsOf(routers[1], paths, ingestion),
      ];
      assert.deepEqual(one, ['/:version/users/:id', '/:version/teams/users/:id']);
      assert.deepEqual(other, ['/v1/users/:id', '/v1/teams/users/:id']);
    }
  });

  test(`${version}: what inherits from a request has its route`, async () => {
    const ingestion = client();
    const app = express();
    app.use(meter(ingestion, { customer: 'x-customer-id' }));
    app.get('/users/:id', (req, res) => {
      const derived = Object.create(req);
      const { path } = derived.route;
      derived.route = { path: '/mine' };
      res.send([path, derived.route.path, req.route.path].join());
    });
    app.use((req, res) => res.send(String(Object.create(req).route)));
    const port = await listen(createServer(app));
    const customer = someone();
    const bodies = [];
    for (const path of ['/users/1', '/nowhere']) {
      const { body } = await call(port, path, { headers: { 'x-customer-id': customer } });
      bodies.push(String(body));
    }
    assert.deepEqual(bodies, ['/users/:id,/mine,/users/:id', 'undefined']);
    const found = await events(ingestion, customer, 2);
    assert.deepEqual(found.map(({ metadata }) => metadata.endpoint).sort(), [
      '/users/:id',
      undefined,
    ]);
  });

  test(`${version}: compressed by a middleware further in, counted as sent`, async () => {
    const ingestion = client();
    const app = express();
    app.use(meter(ingestion, { customer: 'x-customer-id' }));
    app.use(compression({ threshold: 0 }));
    app.get('/', (_, res) => res.send('x'.repeat(10_000)));
    const port = await listen(createServer(app));
    const customer = someone();
    const headers = { 'x-customer-id': customer, 'accept-encoding': 'gzip' };
    const { body } = await call(port, '/', { headers });
    const [{ metadata }] = await events(ingestion, customer);
    assert.equal(metadata.response_bytes, body.length);
    assert.ok(body.length < 1_000);
  });

  test(`${version}: compressed by a middleware further out, counted as written`, async () => {
    const ingestion = client();
    const app = express();
    app.use(compression({ threshold: 0 }));
    app.use(meter(ingestion, { customer: 'x-customer-id' }));
    app.get('/', (_, res) => res.send('x'.repeat(10_000)));
    const port = await listen(createServer(app));
    const customer = someone();
    const headers = { 'x-customer-id': customer, 'accept-encoding': 'gzip' };
    assert.ok((await call(port, '/', { headers })).body.length < 1_000);
    const [{ metadata }] = await events(ingestion, customer);
    assert.equal(metadata.response_bytes, 10_000);
  });

  test(`${version}: two middleware count once`, async () => {
    const ingestion = client();
    const app = express();
    const metered = meter(ingestion, { customer: 'x-customer-id' });
    app.use(metered, metered);
    app.use(meter(ingestion, { customer: 'x-customer-id' }));
    app.get('/', answer);
    const [endpoint] = await endpointsOf(app, ['/'], ingestion);
    assert.equal(endpoint, '/');
  });

  test(`${version}: the route is known from the first request on, wherever the middleware stands`, async () => {
    const ingestion = client();
    const metered = () => meter(ingestion, { customer: 'x-customer-id' });
    const handsOn = (_req, _res, next) => next();

    const ofRoute = express();
    ofRoute.get('/users/:id', metered(), answer);
    const behind = express();
    behind.get('/users/:any', handsOn);
    behind.use(metered());
    behind.get('/users/:id', answer);
    const ofMounted = express();
    const mounted = express();
    mounted.use(metered());
    mounted.get('/:any', handsOn);
    ofMounted.use('/users', mounted);
    ofMounted.get('/users/:id', answer);

    for (const app of [ofRoute, behind, ofMounted]) {
      const endpoints = await endpointsOf(app, ['/users/1', '/users/2'], ingestion);
      assert.deepEqual(endpoints, ['/users/:id', '/users/:id']);
    }
  });

  test(`${version}: the route of an app that a function hands to is known`, async () => {
    const ingestion = client();
    const root = express();
    const handed = express();
    root.use(meter(ingestion, { customer: 'x-customer-id' }));
    root.use((req, res, next) => (req.url.startsWith('/users') ? handed(req, res, next) : next()));
    handed.get('/users/:id', answer);
    root.get('/others/:id', answer);
    const endpoints = await endpointsOf(root, ['/users/1', '/others/1', '/users/2'], ingestion);
    assert.deepEqual(endpoints, ['/users/:id', '/others/:id', '/users/:id']);
  });

  test(`${version}: what an app of another copy of Express answers is billed, with no wrong size`, async () => {
    const ingestion = client();
    const root = express();
    const handed = (express === express5 ? express4 : express5)();
    root.use(meter(ingestion, { customer: 'x-customer-id' }));
    root.use((req, res, next) => handed(req, res, next));
    handed.get('/', answer);
    const port = await listen(createServer(root));
    const sizes = [];
    for (const customer of [someone(), someone()]) {
      await call(port, '/', { headers: { 'x-customer-id': customer } });
      const [{ event_name: name, metadata }] = await events(ingestion, customer);
      assert.deepEqual(
        [name, metadata.status_code, metadata.aborted],
        ['api_call', 200, undefined],
      );
      sizes.push(metadata.response_bytes);
    }
    // What is handed on the first time may not be seen; what comes after it is.
    assert.ok([undefined, 4].includes(sizes[0]), sizes[0]);
    assert.equal(sizes[1], 4);
  });

  test(`${version}: what all responses inherit of the app's own is kept`, async () => {
    const ingestion = client();
    const app = express();
    const written = [];
    app.response.end = function (...args) {
      written.push(args[0]);
      return Object.getPrototypeOf(app.response).end.apply(this, args);
    };
    app.use(meter(ingestion, { customer: 'x-customer-id' }));
    app.get('/', (_, res) => res.end('a body'));
    const port = await listen(createServer(app));
    const customer = someone();
    const { body } = await call(port, '/', { headers: { 'x-customer-id': customer } });
    const [{ metadata }] = await events(ingestion, customer);
    assert.deepEqual([String(body), written, metadata.response_bytes], ['a body', ['a body'], 6]);
  });

  test(`${version}: a response goes on after an end that was refused`, async () => {
    const ingestion = client();
    const customer = someone();
    const app = express();
    app.use(meter(ingestion, { customer: () => customer }));
    app.get('/', (_, res) => res.end(7));
    app.use((error, _req, res, _next) => res.status(500).end(error.code));
    const { body } = await call(await listen(createServer(app)), '/');
    const [{ metadata }] = await events(ingestion, customer);
    assert.deepEqual(
      [String(body), metadata.status_code, metadata.response_bytes],
      ['ERR_INVALID_ARG_TYPE', 500, 20],
    );
  });

  test(`${version}: what takes whatever is left is no route for what is not found`, async () => {
    const ingestion = client();
    const customer = someone();
    const ways = ['guard', 'answer', 'mounted', /^\/nowhere\//, /^\/(?!users)/i, /^\/nowhere/];
    for (const way of ways) {
      const app = express();
      app.use(meter(ingestion, { customer: () => customer }));
      const all = express === express4 ? '*' : '/{*splat}';
      if (way === 'guard') {
        app.all(all, (_req, _res, next) => next());
      }
      if (way instanceof RegExp) {
        app.all(way, (_req, _res, next) => next());
      }
      app.get('/users/:id', (_, res) => res.status(404).end());
      app.get(/^\/orders\/(\d+)$/, (_, res) => res.status(404).end());
      if (way === 'answer') {
        app.get(all, (_, res) => res.status(404).end());
      }
      if (way === 'mounted') {
        const router = express.Router();
        router.all(express === express4 ? '*' : '*path', (_, res) => res.status(404).end());
        app.use('/nowhere', router);
      }
      const port = await listen(createServer(app));
      await call(port, '/nowhere/else');
      await call(port, '/users/1');
      await call(port, '/orders/1');
    }
    const found = (await events(ingestion, customer, 3 * ways.length)).map(
      ({ event_name: name, metadata }) => [name, metadata.endpoint].join(' '),
    );
    assert.deepEqual(found.sort(), [
      ...ways.map(() => 'api_call /^\\/orders\\/(\\d+)$/'),
      ...ways.map(() => 'api_call /users/:id'),
      ...ways.map(() => 'api_error '),
    ]);
  });

  test(`${version}: who waits in the pipeline when the connection closes`, async () => {
    const ingestion = client();
    const app = express();
    app.use(meter(ingestion, { customer: 'x-customer-id' }));
    app.get('/hang', (_, res) => res.write('some'));
    app.get('/behind', answer);
    const port = await listen(createServer(app));
    const customer = someone();
    const head = `host: x\r\nx-customer-id: ${customer}\r\n\r\n`;
    await raw(port, `GET /hang HTTP/1.1\r\n${head}GET /behind HTTP/1.1\r\n${head}`, (told) =>
      told.includes('some'),
    );
    for (const { metadata } of await events(ingestion, customer, 2)) {
      assert.equal(metadata.aborted, true);
    }
  });
}

test('Express 4: whatever is left is taken by templates of many spellings', async () => {
  const ingestion = client();
  const app = express4();
  const customer = someone();
  app.use(meter(ingestion, { customer: () => customer }));
  const answer = (_, res) => res.status(404).send('by a route');
  const takeAll = [
    '/star/*',
    '/named/:path*',
    '/any/:path(*)',
    '/none-too/:path(.*)',
    '/one-at-least/:path(.+)',
    /^\/by-regexp\/(.+)$/,
  ];
  const takeSome = ['/digits/:id(\\d+)', '/images/:path(.+\\.png)'];
  app.get([...takeAll, ...takeSome], answer);
  const port = await listen(createServer(app));
  const names = ['star', 'named', 'any', 'none-too', 'one-at-least', 'by-regexp'];
  for (const path of [...names.map((name) => `/${name}/a`), '/digits/1', '/images/a.png']) {
    assert.equal(String((await call(port, path)).body), 'by a route', path);
  }
  const found = (await events(ingestion, customer, 8)).map(({ event_name: name, metadata }) =>
    [name, metadata.endpoint].join(' '),
  );
  assert.deepEqual(found.sort(), [
    ...takeSome.map((template) => `api_call ${template}`),
    ...takeAll.map(() => 'api_error '),
  ]);
});

test('Express 5 before its router kept templates', async () => {
  const ingestion = client();
  const metered = meter(ingestion, { customer: 'x-customer-id' });
  const answer = (_, res) => res.end('here');
  const root = router22();
  const users = router22();
  users.get('/', answer);
  users.get(['/one/:item', '/two/:item'], answer);
  root.use(metered);
  root.use('/Users/:id', users);
  root.use('/files/*rest', users);
  root.use('/teams/:one-:two', users);
  // What Express adds to a router.
  const app = Object.assign(() => {}, { router: root, mountpath: '/' });
  const server = createServer((req, res) => {
    req.app = app;
    root(req, res, () => res.writeHead(404).end());
  });
  const port = await listen(server);
  const paths = {
    '/Users/secret': '/users/:id',
    '/USERS/secret%20x/one/secret': '/users/:id/one/:item',
    '/users/secret/two/secret': '/users/:id/two/:item',
    // A value that is the text of the static part: nothing is told of it.
    '/users/users': '/:id/:id',
    '/users/e': '/users/:id',
    '/users/Secret%2FPlan/one/secret': '/users/:id/one/:item',
    '/files/secret/secret2': '/files/*rest',
    '/files/secret%2Fsecret2/secret3': '/files/*rest',
    '/teams/secret-secret2': '/teams/*',
  };
  const customers = Object.keys(paths).map(someone);
  for (const [index, path] of Object.keys(paths).entries()) {
    await call(port, path, { headers: { 'x-customer-id': customers[index] } });
  }
  const found = await Promise.all(customers.map((customer) => events(ingestion, customer)));
  const endpoints = found.map(([{ metadata }]) => metadata.endpoint);
  assert.deepEqual(endpoints, Object.values(paths));
});
