// What every middleware promises, run against one framework's app.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { call, client, events, eventually, keepAlive, leave, raw, someone } from './support.mjs';

const { cases } = JSON.parse(
  readFileSync(new URL('../../../tests/vectors/metering.json', import.meta.url), 'utf8'),
);

const HEADER = 'x-customer-id';

/** Answers of the apps: what is streamed, and the statuses that are asked for. */
export const CHUNKS = ['a', 'é', 'c'].map((letter) => letter.repeat(1000));
export const STREAMED = CHUNKS.join('');

/**
 * `start(ingestion, options)` gives the port of an app, its middleware, and what the app has in hand:
 *
 * ALL /status/:code · GET /hang/:code (a head, some bytes, no end) · GET /silent (nothing) · GET /stream ·
 * GET /throws · GET /rejects · GET /told (`setCustomer` by the header `x-told`, 12 units) ·
 * GET /v1/users/:user/orders/:order (of nested routers) · GET /fallback (answered, and by no route).
 * Not every framework has a fallback, an answer to what is unmatched that can be metered, or upgrades.
 *
 * `arrived(customer)` resolves when a request to `/silent` with this customer has arrived.
 */
export function suite(
  name,
  start,
  { endpoint, upgrades = false, fallback = true, unmatched = true } = {},
) {
  const run = async (options = {}, connect = {}) => {
    const ingestion = client(connect);
    const app = await start(ingestion, { customer: HEADER, ...options });
    return { ingestion, ...app };
  };
  const as = (customer) => ({ headers: { [HEADER]: customer } });

  test(`${name}: the decisions of all languages`, async () => {
    const { ingestion, port, arrived } = await run();
    const expected = [];
    for (const vector of cases) {
      const { method, status, matched, aborted } = vector;
      const customer = someone();
      const options = { method, ...as(customer) };
      if (status === 101 || (!matched && !unmatched) || (!matched && status === 200 && !fallback)) {
        continue;
      }
      expected.push({ ...vector, customer });
      if (aborted) {
        const path = status === null ? '/silent' : `/hang/${status}`;
        await leave(port, path, { ...options, begun: status !== null, arrived: arrived(customer) });
      } else {
        const path = matched ? `/status/${status}` : status === 200 ? '/fallback' : '/nowhere/42';
        const answer = await call(port, path, options);
        if (method !== 'OPTIONS') {
          assert.equal(answer.status, status, vector.name);
        }
      }
    }
    const written = await Promise.all(
      expected.map(({ customer, event }) => events(ingestion, customer, event === 'none' ? 0 : 1)),
    );
    for (const [index, { event, ...vector }] of expected.entries()) {
      const [found] = written[index];
      if (event === 'none') {
        continue;
      }
      const { event_name: eventName, metadata } = found;
      assert.equal(eventName, event === 'billed' ? 'api_call' : 'api_error', vector.name);
      assert.equal(metadata.method, vector.method);
      assert.equal(metadata.status_code, vector.status ?? undefined, vector.name);
      assert.equal(metadata.aborted, vector.aborted || undefined, vector.name);
      assert.equal('endpoint' in metadata, vector.matched, `${vector.name}: ${metadata.endpoint}`);
      assert.equal(typeof metadata.response_time_ms, 'number');
      assert.equal('ttfb_ms' in metadata, vector.status !== null);
      const empty = vector.method === 'HEAD' || vector.status === 204 || vector.status === 304;
      if (vector.status === null) {
        assert.ok(!('response_bytes' in metadata));
      } else if (empty) {
        assert.equal(metadata.response_bytes, 0, vector.name);
      } else {
        assert.ok(metadata.response_bytes > 0, vector.name);
      }
    }
  });

  test(`${name}: the template of nested routers, never the path`, async () => {
    const { ingestion, port } = await run();
    const customer = someone();
    await call(port, '/v1/users/secret-42/orders/secret-7?token=secret', as(customer));
    const [{ metadata }] = await events(ingestion, customer);
    assert.equal(metadata.endpoint, endpoint);
    assert.ok(!JSON.stringify(metadata).includes('secret'));
  });

  test(`${name}: streams, over one connection`, async () => {
    const { ingestion, port } = await run();
    const customer = someone();
    const agent = keepAlive();
    for (let count = 0; count < 3; count += 1) {
      const { body } = await call(port, '/stream', { ...as(customer), agent });
      assert.equal(body.toString(), STREAMED);
    }
    agent.destroy();
    for (const { metadata } of await events(ingestion, customer, 3)) {
      assert.equal(metadata.response_bytes, Buffer.byteLength(STREAMED));
      assert.ok(metadata.ttfb_ms <= metadata.response_time_ms);
      assert.ok(!('aborted' in metadata));
    }
  });

  test(`${name}: pipelined requests`, async () => {
    const { ingestion, port } = await run();
    const customer = someone();
    const one = `GET /stream HTTP/1.1\r\nhost: x\r\n${HEADER}: ${customer}\r\n\r\n`;
    const two = `GET /status/201 HTTP/1.1\r\nhost: x\r\n${HEADER}: ${customer}\r\n\r\n`;
    await raw(port, one + two, (answer) => /HTTP\/1.1 201/.test(answer));
    const found = await events(ingestion, customer, 2);
    const statuses = found.map(({ metadata }) => metadata.status_code);
    assert.deepEqual(statuses.sort(), [200, 201]);
  });

  test(`${name}: errors`, async () => {
    const { ingestion, port } = await run();
    const customer = someone();
    assert.equal((await call(port, '/throws', as(customer))).status, 500);
    assert.equal((await call(port, '/rejects', as(customer))).status, 500);
    const found = await events(ingestion, customer, 2);
    assert.deepEqual(
      found.map((event) => event.event_name),
      ['api_error', 'api_error'],
    );
    const endpoints = found.map(({ metadata }) => metadata.endpoint).sort();
    assert.deepEqual(endpoints, ['/rejects', '/throws']);
  });

  test(`${name}: whose call it is`, async () => {
    const ids = Array.from({ length: 5 }, someone);
    const [told, header, called, awaited, other] = ids;

    const byHeader = await run();
    await call(byHeader.port, '/told', { headers: { [HEADER]: 'cus_nobody', 'x-told': told } });
    await call(byHeader.port, '/status/200', as(` ${header} `));
    const [{ metadata }] = await events(byHeader.ingestion, told);
    assert.equal(metadata.units, 12);
    await events(byHeader.ingestion, header);

    const byCallback = await run({ customer: () => called });
    await call(byCallback.port, '/status/200');
    await events(byCallback.ingestion, called);

    const later = await run({ customer: async (_, { endpoint }) => endpoint && awaited });
    await call(later.port, '/status/200');
    await events(later.ingestion, awaited);

    const instead = await run({ onMissingCustomer: { default: other } });
    await call(instead.port, '/status/200');
    await events(instead.ingestion, other);

    const nobody = await run();
    await call(nobody.port, '/status/200');
    await call(nobody.port, '/status/500');
    // A gateway that adds its own puts that of the client first.
    const [chosen, added] = [someone(), someone()];
    for (const value of [[chosen, added], `${chosen},${added}`, `${chosen},`]) {
      await call(nobody.port, '/status/200', as(value));
    }
    await eventually(() => nobody.stats().missingCustomer === 4);
    await events(nobody.ingestion, chosen, 0);
    await events(nobody.ingestion, added, 0);
  });

  test(`${name}: what is left out, and what is added`, async () => {
    const { ingestion, port, stats } = await run({
      exclude: ['/status/*', '/nowhere'],
      skip: (_, { statusCode }) => statusCode === 204,
      metadata: (_, { endpoint }) => ({
        route: endpoint,
        long: `${'x'.repeat(499)}😀😀`,
        status_code: 1,
        lone: '\ud800',
      }),
      units: () => 3,
      eventName: 'other_call',
    });
    const customer = someone();
    await call(port, '/status/200', as(customer));
    await call(port, '/nowhere', as(customer));
    await call(port, '/stream', as(customer));
    const [event] = await events(ingestion, customer);
    assert.equal(event.event_name, 'other_call');
    assert.equal(event.metadata.units, 3);
    assert.equal(event.metadata.route, '/stream');
    assert.equal(event.metadata.long, `${'x'.repeat(499)}😀`);
    assert.equal(event.metadata.status_code, 200);
    assert.equal(event.metadata.lone, '\ufffd');
    assert.equal(stats().altered, 3);

    const skipping = await run({ skip: () => true });
    await call(skipping.port, '/stream', as(customer));
    const quiet = await run({ errorEventName: null, billStatus: (status) => status === 402 });
    await call(quiet.port, '/status/200', as(customer));
    const paid = someone();
    await call(quiet.port, '/status/402', as(paid));
    await events(quiet.ingestion, paid);
    await events(ingestion, customer, 1);
  });

  test(`${name}: the response is served, whatever fails`, async () => {
    const fails = () => {
      throw new Error('planted');
    };
    const customer = someone();
    const callbacks = { metadata: fails, units: fails, skip: fails, billStatus: fails };
    const failing = await run({ ...callbacks, endpoint: fails });
    assert.equal((await call(failing.port, '/stream', as(customer))).status, 200);
    const [event] = await events(failing.ingestion, customer);
    assert.equal(event.event_name, 'api_call');
    await eventually(() => failing.stats().failed === 5);

    const promising = await run({ metadata: async () => fails(), skip: async () => true });
    const patient = someone();
    assert.equal((await call(promising.port, '/stream', as(patient))).status, 200);
    await events(promising.ingestion, patient);

    const rejecting = await run({ customer: async () => fails() });
    assert.equal((await call(rejecting.port, '/stream')).status, 200);
    await eventually(
      () => rejecting.stats().failed === 1 && rejecting.stats().missingCustomer === 1,
    );

    const closed = await run();
    await closed.ingestion.close({ timeout: 5_000 });
    assert.equal((await call(closed.port, '/stream', as(customer))).status, 200);
    await eventually(() => closed.stats().refused === 1);
  });

  if (upgrades) {
    test(`${name}: an upgraded connection is one call`, async () => {
      const { ingestion, port } = await run({ endpoint: () => '/socket' });
      const { WebSocket } = await import('ws');
      const customer = someone();
      const socket = new WebSocket(`ws://127.0.0.1:${port}/socket/42`, as(customer));
      const answered = new Promise((resolve) => socket.once('message', resolve));
      socket.once('open', () => socket.send('hello'));
      assert.equal(String(await answered), 'hello');
      socket.close();
      const [{ event_name: eventName, metadata }] = await events(ingestion, customer);
      assert.equal(eventName, 'api_call');
      assert.equal(metadata.status_code, 101);
      assert.equal(metadata.endpoint, '/socket');
      // A frame with five bytes, and one that closes.
      assert.equal(metadata.response_bytes, 7 + 2);
      assert.ok(metadata.response_time_ms >= metadata.ttfb_ms);
      assert.ok(!('aborted' in metadata));

      const refused = someone();
      const other = new WebSocket(`ws://127.0.0.1:${port}/refused`, as(refused));
      await new Promise((resolve) => other.once('error', resolve));
      const [{ event_name: errorName, metadata: told }] = await events(ingestion, refused);
      assert.deepEqual([errorName, told.status_code], ['api_error', 403]);
    });
  }
}

/** Resolves for those who wait for a request of a customer to arrive. */
export function arrivals() {
  const waiting = new Map();
  return {
    arrived: (customer) => new Promise((resolve) => waiting.set(customer, resolve)),
    here: (customer) => waiting.get(customer)?.(),
  };
}

/** Echoes on upgraded connections, and refuses others. */
export async function echo(server, upgrade) {
  const { WebSocketServer } = await import('ws');
  const sockets = new WebSocketServer({ noServer: true });
  sockets.on('connection', (socket) => socket.on('message', (data) => socket.send(String(data))));
  server.on('upgrade', upgrade);
  server.on('upgrade', (req, socket, head) => {
    if (req.url === '/refused') {
      socket.end('HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\n');
    } else {
      sockets.handleUpgrade(req, socket, head, (each) => sockets.emit('connection', each));
    }
  });
}
