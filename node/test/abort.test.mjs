// What a signal ends, it ends at once: also the process that stayed for nothing else.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createBatch, trackAPICall } from 'dodo-ingestion';
import { startMeter } from './meter.mjs';

const TEN_MINUTES = 600_000;
const WITHIN = 120_000;

const meter = await startMeter();
const baseUrl = 'http://127.0.0.1:9'; // nobody is there

const WAITS = [
  'receipt.delivered(options)',
  'ingestion.flush(options)',
  'batch.flush(options)',
  'batch.cleanup(options)',
  'ingestion.close(options)',
];
for (const wait of WAITS) {
  test(`${wait} lets the process end when it is aborted`, async (t) => {
    const script = `
      const { createBatch, Ingestion, trackAPICall } = require('dodo-ingestion');
      const ingestion = new Ingestion({
        apiKey: 'dodo_test_node', environment: 'test_mode', eventName: 'api_call',
        baseUrl: '${baseUrl}', durability: 'memory', exitTimeout: 0, onAlarm() {},
      });
      const batch = createBatch(ingestion);
      const receipt = trackAPICall(ingestion, { customerId: 'cus_1' });
      const stop = new AbortController();
      const options = { timeout: ${TEN_MINUTES}, signal: stop.signal };
      ${wait}.catch((error) => console.log(error === stop.signal.reason));
      setTimeout(() => stop.abort(), 50);
    `;
    const options = { cwd: new URL('..', import.meta.url), stdio: ['ignore', 'pipe', 'inherit'] };
    const child = spawn(process.execPath, ['-e', script], options);
    t.after(() => child.kill('SIGKILL'));
    let told = '';
    child.stdout.on('data', (chunk) => {
      told += chunk;
    });
    const ended = once(child, 'close', { signal: AbortSignal.timeout(WITHIN) });
    assert.deepEqual(await ended, [0, null]);
    assert.equal(told, 'true\n');
  });
}

test('a close that is aborted leaves the client open', async () => {
  const ingestion = meter.connect({ account: 'aborted', baseUrl, exitTimeout: 0 });
  await trackAPICall(ingestion, { customerId: 'cus_1' });
  const stop = new AbortController();
  const closing = ingestion.close({ timeout: TEN_MINUTES, signal: stop.signal });
  stop.abort(new Error('planted'));
  await assert.rejects(closing, /planted/);
  await trackAPICall(ingestion, { customerId: 'cus_1' });
  assert.equal(ingestion.stats().spooled, 2);
});

test('what was waited for goes on without the wait', async () => {
  const batch = createBatch(meter.connect({ account: 'goes-on' }), { flushInterval: 300_000 });
  batch.add({ customerId: 'cus_goes_on' });
  const stop = new AbortController();
  const flushing = batch.flush({ signal: stop.signal });
  stop.abort();
  await assert.rejects(flushing, { name: 'AbortError' });
  const until = Date.now() + WITHIN;
  while ((await meter.events('cus_goes_on')).length === 0) {
    assert.ok(Date.now() < until);
    await sleep(20);
  }
});

test('a signal may be aborted before the wait, at its end and after it', async () => {
  const ingestion = meter.connect({ account: 'whenever' });
  trackAPICall(ingestion, { customerId: 'cus_whenever' });
  await assert.rejects(ingestion.flush({ signal: AbortSignal.abort() }), { name: 'AbortError' });
  const stop = new AbortController();
  await ingestion.flush({ signal: stop.signal }).then(() => stop.abort());
  stop.abort();
  assert.equal((await meter.events('cus_whenever')).length, 1);
});

test('a thousand waits for one signal', async (t) => {
  const warnings = [];
  const hear = (warning) => warnings.push(warning.name);
  process.on('warning', hear);
  t.after(() => process.off('warning', hear));
  const ingestion = meter.connect({ account: 'many', baseUrl, exitTimeout: 0 });
  const stop = new AbortController();
  const options = { timeout: TEN_MINUTES, signal: stop.signal };
  const waits = Array.from({ length: 1_000 }, () =>
    trackAPICall(ingestion, { customerId: 'cus_1' }).delivered(options),
  );
  const settled = Promise.allSettled(waits);
  await new Promise((resolve) => setImmediate(resolve));
  stop.abort();
  assert.ok((await settled).every(({ reason }) => reason === stop.signal.reason));
  assert.ok(!warnings.includes('MaxListenersExceededWarning'), warnings.join());
});
