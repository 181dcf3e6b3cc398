// The package that users have today: what arrives when its verbs are called.
//
// Its hosts are its own, so `redirect.mjs` sends what is meant for them to a meter.

import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import {
  APIError,
  createBatch,
  createLLMTracker,
  DodoClient,
  DodoIngestionError,
  Ingestion,
  LLMTracker,
  trackAPICall,
  trackObjectStorage,
  trackStreamBytes,
  trackTimeRange,
  ValidationError,
} from '@dodopayments/ingestion-blueprints';
import { connect, event, KEY, minutes, serving, unique } from './meter.mjs';
import { redirect } from './redirect.mjs';

let meter;

before(async () => {
  const url = await serving();
  redirect('test.dodopayments.com', url);
  meter = connect(url);
});

/** What has arrived of a customer, the newest first. */
async function arrived(customer_id) {
  return (await meter.usageEvents.list({ customer_id, page_size: 1000 })).items;
}

/** The one event of a customer. */
async function one(customer_id) {
  const events = await arrived(customer_id);
  assert.equal(events.length, 1);
  return events[0];
}

function ingestion(eventName = 'api_call') {
  return new Ingestion({ apiKey: KEY, environment: 'test_mode', eventName });
}

describe('one call', () => {
  test('track', async () => {
    const customerId = unique('cus');
    await ingestion('plain').track({ customerId });
    const { event_id, event_name, metadata, timestamp } = await one(customerId);
    assert.match(event_id, /^plain_\d+_[0-9a-z]+$/);
    assert.equal(event_name, 'plain');
    assert.deepEqual(metadata, {});
    assert.ok(Math.abs(Date.parse(timestamp) - Date.now()) < 60_000);
  });

  test('trackAPICall', async () => {
    const customerId = unique('cus');
    const metadata = { endpoint: '/v1/users', method: 'GET', status_code: 200, cached: false };
    await trackAPICall(ingestion(), { customerId, metadata });
    assert.deepEqual((await one(customerId)).metadata, metadata);
  });

  for (const [name, verb, options, metadata] of [
    ['trackObjectStorage', trackObjectStorage, { bytes: 1_048_576 }, { bytes: 1_048_576 }],
    ['trackStreamBytes', trackStreamBytes, { bytes: 0 }, { bytes: 0 }],
    ['trackTimeRange, milliseconds', trackTimeRange, { durationMs: 1.5 }, { durationMs: 1.5 }],
    ['trackTimeRange, seconds', trackTimeRange, { durationSeconds: 90 }, { durationSeconds: 90 }],
    ['trackTimeRange, minutes', trackTimeRange, { durationMinutes: 2 }, { durationMinutes: 2 }],
  ]) {
    test(name, async () => {
      const customerId = unique('cus');
      await verb(ingestion(), { customerId, ...options, metadata: { bucket: 'b' } });
      assert.deepEqual((await one(customerId)).metadata, { ...metadata, bucket: 'b' });
    });
  }
});

