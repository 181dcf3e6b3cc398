// What handlers and callbacks say that nothing can be made of is left out and counted, and hurts nobody.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { ConfigurationError } from 'dodo-ingestion';
import { meter, setCustomer, setEndpoint, setMetadata, setUnits } from 'dodo-ingestion/http';
import express from 'express';
import { call, client, events, listen, someone } from './support.mjs';

/** The metadata of one call to a handler, and what the middleware counted. */
async function one(options, handle = () => {}) {
  const ingestion = client();
  const customer = someone();
  const metered = meter(ingestion, { onMissingCustomer: { default: customer }, ...options });
  const server = createServer((req, res) => {
    metered(req, res);
    handle(req);
    res.end('here');
  });
  const port = await listen(server);
  assert.equal((await call(port, '/')).status, 200);
  const [{ metadata }] = await events(ingestion, customer);
  const { response_time_ms, ttfb_ms, ...rest } = metadata;
  return { metadata: rest, stats: metered.stats() };
}

const PLAIN = { method: 'GET', status_code: 200, response_bytes: 4 };

class Pairs {
  plan = 'pro';
}

class NoPairs {
  get plan() {
    return 'pro';
  }
}

const NO_RECORDS = {
  'a Map': new Map([['plan', 'pro']]),
  Headers: new Headers({ plan: 'pro' }),
  'an array': ['pro'],
  text: 'pro',
  'what has getters alone': new NoPairs(),
};

for (const [name, value] of Object.entries(NO_RECORDS)) {
  test(`metadata: ${name} is no record`, async () => {
    assert.throws(
      () => meter(client(), { metadata: value }),
      (error) => error instanceof ConfigurationError && error.field === 'metadata',
    );
    const given = await one({ metadata: () => value });
    assert.deepEqual(given.metadata, PLAIN);
    assert.equal(given.stats.altered, 1);

    const said = await one({ metadata: { region: 'eu' } }, (req) => {
      setMetadata(req, value);
      setMetadata(req, { seats: 3 });
      setMetadata(req, value);
    });
    assert.deepEqual(said.metadata, { ...PLAIN, region: 'eu', seats: 3 });
    assert.equal(said.stats.altered, 2);
    const saidAlone = await one({}, (req) => setMetadata(req, value));
    assert.deepEqual([saidAlone.metadata, saidAlone.stats.altered], [PLAIN, 1]);
  });
}

test('metadata: what has own properties is a record, and nothing is none', async () => {
  const added = { ...PLAIN, plan: 'pro' };
  const bare = Object.assign(Object.create(null), { plan: 'pro' });
  for (const value of [new Pairs(), bare]) {
    for (const options of [{ metadata: value }, { metadata: () => value }]) {
      const { metadata, stats } = await one(options);
      assert.deepEqual([metadata, stats.altered], [added, 0]);
    }
    const { metadata, stats } = await one({}, (req) => setMetadata(req, value));
    assert.deepEqual([metadata, stats.altered], [added, 0]);
  }
  for (const value of [undefined, null, {}]) {
    const { metadata, stats } = await one({ metadata: () => value }, (req) =>
      setMetadata(req, value),
    );
    assert.deepEqual([metadata, stats.altered], [PLAIN, 0]);
  }
});

const UNREADABLE = {
  'a getter that throws': {
    get plan() {
      throw new Error('planted');
    },
  },
  'a proxy that throws': new Proxy(
    { plan: 'pro' },
    {
      getPrototypeOf() {
        throw new Error('planted');
      },
    },
  ),
};

for (const [name, value] of Object.entries(UNREADABLE)) {
  test(`metadata: ${name} is left out and counted, and the call is billed`, async () => {
    const given = await one({ metadata: () => value }, (req) => setMetadata(req, { seats: 3 }));
    assert.deepEqual([given.metadata, given.stats.altered], [{ ...PLAIN, seats: 3 }, 1]);
    const said = await one({ metadata: { region: 'eu' } }, (req) => {
      setMetadata(req, { seats: 3 });
      setMetadata(req, value);
    });
    assert.deepEqual(said.metadata, { ...PLAIN, region: 'eu', seats: 3 });
    assert.equal(said.stats.altered, 1);
  });
}

test('metadata: an option that cannot be read any more is left out and counted', async () => {
  const { metadata, stats } = await one({ metadata: UNREADABLE['a getter that throws'] });
  assert.deepEqual([metadata, stats.altered], [PLAIN, 1]);
});

test('an endpoint that cannot be read is none, and counted', async () => {
  const unreadable = Object.create(null);
  const given = await one({ endpoint: () => unreadable });
  assert.deepEqual([given.metadata, given.stats.failed], [PLAIN, 1]);
  const said = await one({ endpoint: () => '/known' }, (req) => setEndpoint(req, unreadable));
  assert.deepEqual([said.metadata, said.stats.failed], [{ endpoint: '/known', ...PLAIN }, 1]);
});

test('an empty endpoint is none', async () => {
  const endpointOf = async (...args) => (await one(...args)).metadata.endpoint;
  assert.equal(await endpointOf({ endpoint: () => '' }), undefined);
  assert.equal(await endpointOf({}, (req) => setEndpoint(req, '')), undefined);
  const known = { endpoint: () => '/known' };
  assert.equal(await endpointOf(known, (req) => setEndpoint(req, '')), '/known');
});

for (const [name, say, counted] of [
  ['setCustomer', setCustomer, { failed: 1 }],
  ['setUnits', setUnits, { altered: 1 }],
  ['setMetadata', setMetadata, { altered: 1 }],
  ['setEndpoint', setEndpoint, { failed: 1 }],
]) {
  test(`${name}: a promise is left out and counted, and may reject`, async (t) => {
    const unhandled = [];
    const hear = (reason) => unhandled.push(reason);
    process.on('unhandledRejection', hear);
    t.after(() => process.off('unhandledRejection', hear));
    const { metadata, stats } = await one({}, (req) => {
      say(req, Promise.reject(new Error('planted')));
    });
    assert.deepEqual(metadata, PLAIN);
    const { failed, altered } = stats;
    assert.deepEqual({ failed, altered }, { failed: 0, altered: 0, ...counted });
    assert.deepEqual(unhandled, []);
  });
}

test('what was said before a request is handed to an app of Express counts, and what is said there', async () => {
  const app = express();
  app.use((req, _, next) => {
    setMetadata(req, { plan: 'pro' });
    next();
  });
  app.get('/v1', (_, res) => {
    res.send('fine');
  });
  const ingestion = client();
  const customer = someone();
  const metered = meter(ingestion, { customer: () => customer });
  const server = createServer((req, res) => {
    metered(req, res);
    setUnits(req, 3);
    setEndpoint(req, '/v1');
    app(req, res);
  });
  await call(await listen(server), '/v1');
  const [{ metadata }] = await events(ingestion, customer);
  const { units, plan, endpoint, response_bytes } = metadata;
  assert.deepEqual(
    { units, plan, endpoint, response_bytes },
    { units: 3, plan: 'pro', endpoint: '/v1', response_bytes: 4 },
  );
});
