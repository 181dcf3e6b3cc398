import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { inspect } from 'node:util';
import * as dodo from 'dodo-ingestion';
import { startMeter } from './meter.mjs';

const {
  ConfigurationError,
  createBatch,
  createLLMTracker,
  Ingestion,
  trackAPICall,
  trackStreamBytes,
  ValidationError,
} = dodo;
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
  [{ apiKey: 'k', eventName: 'api_call', spoolDir: ['/tmp'] }, 'spoolDir'],
  [{ apiKey: 'k', eventName: 'api_call', maxSpoolBytes: 1 }, 'maxSpoolBytes'],
  [{ apiKey: 'k', eventName: 'api_call', maxSpoolBytes: 1n << 30n }, 'maxSpoolBytes'],
  [{ apiKey: 'k', eventName: 'api_call', onAlarm: 'log' }, 'onAlarm'],
  [{ apiKey: 'k', eventName: 'api\ud800' }, 'eventName'],
  [{ apiKey: 'k' }, 'eventName'],
  ['k', 'options'],
  [['k'], 'options'],
];
for (const [options, field] of REFUSED_OPTIONS) {
  test(`refused: ${inspect(options)}`, () => {
    assert.throws(
      () => new Ingestion(options),
      (error) => {
        assert.ok(error instanceof ConfigurationError, String(error));
        assert.equal(error.kind, 'configuration');
        assert.equal(error.field, field);
        assert.ok(error.message.startsWith(`${field}: `), error.message);
        return true;
      },
    );
  });
}

test('an option has one name here, and what tells of it uses that', () => {
  const options = { apiKey: 'k', eventName: 'api_call', spool_dir: '/tmp' };
  assert.throws(() => new Ingestion(options), {
    field: 'spool_dir',
    message: 'spool_dir: is no option; the nearest is spoolDir',
  });
  const plain = { apiKey: 'k', eventName: 'api_call', baseUrl: 'http://example.com' };
  assert.throws(() => new Ingestion(plain), { field: 'baseUrl', message: /allowHttp/ });
});

test('a client may have its options from the environment alone', () => {
  const script = `
    const { Ingestion } = require('dodo-ingestion');
    const ingestion = new Ingestion();
    process.stdout.write(String(ingestion.stats().accepted));
  `;
  const env = {
    ...process.env,
    DODO_PAYMENTS_API_KEY: 'dodo_test_node',
    DODO_INGESTION_EVENT_NAME: 'api_call',
    DODO_INGESTION_DURABILITY: 'memory',
  };
  const options = { cwd: new URL('..', import.meta.url), encoding: 'utf8', env };
  const { stdout, stderr } = spawnSync(process.execPath, ['-e', script], options);
  assert.equal(stdout, '0', stderr);
});

test('lengths of time are milliseconds', () => {
  meter.connect({ linger: 200_000 });
  createBatch(meter.connect(), { flushInterval: 5_000, maxSize: 1_000 });
  createBatch(meter.connect(), null);
});

test('what is out of range is told in milliseconds', () => {
  const given = 5_000_000;
  const message = (name) => `${name}: must be 0 to 300000 milliseconds, not ${given}`;
  const batch = () => createBatch(meter.connect(), { flushInterval: given });
  assert.throws(batch, { message: message('flushInterval') });
  assert.throws(() => meter.connect({ linger: given }), { message: message('linger') });
});

const REFUSED_BATCHES = [
  [{ flushInterval: 5_000_000 }, 'flushInterval'],
  [{ flushInterval: -1 }, 'flushInterval'],
  [{ flushInterval: Number.NaN }, 'flushInterval'],
  [{ maxSize: 0 }, 'maxSize'],
  [{ maxSize: 1_001 }, 'maxSize'],
  [{ maxSize: 2.5 }, 'maxSize'],
  [{ maxSize: '5' }, 'maxSize'],
  [{ flushInterval: '5' }, 'flushInterval'],
  [{ flushInterval: true }, 'flushInterval'],
  [100, 'options'],
];
for (const [options, field] of REFUSED_BATCHES) {
  test(`refused: a batch of ${JSON.stringify(options)}`, () => {
    const refused = { name: 'ConfigurationError', field };
    assert.throws(() => createBatch(meter.connect(), options), refused);
  });
}

