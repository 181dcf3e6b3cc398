// Customers that take their time to be found.

import assert from 'node:assert/strict';
import { subscribe } from 'node:diagnostics_channel';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { meter } from 'dodo-ingestion/http';
import { meter as api, call, client, eventually, listen, someone } from './support.mjs';

/** A server whose one call has been answered, and whose customer is looked up. */
async function answered(customer, onMissingCustomer) {
  const ingestion = client();
  const metered = meter(ingestion, { customer, onMissingCustomer });
  const server = createServer((req, res) => {
    metered(req, res);
    res.end();
  });
  await call(await listen(server), '/');
  await new Promise((resolve) => server.close(resolve));
  return { ingestion, metered };
}

test('a graceful stop bills the call whose customer is being looked up, as of its end', async () => {
  const customer = someone();
  let found;
  const looked = async () => {
    await sleep(200);
    found = Date.now();
    return customer;
  };
  const tracked = [];
  subscribe('dodo-ingestion:track', ({ event }) => tracked.push(event));
  const { ingestion, metered } = await answered(looked);
  await ingestion.close();
  assert.deepEqual([metered.stats().billed, metered.stats().refused], [1, 0]);
  assert.equal((await api.events(customer)).length, 1);
  assert.ok(tracked[0].timestamp.getTime() < found, 'the time is not that of the call');
});

test('a clock that a test has set is not that of the call', async (t) => {
  const customer = someone();
  t.mock.timers.enable({ apis: ['Date'], now: 0 });
  const { ingestion, metered } = await answered(async () => customer);
  t.mock.timers.reset();
  await ingestion.close();
  assert.deepEqual([metered.stats().billed, metered.stats().refused], [1, 0]);
});

test('one that fails holds nothing up', async () => {
  const customer = someone();
  const failing = async () => {
    await sleep(50);
    throw new Error('planted');
  };
  const { ingestion } = await answered(failing, { default: customer });
  await ingestion.flush();
  assert.equal((await api.events(customer)).length, 1);
});

test('one that never ends is waited for as long as is asked for, or until a signal', async () => {
  const { ingestion, metered } = await answered(() => new Promise(() => {}));
  const stop = new AbortController();
  const flushing = ingestion.flush({ signal: stop.signal });
  stop.abort(new Error('planted'));
  await assert.rejects(flushing, /planted/);
  await assert.rejects(ingestion.flush({ timeout: -1 }), { code: 'CONFIGURATION_ERROR' });
  await assert.rejects(ingestion.flush({ timeout: Number.NaN }), { code: 'CONFIGURATION_ERROR' });
  const late = { name: 'TimeoutError', message: /not accepted yet: 1\b.*looked up/ };
  await assert.rejects(ingestion.flush({ timeout: 10 }), late);
  await assert.rejects(ingestion.close({ timeout: 10 }), late);
  assert.equal(metered.stats().billed, 0);
});

test('what outlasts a flush is billed by the next, and what outlasts a close is refused and told', async () => {
  const customer = someone();
  const warnings = [];
  const listener = ({ code, message }) => warnings.push([code, message]);
  process.on('warning', listener);
  const find = [];
  const { ingestion, metered } = await answered(() => new Promise((found) => find.push(found)));
  await assert.rejects(ingestion.flush({ timeout: 10 }), { name: 'TimeoutError' });
  find.pop()(customer);
  await ingestion.flush();
  assert.equal((await api.events(customer)).length, 1);

  const closing = await answered(() => new Promise((found) => find.push(found)));
  await assert.rejects(closing.ingestion.close({ timeout: 10 }), { name: 'TimeoutError' });
  find.pop()(customer);
  await eventually(() => closing.metered.stats().refused === 1 && warnings.length > 0);
  process.off('warning', listener);
  assert.equal(metered.stats().billed, 1);
  assert.equal((await api.events(customer)).length, 1);
  const [[code, message], ...more] = warnings;
  assert.deepEqual([code, more], ['refused', []]);
  assert.match(message, /will not be billed/);
});
