import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IngestionError, trackAPICall } from 'dodo-ingestion';
import { parseExactly, startMeter, vectors } from './meter.mjs';

/** The core's names, where this package has others. */
const HERE = { customer_id: 'customerId', event_id: 'eventId', event_name: 'eventName' };

const meter = await startMeter();

function call({ input, timestamp_offset_seconds: offset }) {
  return {
    customerId: input.customer_id,
    eventId: input.event_id,
    eventName: input.event_name,
    metadata: input.metadata,
    timestamp: offset === undefined ? undefined : new Date(Date.now() + offset * 1000),
  };
}

for (const vector of vectors().filter((each) => each.error)) {
  test(`refused: ${vector.name}`, async () => {
    const receipt = trackAPICall(meter.connect(), call(vector));
    await assert.rejects(receipt, (error) => {
      assert.ok(error instanceof IngestionError);
      assert.equal(error.kind, vector.error.kind);
      assert.equal(error.field, HERE[vector.error.field] ?? vector.error.field);
      return true;
    });
    assert.equal(receipt.eventId, undefined);
    await assert.rejects(receipt.delivered(), IngestionError);
  });
}

test('accepted', async () => {
  const accepted = vectors().filter((each) => each.stored);
  const ingestion = meter.connect();
  for (const vector of accepted) {
    const receipt = trackAPICall(ingestion, call(vector));
    await receipt;
    assert.equal(receipt.eventId, vector.input.event_id);
  }
  await ingestion.flush({ timeout: 120_000 });
  for (const vector of accepted) {
    const billed = parseExactly(
      await meter.text(`/events/${encodeURIComponent(vector.input.event_id)}`),
    );
    if (vector.restamped) {
      delete billed.metadata.original_timestamp;
    }
    const expected = { metadata: null, ...parseExactly(vector.stored) };
    for (const [name, value] of Object.entries(expected)) {
      assert.deepEqual(billed[name], value, `${vector.name}: ${name}`);
    }
  }
});

test('a call may have its fields from its class', async () => {
  class Call {
    eventId = 'evt_of_a_class';
    get customerId() {
      return 'cus_of_a_class';
    }
    get metadata() {
      return { plan: 'pro' };
    }
  }
  const ingestion = meter.connect();
  await trackAPICall(ingestion, new Call());
  await ingestion.flush({ timeout: 120_000 });
  const billed = parseExactly(await meter.text('/events/evt_of_a_class'));
  assert.equal(billed.customer_id, 'cus_of_a_class');
  assert.deepEqual(billed.metadata, { plan: 'pro' });
});