describe('a batch', () => {
  test('flush sends what was added', async () => {
    const customerId = unique('cus');
    const batch = createBatch(ingestion(), { maxSize: 100, flushInterval: 600_000 });
    for (let n = 0; n < 20; n += 1) {
      batch.add({ customerId, metadata: { n } });
    }
    assert.deepEqual(await arrived(customerId), []);
    await batch.flush();
    const numbers = (await arrived(customerId)).map(({ metadata }) => metadata.n);
    assert.deepEqual(
      numbers.toSorted((a, b) => a - b),
      Array.from({ length: 20 }, (_, n) => n),
    );
    await batch.flush();
    await batch.cleanup();
    assert.equal((await arrived(customerId)).length, 20);
  });

  test('cleanup sends the rest', async () => {
    const customerId = unique('cus');
    const batch = createBatch(ingestion());
    batch.add({ customerId });
    await batch.cleanup();
    await one(customerId);
  });

  test('a full one and an old one are sent without being asked', async () => {
    for (const [config, count] of [
      [{ maxSize: 5, flushInterval: 600_000 }, 5],
      [{ flushInterval: 50 }, 3],
    ]) {
      const customerId = unique('cus');
      const batch = createBatch(ingestion(), config);
      for (let n = 0; n < count; n += 1) {
        batch.add({ customerId });
      }
      const deadline = Date.now() + 20_000;
      while ((await arrived(customerId)).length < count && Date.now() < deadline) {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      assert.equal((await arrived(customerId)).length, count);
      await batch.cleanup();
    }
  });
});

describe('tokens', () => {
  const usage = { prompt_tokens: 12, completion_tokens: 30, total_tokens: 42 };
  const counted = { inputTokens: 12, outputTokens: 30, totalTokens: 42, model: 'm-1' };
  const config = { apiKey: KEY, environment: 'test_mode', eventName: 'llm' };

  test('of a client that is wrapped', async () => {
    const customerId = unique('cus');
    const completions = { create: async () => ({ model: 'm-1', usage }) };
    const client = { chat: { completions } };
    const tracker = createLLMTracker(config);
    const wrapped = tracker.wrap({ client, customerId, metadata: { feature: 'chat' } });
    assert.deepEqual(await wrapped.chat.completions.create({}), { model: 'm-1', usage });
    const { event_name, metadata } = await one(customerId);
    assert.equal(event_name, 'llm');
    assert.deepEqual(metadata, { ...counted, feature: 'chat' });
    assert.equal(await tracker.healthCheck(), true);
  });

  test('of a response', async () => {
    const customerId = unique('cus');
    const tracker = new LLMTracker(config);
    await tracker.track({ model: 'm-1', usage }, customerId);
    assert.deepEqual((await one(customerId)).metadata, counted);
    await tracker.track({ model: 'm-1' }, customerId);
    await one(customerId);
  });
});

describe('the client', () => {
  const client = () => new DodoClient({ apiKey: KEY, environment: 'test_mode' });

  test('says what it sent', async () => {
    const customer_id = unique('cus');
    const events = [event({ customer_id }), event({ customer_id })];
    const answer = await client().ingestEvents(events);
    assert.deepEqual(answer, { success: true, events_processed: 2, ingested_count: 2 });
    const again = await client().ingestEvent(events[0]);
    assert.deepEqual(again, { success: true, events_processed: 1, ingested_count: 0 });
    assert.equal((await arrived(customer_id)).length, 2);
    assert.equal(await client().healthCheck(), true);
    assert.equal(client().getEnvironment(), 'test_mode');
  });

  test('refuses what is no event before it is sent', async () => {
    assert.throws(() => new DodoClient({ apiKey: '' }), ValidationError);
    for (const bad of [
      { event_id: '' },
      { customer_id: '' },
      { event_name: '' },
      { timestamp: 'yesterday' },
    ]) {
      await assert.rejects(client().ingestEvent(event(bad)), (error) => {
        assert.ok(error instanceof ValidationError && error instanceof DodoIngestionError);
        assert.deepEqual([error.code, error.statusCode], ['VALIDATION_ERROR', 400]);
        return true;
      });
    }
    await assert.rejects(client().ingestEvents([]), ValidationError);
  });

  test('hands on what the API refuses', async () => {
    const stranger = new DodoClient({ apiKey: 'wrong', environment: 'test_mode' });
    const twice = event();
    for (const [call, status, code] of [
      [() => stranger.ingestEvent(event()), 401, 'UNAUTHORIZED'],
      [() => client().ingestEvents([twice, twice]), 400, 'INVALID_REQUEST_PARAMETERS'],
      [
        () => client().ingestEvent(event({ timestamp: minutes(-61) })),
        400,
        'INVALID_REQUEST_PARAMETERS',
      ],
      [() => client().ingestEvent(event({ metadata: { a: {} } })), 422, 'INVALID_REQUEST_BODY'],
    ]) {
      await assert.rejects(call(), (error) => {
        assert.ok(error instanceof APIError && error instanceof DodoIngestionError, `${error}`);
        assert.deepEqual([error.code, error.statusCode], ['API_ERROR', status]);
        assert.equal(error.details.error.code, code);
        return true;
      });
    }
  });

  test('with nobody there', { timeout: 60_000 }, async () => {
    redirect('live.dodopayments.com', 'http://127.0.0.1:9');
    const lost = new DodoClient({ apiKey: KEY, environment: 'live_mode' });
    assert.equal(await lost.healthCheck(), false);
  });
});
