// A call that is refused for its form is counted and told once, whoever finds it out, and its receipt names the field.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  createBatch,
  trackAPICall,
  trackObjectStorage,
  trackTimeRange,
  ValidationError,
} from 'dodo-ingestion';
import { startMeter } from './meter.mjs';

const meter = await startMeter();

const add = (ingestion, event) => createBatch(ingestion).add(event);
const track = (ingestion, event) => ingestion.track(event);
const VERBS = { track, trackAPICall, trackObjectStorage, trackTimeRange, 'batch.add': add };
const customerId = 'cus_refused';

const CALLS = [
  ['customerId', { customerId: undefined }],
  ['customerId', { customerId: null }],
  ['customerId', { customerId: 7 }],
  ['customerId', {}],
  ['timestamp', { customerId, timestamp: 1_700_000_000 }],
  ['timestamp', { customerId, timestamp: new Date(Number.NaN) }],
  ['eventId', { customerId, eventId: () => 'made' }],
  ['eventName', { customerId, eventName: Symbol('name') }],
  ['customer', { customerId, customer: 'x' }],
  ['customer', { customerId, customer: () => 'x' }],
  // The core's own names are none of ours, and name nobody else.
  ['customer_id', { customerId, customer_id: 'cus_other' }],
  ['customer_id', { customer_id: customerId }],
  ['event_id', { customerId, eventId: 'mine', event_id: 'other' }],
  ['event_name', { customerId, event_name: 'other' }],
  ['metadata', { customerId, metadata: new Map([['n', 1]]) }],
  ['metadata.n', { customerId, metadata: { n: Number.NaN } }],
];
const MEASURES = [
  ['bytes', { customerId, bytes: -1 }, { trackObjectStorage }],
  ['durationMs', { customerId, durationMs: Number.NaN }, { trackTimeRange }],
  ['durationSeconds', { customerId, durationSeconds: '7' }, { trackTimeRange }],
  // Of other verbs these are no part of a call.
  ['bytes', { customerId, bytes: -1 }, { track, 'batch.add': add }],
  ['durationMs', { customerId, durationMs: Number.NaN }, { track, 'batch.add': add }],
];

let accounts = 0;
for (const [field, event, verbs = VERBS] of [...CALLS, ...MEASURES]) {
  for (const [name, verb] of Object.entries(verbs)) {
    accounts += 1;
    const account = `refused-${accounts}`;
    test(`refused: ${account}: ${name}: ${field}`, async () => {
      const told = [];
      const onAlarm = (kind, message) => kind === 'invalid' && told.push(message);
      const ingestion = meter.connect({ account, onAlarm });
      const receipt = verb(ingestion, event);
      if (verb === add) {
        assert.equal(receipt, undefined);
      } else {
        await assert.rejects(receipt, (error) => {
          assert.ok(error instanceof ValidationError, String(error));
          assert.equal(error.field, field);
          assert.ok(error.message.startsWith(field), error.message);
          return true;
        });
        assert.equal(receipt.eventId, undefined);
      }
      assert.equal(ingestion.stats().invalid, 1);
      assert.equal(ingestion.stats().accepted, 0);
      while (told.length === 0) {
        await sleep(1);
      }
      await ingestion.flush();
      assert.equal(told.length, 1);
      // An alarm has the core's names.
      assert.match(told[0], new RegExp(field.replace('customerId', 'customer_id')));
    });
  }
}
