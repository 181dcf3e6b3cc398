// What is billed besides calls, and what programs of the existing package use besides.

import assert from 'node:assert/strict';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { test } from 'node:test';
import {
  createBatch,
  createLLMTracker,
  DodoClient,
  DodoIngestionError,
  ProviderError,
  trackAPICall,
  trackObjectStorage,
  trackStreamBytes,
  trackTimeRange,
  ValidationError,
} from 'dodo-ingestion';
import { startMeter } from './meter.mjs';

const meter = await startMeter();
const ingestion = meter.connect();

async function metadataOf(customerId) {
  await ingestion.flush({ timeout: 120_000 });
  return (await meter.events(customerId)).map(({ metadata }) => metadata);
}

const BILLED = [
  [trackObjectStorage, { bytes: 7 }, { bytes: 7 }],
  [
    trackObjectStorage,
    { bytes: 2n ** 40n, metadata: { bucket: 'b' } },
    { bytes: 2 ** 40, bucket: 'b' },
  ],
  [trackStreamBytes, { bytes: 7, metadata: { bytes: 8 } }, { bytes: 8 }],
  [
    trackTimeRange,
    { durationMs: 1.5, durationSeconds: 0 },
    { durationMs: 1.5, durationSeconds: 0 },
  ],
  [trackTimeRange, { durationMinutes: null }, null],
];
for (const [index, [verb, options, expected]] of BILLED.entries()) {
  test(`billed: ${verb.name} ${index}`, async () => {
    const customerId = `cus_sibling_${index}`;
    await verb(ingestion, { customerId, ...options });
    assert.deepEqual(await metadataOf(customerId), [expected]);
  });
}

const REFUSED = [
  [trackObjectStorage, 'bytes', [-1, 1.5, Number.NaN, '7', {}]],
  [trackStreamBytes, 'bytes', [2 ** 60, true, -1n]],
  [trackTimeRange, 'durationMs', [-1, Number.NaN, Number.POSITIVE_INFINITY, '7', 1n]],
];
for (const [verb, field, values] of REFUSED) {
  for (const value of values) {
    test(`refused: ${verb.name} ${typeof value} ${value}`, async () => {
      await assert.rejects(verb(ingestion, { customerId: 'cus_1', [field]: value }), (error) => {
        assert.ok(error instanceof ValidationError && error instanceof DodoIngestionError);
        assert.deepEqual(
          [error.field, error.code, error.statusCode, error.details],
          [field, 'VALIDATION_ERROR', 400, { field }],
        );
        return true;
      });
    });
  }
}

test('a verb refuses by its receipt, and names what is no part of a call', async () => {
  await assert.rejects(trackStreamBytes(ingestion, { customerId: 'cus_1', byte: 7 }), /byte/);
  await assert.rejects(trackObjectStorage(ingestion), ValidationError);
});

test('metadata is read at the call', async () => {
  const customerId = 'cus_mutated';
  const metadata = { n: 1, at: new Date(0), big: 2n, gone: undefined, none: null };
  const receipt = trackAPICall(ingestion, { customerId, metadata });
  metadata.n = 2;
  metadata.at.setTime(1);
  metadata.more = true;
  await receipt;
  assert.deepEqual(await metadataOf(customerId), [
    { n: 1, at: '1970-01-01T00:00:00.000Z', big: 2 },
  ]);
});

test('an option that there is not is refused, with the nearest', async () => {
  assert.throws(() => createBatch(ingestion, { flushIntervall: 5 }), {
    code: 'CONFIGURATION_ERROR',
    message: /nearest is flushInterval/,
  });
  await assert.rejects(ingestion.flush({ timout: 5 }), /nearest is timeout/);
});

test('a wait ends by a signal, and what was accepted stays', async () => {
  const lost = meter.connect({ baseUrl: 'http://127.0.0.1:9', account: 'lost' });
  const receipt = trackAPICall(lost, { customerId: 'cus_signal' });
  const batch = createBatch(lost);
  const reason = new Error('enough');
  const stop = new AbortController();
  const waits = [lost, batch]
    .map((each) => each.flush({ signal: stop.signal, timeout: 120_000 }))
    .concat(receipt.delivered({ signal: stop.signal, timeout: 120_000 }));
  stop.abort(reason);
  for (const wait of waits) {
    await assert.rejects(wait, reason);
  }
  await assert.rejects(lost.flush({ signal: stop.signal }), reason);
  assert.equal(lost.stats().spooled, 1);
});

test('a block that ends disposes of what it has', async () => {
  const batch = createBatch(ingestion);
  batch.add({ customerId: 'cus_using' });
  await batch[Symbol.asyncDispose]();
  assert.equal((await meter.events('cus_using')).length, 1);
  const other = createBatch(ingestion);
  other.add({ customerId: 'cus_using' });
  other[Symbol.dispose]();
  assert.equal((await metadataOf('cus_using')).length, 2);
});

test('alarms and calls are told to diagnostics channels', async () => {
  const told = [];
  const hear = (message, name) => told.push([name, message]);
  for (const name of ['alarm', 'track']) {
    subscribe(`dodo-ingestion:${name}`, hear);
  }
  const event = { customerId: 'cus_told' };
  await new Promise((resolve) => {
    // A listener that throws is a warning.
    const onAlarm = (kind) => {
      resolve(kind);
      throw new Error('planted');
    };
    const client = meter.connect({ account: 'told', onAlarm });
    const receipt = client.track(event);
    const batch = createBatch(client);
    batch.add(event);
    batch.add({ customerId: '' });
    const [, , [name, refused]] = told;
    assert.equal(name, 'dodo-ingestion:track');
    assert.ok(refused.error instanceof ValidationError);
    assert.deepEqual(told.slice(0, 2), [
      ['dodo-ingestion:track', { event, receipt }],
      ['dodo-ingestion:track', { event, error: undefined }],
    ]);
  });
  for (const name of ['alarm', 'track']) {
    unsubscribe(`dodo-ingestion:${name}`, hear);
  }
  const [, { kind, message }] = told.find(([name]) => name === 'dodo-ingestion:alarm');
  assert.equal(typeof kind + typeof message, 'stringstring');
});

