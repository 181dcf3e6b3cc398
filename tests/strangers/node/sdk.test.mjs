// The official Node SDK against the meter: what its types say is what arrives.

import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import {
  APIConnectionError,
  APIError,
  AuthenticationError,
  BadRequestError,
  NotFoundError,
  RateLimitError,
  UnprocessableEntityError,
} from 'dodopayments';
import { connect, event, minutes, serving, unique } from './meter.mjs';

/** Expects a refusal of a class, in the API's own form. */
async function refused(promise, Refusal, status, code) {
  await assert.rejects(promise, (error) => {
    assert.ok(error instanceof Refusal, `${error}`);
    assert.equal(error.status, status);
    assert.deepEqual(Object.keys(error.error).sort(), ['code', 'message']);
    assert.equal(error.error.code, code);
    assert.ok(error.error.message);
    return true;
  });
}

const BROKEN = [BadRequestError, 400, 'INVALID_REQUEST_PARAMETERS'];
const QUERY = [BadRequestError, 400, 'INVALID_QUERY_PARAMS'];
const SHAPE = [UnprocessableEntityError, 422, 'INVALID_REQUEST_BODY'];
const NONE = [NotFoundError, 404, 'NOT_FOUND'];

describe('events', () => {
  let url;
  let client;
  before(async () => {
    url = await serving();
    client = connect(url);
  });
  const ingest = async (...events) => (await client.usageEvents.ingest({ events })).ingested_count;

  test('one comes back as it was sent', async () => {
    const timestamp = minutes(-5);
    const metadata = { endpoint: '/v1/ü/{id}', n: 3, ms: 12.5, ok: true };
    const sent = event({ timestamp, metadata });
    assert.equal(await ingest(sent), 1);
    const {
      business_id,
      timestamp: at,
      ...read
    } = await client.usageEvents.retrieve(sent.event_id);
    assert.equal(typeof business_id, 'string');
    assert.equal(Date.parse(at), Date.parse(timestamp));
    assert.deepEqual(read, {
      event_id: sent.event_id,
      customer_id: 'cus_js',
      event_name: 'api_call',
      metadata,
    });
  });

  test('a request holds 1 to 1000', async () => {
    const customer_id = unique('cus');
    const events = Array.from({ length: 1001 }, () => event({ customer_id }));
    await refused(ingest(...events), ...BROKEN);
    await refused(ingest(), ...BROKEN);
    assert.deepEqual((await client.usageEvents.list({ customer_id })).items, []);
    assert.equal(await ingest(...events.slice(1)), 1000);
  });

  test('an id counts once', async () => {
    const [first, second] = [event(), event()];
    await refused(ingest(first, second, first), ...BROKEN);
    assert.equal(await ingest(first), 1);
    assert.equal(await ingest({ ...first, customer_id: 'cus_other' }, second), 1);
    assert.equal(await ingest(first, second), 0);
    assert.equal((await client.usageEvents.retrieve(first.event_id)).customer_id, 'cus_js');
  });

  test('a time lies in the window', async () => {
    assert.equal(await ingest(event({ timestamp: minutes(-59) })), 1);
    assert.equal(await ingest(event({ timestamp: minutes(4) })), 1);
    assert.equal(await ingest(event({ timestamp: null })), 1);
    await refused(ingest(event({ timestamp: minutes(-61) })), ...BROKEN);
    await refused(ingest(event({ timestamp: minutes(6) })), ...BROKEN);
    await refused(ingest(event({ timestamp: 'yesterday' })), ...SHAPE);
  });

  test('metadata is flat and small', async () => {
    const pairs = Object.fromEntries(Array.from({ length: 51 }, (_, n) => [`k${n}`, n]));
    for (const [metadata, refusal] of [
      [{ nested: { a: 1 } }, SHAPE],
      [{ list: [1] }, SHAPE],
      [{ null: null }, SHAPE],
      [{ large: 2 ** 63 }, SHAPE],
      [pairs, BROKEN],
      [{ ['k'.repeat(101)]: 1 }, BROKEN],
      [{ k: 'v'.repeat(501) }, BROKEN],
    ]) {
      const good = event();
      await refused(ingest(good, event({ metadata })), ...refusal);
      await refused(client.usageEvents.retrieve(good.event_id), ...NONE);
    }
  });

  test('an id of any text can be looked up', async () => {
    for (const odd of ['a/b', 'ü?#%', '100%25', 'with space', '🦤', '"quoted"', 'x'.repeat(300)]) {
      const sent = event({ event_id: `${unique('odd')} ${odd}` });
      assert.equal(await ingest(sent), 1);
      const read = await client.usageEvents.retrieve(sent.event_id);
      assert.equal(read.event_id, sent.event_id);
    }
  });
});

