// Calls that cross to the core by their fields, and those that can only cross as events.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { meter, setEndpoint } from 'dodo-ingestion/http';
import { call, client, events, listen, someone } from './support.mjs';

async function serve(handle, options) {
  const ingestion = client();
  const customer = someone();
  const metered = meter(ingestion, { customer: () => customer, ...options });
  const server = createServer((req, res) => {
    metered(req, res);
    handle(req, res);
  });
  return { ingestion, port: await listen(server), customer, metered };
}

test('a call is the same, whether something is added to it or not', async () => {
  const handle = ({ url }, res) => {
    res.statusCode = Number(url.slice(1, 4));
    res.end('fine');
  };
  const orderOf = ({ metadata }) => `${metadata.status_code} ${metadata.endpoint}`;
  const asked = async (options) => {
    const { port, customer, ingestion } = await serve(handle, {
      endpoint: ({ url }) => (url.endsWith('/') ? undefined : '/:status'),
      ...options,
    });
    for (const path of ['/200', '/201/', '/404', '/404/', '/503']) {
      await call(port, path);
    }
    await call(port, '/202', { method: 'HEAD' });
    return (await events(ingestion, customer, 6))
      .sort((one, other) => orderOf(one).localeCompare(orderOf(other)))
      .map(({ event_name, metadata }) => {
        const { response_time_ms, ttfb_ms, ...rest } = metadata;
        assert.ok(response_time_ms >= ttfb_ms && ttfb_ms >= 0, JSON.stringify(metadata));
        for (const time of [response_time_ms, ttfb_ms]) {
          assert.equal(Number(time.toFixed(3)), time);
        }
        return { event_name, ...rest };
      });
  };
  const plain = await asked({});
  const added = await asked({ metadata: { region: 'eu' } });
  assert.deepEqual(
    added,
    plain.map((event) => ({ ...event, region: 'eu' })),
  );
  assert.equal(plain.filter(({ event_name }) => event_name === 'api_error').length, 2);
});

test('a call of a customer who cannot be billed is refused, and billed to nobody else', async () => {
  const customers = ['a lone \ud800', 'x'.repeat(256), 'x'.repeat(5_000), 'cus \u{1f600}'];
  const { port, ingestion, metered } = await serve((_, res) => res.end('fine'), {
    customer: ({ url }) => customers[Number(url.slice(1))],
  });
  for (const index of customers.keys()) {
    await call(port, `/${index}`);
  }
  await events(ingestion, customers.at(-1), 1);
  const { billed, errors, refused, failed } = metered.stats();
  assert.deepEqual(
    { billed, errors, refused, failed },
    { billed: 1, errors: 0, refused: 3, failed: 0 },
  );
  assert.equal(ingestion.stats().accepted, 1);
});

test('only a call whose fields have a place in a record crosses as one', () => {
  const ingestion = client();
  const plain = {
    method: 'GET',
    endpoint: '/v1',
    statusCode: 200,
    aborted: false,
    responseTimeMs: 1,
    responseBytes: 3,
  };
  const crosses = (customer, eventName, fields) =>
    ingestion.acceptsApiCall(customer, eventName, { ...plain, ...fields }, 0.5);
  const nothing = { endpoint: undefined, statusCode: undefined, responseBytes: undefined };
  assert.ok(crosses(someone()) && crosses(someone(), 'calls') && crosses(someone(), 'x', nothing));
  assert.equal(ingestion.stats().accepted, 3);
  assert.ok(!crosses('ü') && !crosses(someone(), 'Größe') && !crosses('x'.repeat(5_000)));
  for (const fields of [{ endpoint: '/ß' }, { statusCode: 200.5 }, { statusCode: -1 }]) {
    assert.ok(!crosses(someone(), undefined, fields));
  }
  assert.equal(ingestion.stats().accepted, 3);
});

test('text of any alphabet and of any length that fits arrives whole', async () => {
  const names = ['calls', 'Größe', 'x'.repeat(255), '\u{1f600}'.repeat(255)];
  const templates = ['/v1', '/straße/:名', `/${'x'.repeat(499)}`, `/${'ß'.repeat(499)}`];
  for (const eventName of names) {
    for (const customer of [someone(), `${someone()} ü`, someone().padEnd(255, '.')]) {
      const options = { eventName, customer: () => customer };
      const { port, ingestion } = await serve((req, res) => {
        setEndpoint(req, templates[Number(req.url.slice(1))]);
        res.end('fine');
      }, options);
      for (const index of templates.keys()) {
        await call(port, `/${index}`);
      }
      const found = await events(ingestion, customer, templates.length);
      assert.deepEqual(new Set(found.map(({ event_name }) => event_name)), new Set([eventName]));
      assert.deepEqual(new Set(found.map(({ metadata }) => metadata.endpoint)), new Set(templates));
    }
  }
});
