import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { after, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { ClosedError, createBatch, trackAPICall } from 'dodo-ingestion';
import { startMeter } from './meter.mjs';

const BATCHED = 2_000;
const SINGLE = 500;

const meter = await startMeter();

const numbers = (events) => events.map((event) => event.metadata.n).sort((a, b) => a - b);
const upTo = (count) => Array.from({ length: count }, (_, number) => number);

test('every call is billed once', async () => {
  const ingestion = meter.connect();
  const batch = createBatch(ingestion, { maxSize: 100, flushInterval: 5_000 });
  for (const n of upTo(BATCHED)) {
    batch.add({ customerId: 'cus_batch', metadata: { endpoint: '/v1/users', n } });
  }
  for (const n of upTo(SINGLE)) {
    await trackAPICall(ingestion, {
      customerId: 'cus_single',
      metadata: { endpoint: '/v1/orders', n },
    });
  }
  await batch.cleanup({ timeout: 120_000 });
  await ingestion.flush({ timeout: 120_000 });

  assert.deepEqual(numbers(await meter.events('cus_batch')), upTo(BATCHED));
  assert.deepEqual(numbers(await meter.events('cus_single')), upTo(SINGLE));
  const { customers } = await meter.get('/_dev/bill');
  const calls = new Map(customers.map((each) => [each.customer_id, each.calls]));
  assert.equal(calls.get('cus_batch'), BATCHED);
  assert.equal(calls.get('cus_single'), SINGLE);
  const stats = ingestion.stats();
  assert.ok(stats.accepted >= BATCHED + SINGLE);
  assert.equal(stats.spooled, 0);
  assert.equal(stats.deadLettered, 0);
});

test('receipts can be awaited', async () => {
  const ingestion = meter.connect({ linger: 100 });
  const mine = trackAPICall(ingestion, { customerId: 'cus_receipt', eventId: 'mine' });
  const rest = upTo(100).map(() => trackAPICall(ingestion, { customerId: 'cus_receipt' }));
  await Promise.all([mine, ...rest].map((receipt) => receipt.delivered({ timeout: 120_000 })));
  assert.equal(mine.eventId, 'mine');
  assert.equal((await meter.get('/events/mine')).customer_id, 'cus_receipt');
  assert.equal((await meter.events('cus_receipt')).length, 101);
});

test('a wait that takes too long', async () => {
  const blackHole = createServer(() => {}).listen(0, '127.0.0.1');
  after(() => blackHole.close());
  await once(blackHole, 'listening');
  const baseUrl = `http://127.0.0.1:${blackHole.address().port}`;
  const ingestion = meter.connect({ baseUrl, account: 'black-hole', linger: 100 });
  const receipt = trackAPICall(ingestion, { customerId: 'cus_1' });
  const timeout = 200;
  for (const wait of [() => receipt.delivered({ timeout }), () => ingestion.flush({ timeout })]) {
    await assert.rejects(wait, { name: 'TimeoutError', kind: 'timeout' });
  }
});

test('a closed client refuses', async () => {
  const ingestion = meter.connect({ account: 'closed' });
  await ingestion.close({ timeout: 120_000 });
  await assert.rejects(trackAPICall(ingestion, { customerId: 'cus_1' }), ClosedError);
});

const OPTIONS = (account) =>
  JSON.stringify({
    apiKey: 'dodo_test_node',
    environment: 'test_mode',
    baseUrl: meter.url,
    eventName: 'api_call',
    durability: 'memory',
    exitTimeout: 100_000,
    account,
  });

test('a client that is idle lets the process exit, and a flush holds it', async () => {
  const script = `
    const { Ingestion, trackAPICall } = require('dodo-ingestion');
    const ingestion = new Ingestion(${OPTIONS('exit')});
    trackAPICall(ingestion, { customerId: 'cus_exit' });
    ingestion.flush().then(() => console.log('flushed'));
  `;
  const options = { cwd: new URL('..', import.meta.url), encoding: 'utf8', timeout: 120_000 };
  const { status, stdout, stderr } = spawnSync(process.execPath, ['-e', script], options);
  assert.deepEqual({ status, stdout }, { status: 0, stdout: 'flushed\n' }, stderr);
  assert.equal((await meter.events('cus_exit')).length, 1);
});

test('the end of the program is a close', async () => {
  const script = `
    const { Ingestion, trackAPICall } = require('dodo-ingestion');
    const ingestion = new Ingestion(${OPTIONS('end')});
    trackAPICall(ingestion, { customerId: 'cus_end' });
  `;
  const options = { cwd: new URL('..', import.meta.url), encoding: 'utf8', timeout: 120_000 };
  const { status, stderr } = spawnSync(process.execPath, ['-e', script], options);
  assert.equal(status, 0, stderr);
  assert.equal((await meter.events('cus_end')).length, 1);
});

test('what a batch refuses is an alarm', async () => {
  const told = await new Promise((resolve) => {
    const onAlarm = (kind, message) => kind === 'invalid' && resolve(message);
    createBatch(meter.connect({ account: 'alarms', onAlarm })).add({ customerId: '' });
  });
  assert.match(told, /customer_id/);
});

test('a worker is configured by its own environment variables', async () => {
  const program = `
    const { parentPort } = require('node:worker_threads');
    const { Ingestion } = require('dodo-ingestion');
    process.env.DODO_INGESTION_EVENT_NAME = 'set_there';
    const ingestion = new Ingestion({ durability: 'memory', onAlarm() {} });
    const receipt = ingestion.track({ customerId: 'cus_configured' });
    receipt.delivered({ timeout: 120_000 }).then(
      () => parentPort.postMessage(ingestion.environment),
      (error) => parentPort.postMessage(String(error)),
    );
  `;
  const env = {
    DODO_PAYMENTS_API_KEY: 'dodo_test_worker',
    DODO_PAYMENTS_BASE_URL: meter.url,
    DODO_PAYMENTS_ENVIRONMENT: 'test_mode',
  };
  const worker = new Worker(program, { eval: true, env });
  const [message] = await once(worker, 'message');
  assert.equal(message, 'test_mode');
  const [{ event_name: name }] = await meter.events('cus_configured');
  assert.equal(name, 'set_there');
  await worker.terminate();
});

test('workers come and go', async () => {
  const script = `
    const { Ingestion, trackAPICall } = require('dodo-ingestion');
    const ingestion = new Ingestion(${OPTIONS('worker')});
    trackAPICall(ingestion, { customerId: 'cus_worker' });
    ingestion.close();
  `;
  for (const _ of upTo(3)) {
    const worker = new Worker(script, { eval: true });
    const [code] = await once(worker, 'exit');
    assert.equal(code, 0);
  }
  assert.equal((await meter.events('cus_worker')).length, 3);
});