describe('lists', () => {
  const everything = Array.from({ length: 25 }, (_, n) => `e${n}`).reverse();
  const ids = ({ items }) => items.map((item) => item.event_id);
  let client;
  let events;
  before(async () => {
    client = connect(await serving());
    events = client.usageEvents;
    const sent = everything.toReversed().map((event_id, n) =>
      event({
        event_id,
        customer_id: `cus_${n % 2}`,
        event_name: n % 5 === 0 ? 'export' : 'api_call',
        timestamp: minutes(n - 50),
      }),
    );
    await events.ingest({ events: sent });
  });

  test('each filter', async () => {
    const found = async (query) => ids(await events.list({ page_size: 100, ...query }));
    const tenth = (await events.retrieve('e10')).timestamp;
    const twelfth = (await events.retrieve('e12')).timestamp;
    assert.deepEqual(await found({}), everything);
    assert.deepEqual(await found({ event_name: 'export' }), ['e20', 'e15', 'e10', 'e5', 'e0']);
    assert.deepEqual(await found({ customer_id: 'cus_1', event_name: 'export' }), ['e15', 'e5']);
    assert.deepEqual(await found({ customer_id: 'nobody' }), []);
    assert.deepEqual(await found({ start: tenth }), everything.slice(0, 15));
    assert.deepEqual(await found({ end: tenth }), everything.slice(15));
    assert.deepEqual(await found({ start: tenth, end: twelfth }), ['e11', 'e10']);
    const { id: meter_id } = await client.meters.create({
      name: 'Exports',
      event_name: 'export',
      measurement_unit: 'exports',
      aggregation: { type: 'count' },
    });
    assert.deepEqual(await found({ meter_id, customer_id: 'cus_0' }), ['e20', 'e10', 'e0']);
    await refused(found({ meter_id, event_name: 'api_call' }), ...QUERY);
    await refused(found({ meter_id: 'mtr_none' }), ...NONE);
    await refused(found({ page_size: 0 }), ...QUERY);
  });

  test('page by page', async () => {
    for (const [page_number, range] of [
      [0, everything.slice(0, 10)],
      [1, everything.slice(10, 20)],
      [2, everything.slice(20)],
      [3, []],
    ]) {
      assert.deepEqual(ids(await events.list({ page_number })), range);
    }
    const seven = await events.list({ page_number: 2, page_size: 7 });
    assert.deepEqual(ids(seven), everything.slice(14, 21));
  });

  test("the SDK's own paging leaves out a page", async () => {
    // The API counts its pages from 0, and the SDK takes a page without a number for page 1, so it
    // goes on with page 2. The meter does as the API does. Who names page 0 gets all of them.
    const paged = async (query) => {
      const seen = [];
      for await (const { event_id } of events.list(query)) {
        seen.push(event_id);
      }
      return seen;
    };
    assert.deepEqual(await paged({}), [...everything.slice(0, 10), ...everything.slice(20)]);
    assert.deepEqual(await paged({ page_number: 0 }), everything);
  });
});

