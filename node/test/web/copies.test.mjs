// Two copies of the package in one process, as pnpm installs for two sets of peers: they know of each other's calls.

import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import * as express from 'dodo-ingestion/express';
import * as http from 'dodo-ingestion/http';
import app from 'express';
import { call, client, events, listen, someone } from './support.mjs';

const copy = mkdtempSync(join(tmpdir(), 'dodo-ingestion-copy-'));
after(() => rmSync(copy, { recursive: true, force: true }));
for (const name of ['package.json', 'dist', 'native']) {
  cpSync(join(import.meta.dirname, '../..', name), join(copy, name), { recursive: true });
}
const require = createRequire(join(copy, 'package.json'));
const others = {
  express: require('./dist/express.js'),
  http: require('./dist/http.js'),
};

test('the tests have two copies', () => {
  assert.notEqual(others.express.meter, express.meter);
});

test('what copies share has a number for its form', () => {
  client();
  const symbols = Object.getOwnPropertySymbols(process).map((symbol) => symbol.description ?? '');
  const shared = symbols.filter((name) => name.startsWith('dodo-ingestion.'));
  assert.ok(shared.length >= 3);
  assert.deepEqual(
    shared.filter((name) => !/\.\d+$/.test(name)),
    [],
  );
});

test('what is said with one copy is heard by the meter of the other', async () => {
  const customer = someone();
  const ingestion = client();
  const server = app().use(express.meter(ingestion));
  server.get('/users/:id', (req, res) => {
    others.express.setCustomer(req, customer);
    res.send('here');
  });
  await call(await listen(createServer(server)), '/users/7');
  const [{ metadata }, ...more] = await events(ingestion, customer);
  assert.deepEqual(more, []);
  assert.equal(metadata.endpoint, '/users/:id');
});

test('of a meter of each copy around a request the outer one meters', async () => {
  const [ingestion, customer] = [client(), someone()];
  const options = { onMissingCustomer: { default: customer } };

  const [outer, inner] = [express, others.express].map(({ meter }) => meter(ingestion, options));
  const server = app().use(outer).use('/api', inner);
  // What has made a request of its own has not made a response.
  server.use((req, res, next) => inner(Object.create(req), res, next));
  server.get('/api/here', (_, res) => res.send('here'));
  await call(await listen(createServer(server)), '/api/here');

  const [first, second] = [others.http, http].map(({ meter }) => meter(ingestion, options));
  const plain = createServer((req, res) => {
    first(req, res);
    second(req, res);
    second(Object.create(req), res);
    res.end('here');
  });
  await call(await listen(plain), '/');

  const billed = [outer, inner, first, second].map((metered) => metered.stats().billed);
  assert.deepEqual(billed, [1, 0, 1, 0]);
  await events(ingestion, customer, 2);
});

test('copies that meter parts of one app count its bytes once', async () => {
  const [ingestion, customer] = [client(), someone()];
  const options = { onMissingCustomer: { default: customer } };
  const server = app();
  server.use('/one', express.meter(ingestion, options));
  server.use('/two', others.express.meter(ingestion, options));
  server.get('/:part', (_, res) => res.send('here'));
  const port = await listen(createServer(server));
  for (const path of ['/one', '/two', '/one']) {
    await call(port, path);
  }
  assert.deepEqual(
    (await events(ingestion, customer, 3)).map(({ metadata }) => metadata.response_bytes),
    [4, 4, 4],
  );
});
