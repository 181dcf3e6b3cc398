import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import * as dodo from 'dodo-ingestion';
import { startMeter } from './meter.mjs';

const { ConfigurationError, createBatch, Ingestion, trackAPICall, ValidationError } = dodo;
const require = createRequire(import.meta.url);

const meter = await startMeter();

test('every kind has a class', () => {
  const kinds = Object.values(dodo)
    .filter((value) => value.prototype instanceof dodo.IngestionError && value !== dodo.APIError)
    .map((cls) => new cls('words').kind);
  const { errorKinds } = require('../native/dodo_ingestion.node');
  assert.deepEqual(kinds.sort(), errorKinds().sort());
});

test('import and require give the same classes', () => {
  assert.equal(require('dodo-ingestion').IngestionError, dodo.IngestionError);
});

const REFUSED_OPTIONS = [
  [{ apiKey: 'k', eventName: 'api_call', lingr: 1000 }, 'lingr'],
  [{ apiKey: 'k', eventName: 'api_call', environment: 'staging' }, 'environment'],
  [{ apiKey: 'k', eventName: 'api_call', linger: 5_000_000 }, 'linger'],
  [{ apiKey: 'k', eventName: 'api_call', linger: Number.NaN }, 'linger'],
  [{ apiKey: 'k', eventName: 'api_call', spoolDir: ['/tmp'] }, 'spool_dir'],
  [{ apiKey: 'k' }, 'event_name'],
];
for (const [options, field] of REFUSED_OPTIONS) {
  test(`refused: ${JSON.stringify(options)}`, () => {
    assert.throws(
      () => new Ingestion(options),
      (error) => {
        assert.ok(error instanceof ConfigurationError, String(error));
        assert.equal(error.kind, 'configuration');
        assert.equal(error.field, field);
        return true;
      },
    );
  });
}

test('lengths of time are milliseconds', () => {
  meter.connect({ linger: 200_000 });
  createBatch(meter.connect(), { flushInterval: 5_000, maxSize: 1_000 });
});

test('what is out of range is told in milliseconds', () => {
  const given = 5_000_000;
  const message = (name) => `${name}: must be 0 to 300000 milliseconds, not ${given}`;
  const batch = () => createBatch(meter.connect(), { flushInterval: given });
  assert.throws(batch, { message: message('flush_interval') });
  assert.throws(() => meter.connect({ linger: given }), { message: message('linger') });
});

const REFUSED_BATCHES = [
  [{ flushInterval: 5_000_000 }, 'flush_interval'],
  [{ flushInterval: -1 }, 'flush_interval'],
  [{ flushInterval: Number.NaN }, 'flush_interval'],
  [{ maxSize: 0 }, 'max_size'],
  [{ maxSize: 1_001 }, 'max_size'],
  [{ maxSize: 2.5 }, 'max_size'],
];
for (const [options, field] of REFUSED_BATCHES) {
  test(`refused: a batch of ${JSON.stringify(options)}`, () => {
    assert.throws(() => createBatch(meter.connect(), options), { field });
  });
}

const NOT_VALUES = [
  Number.NaN,
  Number.POSITIVE_INFINITY,
  2n ** 63n,
  -(2n ** 63n) - 1n,
  [],
  {},
  new Map(),
  () => {},
  Symbol('s'),
  new Date(Number.NaN),
  '\ud800',
];
for (const value of NOT_VALUES) {
  test(`refused: ${typeof value} ${String(value)} as metadata`, async () => {
    const metadata = { ok: 1, key: value, more: 2n };
    const receipt = trackAPICall(meter.connect(), { customerId: 'cus_1', metadata });
    await assert.rejects(receipt, (error) => {
      assert.ok(error instanceof ValidationError);
      assert.equal(error.kind, 'validation');
      assert.equal(error.field, 'metadata.key');
      return true;
    });
  });
}

const NOT_CALLS = [
  {},
  { customerId: 'cus_1', customer: 'x' },
  { customerId: 'cus_1', timestamp: new Date(Number.NaN) },
  { customerId: 'cus_1', metadata: ['x'] },
  { customerId: 7 },
];
for (const call of NOT_CALLS) {
  test(`refused: ${JSON.stringify(call)}`, async () => {
    await assert.rejects(trackAPICall(meter.connect(), call), ValidationError);
  });
}

test('a refusal that nobody looks at does no harm', async () => {
  trackAPICall(meter.connect(), { customerId: '' });
  await new Promise((resolve) => setImmediate(resolve));
});

test('a batch never throws, and counts what it refuses', () => {
  const ingestion = meter.connect({ account: 'refusing' });
  const batch = createBatch(ingestion);
  const calls = [...NOT_CALLS, undefined, null, { customerId: '' }];
  for (const call of calls) {
    assert.equal(batch.add(call), undefined);
  }
  assert.equal(ingestion.stats().invalid, calls.length);
});