test('meters are made, listed, archived and taken back', async () => {
  const client = connect(await serving());
  const made = [];
  for (const type of ['count', 'sum', 'max', 'last']) {
    const key = type === 'count' ? null : 'bytes';
    const fields = {
      name: `Meter ${type}`,
      description: type === 'count' ? null : 'What it adds up',
      event_name: 'api_call',
      measurement_unit: 'units',
      aggregation: { type, key },
    };
    const meter = await client.meters.create(fields);
    const { id, business_id, created_at, updated_at, filter, ...rest } = meter;
    assert.deepEqual(rest, fields);
    assert.match(id, /^mtr_/);
    assert.equal(typeof business_id, 'string');
    assert.ok(Math.abs(Date.parse(created_at) - Date.now()) < 60_000);
    assert.equal(updated_at, created_at);
    assert.equal(filter, null);
    made.unshift(meter);
  }
  const listed = async (query) => (await client.meters.list(query)).items;
  assert.deepEqual(await listed(), made);
  assert.deepEqual(await listed({ page_size: 3, page_number: 1 }), made.slice(3));
  const { id } = made[3];
  assert.deepEqual(await client.meters.retrieve(id), made[3]);
  await client.meters.archive(id);
  assert.deepEqual(await listed(), made.slice(0, 3));
  assert.equal((await listed({ archived: true }))[0].id, id);
  await client.meters.unarchive(id);
  assert.deepEqual(await listed({ archived: true }), []);
  assert.equal((await listed({ archived: false })).length, 4);

  const bad = { ...made[0], aggregation: { type: 'sum' } };
  await refused(client.meters.create(bad), ...SHAPE);
  await refused(client.meters.list({ page_size: 101 }), ...QUERY);
  for (const call of ['retrieve', 'archive', 'unarchive']) {
    await refused(client.meters[call]('mtr_none'), ...NONE);
  }
});

describe('errors', () => {
  const ingest = (client, fields) => client.usageEvents.ingest({ events: [event(fields)] });

  test('a wrong key', async () => {
    const stranger = connect(await serving(), { bearerToken: 'wrong' });
    for (const call of [
      () => ingest(stranger),
      () => stranger.usageEvents.list(),
      () => stranger.usageEvents.retrieve('e'),
      () => stranger.meters.list(),
    ]) {
      await refused(call(), AuthenticationError, 401, 'UNAUTHORIZED');
    }
  });

  test('a customer who does not exist', async () => {
    for (const [status, refusal] of [
      ['400', BROKEN],
      ['404', NONE],
      ['422', SHAPE],
    ]) {
      const options = ['--customers', 'cus_js', '--unknown-customer', status];
      const client = connect(await serving(...options));
      assert.equal((await ingest(client)).ingested_count, 1);
      await refused(ingest(client, { customer_id: 'cus_unknown' }), ...refusal);
    }
  });

  test('a body that is too large', async () => {
    const client = connect(await serving('--max-body-bytes', '1000'));
    const large = ingest(client, { metadata: { text: 'x'.repeat(2000) } });
    await refused(large, APIError, 413, 'PAYLOAD_TOO_LARGE');
  });

  test('too many requests', async () => {
    const client = connect(await serving('--rate-limit'));
    const burst = Array.from({ length: 101 }, () => client.meters.list()); // of 100 a minute
    const refusals = (await Promise.allSettled(burst)).filter(({ reason }) => reason);
    await refused(Promise.reject(refusals[0].reason), RateLimitError, 429, 'TOO_MANY_REQUESTS');
    assert.ok(Number(refusals[0].reason.headers.get('retry-after')) >= 1);
    const patient = connect(client.baseURL, { maxRetries: 5 });
    assert.equal((await ingest(patient)).ingested_count, 1, 'the SDK waits as it is told');
  });

  test('nobody there', async () => {
    await assert.rejects(connect('http://127.0.0.1:9').usageEvents.list(), APIConnectionError);
  });
});