test('refused: a key of the metadata with a lone surrogate', async () => {
  const metadata = { ok: 1, 'a\ud800': 1 };
  await assert.rejects(trackAPICall(meter.connect(), { customerId: 'cus_1', metadata }), {
    field: 'metadata',
    message: 'metadata: a key holds a lone surrogate',
  });
});

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

const thrower = Object.defineProperty({}, 'customerId', {
  enumerable: true,
  get() {
    throw new Error('planted');
  },
});
const silent = { toString: undefined, message: 7 };
const metadataOf = (metadata) => ({ customerId: 'cus_1', metadata });
const NOT_CALLS = [
  undefined,
  null,
  {},
  { customerId: 7n },
  { customerId: 'cus_1', constructor: 'x' },
  thrower,
  Object.defineProperty({ customerId: 'cus_1' }, 'metadata', {
    enumerable: true,
    get() {
      throw Object.create(null);
    },
  }),
  metadataOf({
    get endpoint() {
      throw silent;
    },
  }),
  metadataOf(new Map([['n', 1]])),
  metadataOf(new Set(['n'])),
  metadataOf(new Headers({ n: '1' })),
  metadataOf(new URLSearchParams('n=1')),
  metadataOf(new FormData()),
  metadataOf(new Date()),
  metadataOf('n'),
  { customerId: 'cus_1', customer: 'x' },
  { customerId: 'cus_1', timestamp: new Date(Number.NaN) },
  { customerId: 'cus_1', metadata: ['x'] },
  { customerId: 7 },
];
for (const [index, call] of NOT_CALLS.entries()) {
  test(`refused: ${index} ${inspect(call, { getters: false })}`, async () => {
    const ingestion = meter.connect();
    await assert.rejects(trackAPICall(ingestion, call), ValidationError);
    await assert.rejects(trackStreamBytes(ingestion, call), ValidationError);
  });
}

test('why a call cannot be read is its cause', async () => {
  await assert.rejects(trackAPICall(meter.connect(), thrower), ({ field, cause, message }) => {
    assert.deepEqual([field, cause.message], ['event', 'planted']);
    assert.match(message, /planted/);
    return true;
  });
});

test('a tracker refuses by its receipt as well', async () => {
  const tracker = createLLMTracker({ ingestion: meter.connect() });
  const answer = Object.defineProperty({}, 'usage', {
    get() {
      throw new Error('planted');
    },
  });
  await assert.rejects(tracker.track(answer, 'cus_1'), ValidationError);
});

test('what metadata inherits is not written in its place', async () => {
  class Pairs {
    n = 1;
    toJSON() {
      return { n: 'other' };
    }
  }
  const ingestion = meter.connect({ account: 'inherits' });
  const at = Object.assign(new Date(0), { toJSON: () => 'never' });
  await trackAPICall(ingestion, { customerId: 'cus_inherits', metadata: new Pairs() });
  await trackAPICall(ingestion, { customerId: 'cus_inherits', metadata: { at } });
  await ingestion.flush();
  const found = (await meter.events('cus_inherits')).map(({ metadata }) => metadata);
  assert.deepEqual(
    found.sort((one) => ('n' in one ? -1 : 1)),
    [{ n: 1 }, { at: '1970-01-01T00:00:00.000Z' }],
  );
});

test('a refusal that nobody looks at does no harm', async () => {
  trackAPICall(meter.connect(), { customerId: '' });
  await new Promise((resolve) => setImmediate(resolve));
});

test('a batch never throws, and counts what it refuses', () => {
  const ingestion = meter.connect({ account: 'refusing' });
  const batch = createBatch(ingestion);
  const calls = [...NOT_CALLS, { customerId: '' }];
  for (const call of calls) {
    assert.equal(batch.add(call), undefined);
  }
  assert.equal(ingestion.stats().invalid, calls.length);
});
