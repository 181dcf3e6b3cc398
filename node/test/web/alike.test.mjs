// What the middlewares of all languages make of the same.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { ConfigurationError } from 'dodo-ingestion';
import { meter as expressMeter } from 'dodo-ingestion/express';
import { meter, setCustomer, setMetadata } from 'dodo-ingestion/http';
import express from 'express';
import { call, client, events, listen, raw, someone } from './support.mjs';

const VECTORS = new URL('../../../tests/vectors/metering.json', import.meta.url);
const { headers, said, own_keys: ownKeys, room } = JSON.parse(readFileSync(VECTORS, 'utf8'));

/** A server whose calls are metered. */
async function serve(handle, options = {}) {
  const ingestion = client();
  const metered = meter(ingestion, { customer: 'x-customer-id', ...options });
  const server = createServer((req, res) => {
    metered(req, res);
    handle(req);
    res.end('here');
  });
  return { ingestion, port: await listen(server), stats: metered.stats };
}

test('a header names the customer', async () => {
  assert.ok(headers.length >= 15);
  for (const { values, customer } of headers) {
    const { ingestion, port, stats } = await serve(() => {});
    // A customer of this test's own.
    const own = someone();
    const lines = values.map((value) => `x-customer-id: ${value.replaceAll('cus', own)}\r\n`);
    const head = `GET / HTTP/1.1\r\nhost: x\r\n${lines.join('')}connection: close\r\n\r\n`;
    await raw(port, Buffer.from(head, 'latin1'), () => false);
    const { billed, missingCustomer } = stats();
    const expected = customer === null ? [0, 1] : [1, 0];
    assert.deepEqual([billed, missingCustomer], expected, JSON.stringify(values));
    if (customer !== null) {
      await events(ingestion, customer.replace('cus', own));
    }
  }
});

test('a word names the customer', async () => {
  for (const word of said) {
    const [own, header] = [someone(), someone()];
    const { ingestion, port } = await serve((req) => {
      setCustomer(req, word.said.replace('cus', own));
    });
    await call(port, '/', { headers: { 'x-customer-id': header } });
    await events(ingestion, word.customer?.replace('cus', own) ?? header);
    const asked = await serve(() => {}, { customer: () => word.said.replace('cus', own) });
    await call(asked.port, '/');
    assert.equal(asked.stats().billed, word.customer === null ? 0 : 1);
  }
});

test('the keys of the middleware, and the room for others', async () => {
  const keys = Array.from({ length: 60 }, (_, index) => `k${String(index).padStart(2, '0')}`);
  const pairs = Object.fromEntries([...ownKeys, ...keys].map((key) => [key, 'mine']));
  const { ingestion, port } = await serve((req) => setMetadata(req, pairs));
  const customer = someone();
  await call(port, '/', { headers: { 'x-customer-id': customer } });
  const [{ metadata }] = await events(ingestion, customer);
  const mine = Object.keys(metadata).filter((key) => metadata[key] === 'mine');
  assert.deepEqual(mine, keys.slice(0, room));
});

test('a HEAD that no route of Express answers is an error, as its GET is', async () => {
  const ingestion = client();
  const app = express();
  app.use(expressMeter(ingestion, { customer: 'x-customer-id' }));
  app.post('/orders', (_, res) => res.send('posted'));
  app.get('/users', (_, res) => res.send('users'));
  const server = createServer(app);
  const port = await listen(server);
  for (const [method, path, name, endpoint] of [
    ['GET', '/orders', 'api_error', undefined],
    ['HEAD', '/orders', 'api_error', undefined],
    ['HEAD', '/users', 'api_call', '/users'],
  ]) {
    const customer = someone();
    await call(port, path, { method, headers: { 'x-customer-id': customer } });
    const [event] = await events(ingestion, customer);
    assert.deepEqual([event.event_name, event.metadata.endpoint], [name, endpoint], method + path);
  }
});

test('a name that no event can have is refused when the middleware is made', () => {
  const long = 'x'.repeat(256);
  for (const [field, options] of [
    ['eventName', { eventName: long }],
    ['errorEventName', { errorEventName: long }],
    ['onMissingCustomer', { onMissingCustomer: { default: long } }],
  ]) {
    assert.throws(
      () => meter(client(), options),
      (error) => error instanceof ConfigurationError && error.field === field,
    );
    const value = '😀'.repeat(255);
    meter(client(), { [field]: field === 'onMissingCustomer' ? { default: value } : value });
  }
});