test('the client for events in the API’s own names', async () => {
  const client = new DodoClient({
    apiKey: 'dodo_test_node',
    environment: 'test_mode',
    baseUrl: meter.url,
    durability: 'memory',
    account: 'own-names',
  });
  const event = { event_id: 'own-1', customer_id: 'cus_own', event_name: 'own' };
  const other = { ...event, event_id: 'own-2', metadata: { n: 1 } };
  assert.deepEqual(await client.ingestEvents([event, other]), {
    success: true,
    events_processed: 2,
  });
  assert.deepEqual(await client.ingestEvent(event), { success: true, events_processed: 1 });
  assert.equal((await meter.events('cus_own')).length, 2);
  assert.equal(await client.healthCheck(), true);
  assert.equal(client.getEnvironment(), 'test_mode');
  assert.match(client.getClientInfo().sdkVersion, /^\d+\.\d+/);
  for (const bad of [{ event_id: '' }, { customer_id: undefined }, { timestamp: 'yesterday' }]) {
    await assert.rejects(client.ingestEvent({ ...event, ...bad }), ValidationError);
  }
  await assert.rejects(client.ingestEvents([]), ValidationError);
  assert.throws(() => new DodoClient({ apiKey: '' }), ValidationError);
  await client.close();
});

test('a client whose key is not accepted says so, and keeps the events', async (t) => {
  const server = createServer((req, res) => {
    req.resume();
    res.writeHead(401, { 'content-type': 'application/json' });
    res.end('{"code":"UNAUTHORIZED","message":"no such key"}');
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  let hear;
  const heard = new Promise((resolve) => {
    hear = resolve;
  });
  const client = new DodoClient({
    apiKey: 'dodo_test_node',
    environment: 'live_mode',
    baseUrl: `http://127.0.0.1:${server.address().port}/`,
    durability: 'memory',
    onAlarm: (kind) => kind === 'authentication' && hear(),
  });
  t.after(async () => {
    await client.close({ timeout: 1 }).catch(() => {});
    server.closeAllConnections();
    server.close();
  });
  const event = { event_id: 'kept-1', customer_id: 'cus_kept', event_name: 'own' };
  assert.equal(await client.healthCheck(), false);
  assert.equal(client.getEnvironment(), 'live_mode');
  // Whichever comes first, the end of the wait or the answer.
  const early = { name: /^(Timeout|Authentication)Error$/ };
  await assert.rejects(client.ingestEvent(event, { timeout: 1 }), early);
  await heard;
  const ingest = () => client.ingestEvent({ ...event, event_id: 'kept-2' }, { timeout: 100 });
  // The alarm comes a moment before waits know the reason.
  let kind = 'timeout';
  while (kind === 'timeout') {
    kind = await ingest().catch((error) => error.kind);
  }
  const refused = { kind: 'authentication', statusCode: 401, message: /no such key/ };
  await assert.rejects(ingest(), refused);
});

test('health is asked for once a minute, whoever asks', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let requests = 0;
  const server = createServer((_, res) => {
    requests += 1;
    res.end('{}');
  }).listen(0, '127.0.0.1');
  t.after(() => server.closeAllConnections() ?? server.close());
  await once(server, 'listening');
  const baseUrl = `http://127.0.0.1:${server.address().port}`;
  const clients = ['one', 'other'].map((account) => meter.connect({ baseUrl, account }));
  const asking = clients.flatMap((client) => [client.healthCheck(), client.healthCheck()]);
  assert.deepEqual(await Promise.all(asking), [true, true, true, true]);
  t.mock.timers.tick(59_999);
  assert.equal(await clients[0].healthCheck(), true);
  assert.equal(requests, 1);
  t.mock.timers.tick(1);
  assert.equal(await clients[0].healthCheck(), true);
  assert.equal(requests, 2);
});

test('a tracker closes the client that it has made, and no other', async () => {
  const shared = meter.connect({ account: 'shared' });
  {
    const tracker = createLLMTracker({ ingestion: shared, eventName: 'llm' });
    await tracker.track({ usage: { input_tokens: 1 } }, 'cus_shared');
    await tracker.flush();
    assert.equal(shared.stats().spooled, 0);
    await tracker[Symbol.asyncDispose]();
  }
  await shared.track({ customerId: 'cus_shared' });
  const owner = createLLMTracker({
    apiKey: 'dodo_test_node',
    environment: 'test_mode',
    eventName: 'llm',
    baseUrl: meter.url,
    durability: 'memory',
    account: 'owned',
  });
  await owner.track({ usage: { input_tokens: 1 } }, 'cus_owned');
  await owner.close();
  assert.equal((await meter.events('cus_owned')).length, 1);
  const late = owner.track({ usage: { input_tokens: 1 } }, 'cus_owned');
  await assert.rejects(late, { code: 'CLOSED_ERROR' });
});

test('a billing API that is not there is not healthy', async () => {
  const lost = meter.connect({ baseUrl: 'http://127.0.0.1:9', account: 'unhealthy' });
  assert.equal(await lost.healthCheck(), false);
});

test('errors that programs make themselves', () => {
  const error = new ProviderError('words', { a: 1 });
  assert.deepEqual(
    [error.code, error.statusCode, error.details],
    ['PROVIDER_ERROR', 500, { a: 1 }],
  );
});
