// The verbs that wait, as listeners, and what is given to them that is no options.

import assert from 'node:assert/strict';
import { EventEmitter, getEventListeners } from 'node:events';
import { test } from 'node:test';
import { createBatch, trackAPICall } from 'dodo-ingestion';
import fastify from 'fastify';
import { billed, end, meter, optionsOf, prelude, spoolDir, start } from './processes.mjs';

const connect = (account, options) => meter.connect({ account, spoolDir, ...options });

for (const verb of ['batch.flush', 'batch.cleanup', 'ingestion.flush', 'ingestion.close']) {
  test(`${verb} listens to SIGTERM`, async () => {
    const account = `term-${verb.replace('.', '-')}`;
    const program = `
      const { createBatch } = require('dodo-ingestion');
      const batch = createBatch(ingestion, { flushInterval: 300_000 });
      process.on('SIGTERM', ${verb});
      process.on('SIGTERM', () => { clearInterval(alive); });
      const alive = setInterval(() => {}, 1_000);
      batch.add({ customerId: 'cus_${account}', eventId: 'event-${account}' });
      say('event-${account}');
      process.kill(process.pid, 'SIGTERM');
    `;
    const { code, lines } = await end(start(['-e', `${prelude(account)}${program}`]));
    assert.deepEqual([code, lines], [0, [`event-${account}`]]);
    await billed(account, lines, false);
  });
}

test('an emitter and Fastify call a verb with what they tell', async () => {
  const ingestion = connect('emitters');
  const batch = createBatch(ingestion, { flushInterval: 300_000 });
  const add = () => batch.add({ customerId: 'cus_emitters' });
  const emitter = new EventEmitter({ captureRejections: true });
  const failed = [];
  emitter.on('error', (error) => failed.push(error));
  emitter.on('end', batch.flush);
  for (const told of [
    [],
    [7],
    [new Error('planted')],
    ['text', 1],
    [{ code: 1 }],
    [{ timeout: 60_000 }],
  ]) {
    add();
    emitter.emit('end', ...told);
  }
  const app = fastify();
  app.addHook('onClose', batch.cleanup);
  add();
  await app.close();
  assert.deepEqual(failed, []);
  assert.equal((await meter.events('cus_emitters')).length, 7);
});

test('a listener that cannot get through is a warning and not the end of the process', async () => {
  const options = JSON.stringify({ baseUrl: 'http://127.0.0.1:9', exitTimeout: 0 });
  const program = `
    const { EventEmitter } = require('node:events');
    const { createBatch } = require('dodo-ingestion');
    const batch = createBatch(new Ingestion({ ...options, ...${options} }));
    batch.add({ customerId: 'cus_unreached' });
    const emitter = new EventEmitter();
    for (const verb of [batch.flush, batch.cleanup]) emitter.on('end', verb);
    const timer = setInterval(batch.flush, 1, { timeout: 300 });
    process.on('warning', ({ code, message }) => {
      if (code === 'wait') say(message);
      clearInterval(timer);
    });
    emitter.emit('end', { timeout: 300 });
  `;
  const { code, lines } = await end(start(['-e', `${prelude('unreached')}${program}`]));
  assert.equal(code, 0);
  assert.ok(lines.length >= 3, `${lines}`);
  for (const line of lines) {
    assert.match(line, /NetworkError|TimeoutError|ClosedError/);
  }
});

test('what is no options is refused where it was meant to be some', async () => {
  const ingestion = connect('no-options');
  const batch = createBatch(ingestion);
  const refused = { code: 'CONFIGURATION_ERROR' };
  for (const verb of [ingestion.flush, batch.flush, batch.cleanup, ingestion.close]) {
    await assert.rejects(verb(5_000), { ...refused, message: /{ timeout }/ });
    await assert.rejects(verb(new AbortController().signal), { ...refused, message: /{ signal }/ });
    await assert.rejects(verb({ timout: 5 }), { ...refused, field: 'timout' });
    await assert.rejects(verb({ timeout: 5, more: 1 }), { ...refused, field: 'more' });
    await assert.rejects(verb({ timeout: Number.NaN }), { ...refused, field: 'timeout' });
    await assert.rejects(verb({ timeout: '5' }), { ...refused, field: 'timeout' });
    await assert.rejects(verb({ signal: new AbortController() }), { ...refused, field: 'signal' });
  }
  const receipt = trackAPICall(ingestion, { customerId: 'cus_no_options' });
  const signal = new AbortController();
  await assert.rejects(receipt.delivered({ signal }), { ...refused, field: 'signal' });
  await assert.rejects(ingestion.flush(5_000), refused);
  for (const none of [undefined, null, {}, { timeout: null, signal: null }]) {
    await ingestion.flush(none);
    await batch.flush(none);
  }
});

test('a close that never began leaves the end of the program to its own', async () => {
  const program = `
    ingestion.close({ timeout: NaN }).catch((error) => {
      say(error.code);
      accept(1);
    });
  `;
  const { code, lines } = await end(start(['-e', `${prelude('mistaken')}${program}`]));
  const [error, id] = lines;
  assert.deepEqual([code, error], [0, 'CONFIGURATION_ERROR']);
  await billed('mistaken', [id], false);
});

test('a close whose signal came when it had closed leaves nothing to warn of', async () => {
  const program = `
    process.on('warning', ({ code }) => say(code));
    (async () => {
      accept(1);
      await ingestion.flush();
      const stop = new AbortController();
      const closing = ingestion.close({ signal: stop.signal });
      stop.abort();
      await closing.catch(() => {});
    })();
  `;
  const { code, lines } = await end(start(['-e', `${prelude('late-signal')}${program}`]));
  assert.deepEqual([code, lines.slice(1)], [0, []]);
});

test('what the end of the program has others make is billed', async () => {
  const program = `
    let ends = 0;
    process.on('beforeExit', () => {
      ends += 1;
      if (ends === 1) accept(1);
    });
    process.once('beforeExit', async () => {
      await new Promise((go) => setTimeout(go, 200));
      accept(1);
    });
    accept(1);
  `;
  const { code, lines } = await end(start(['-e', `${prelude('at-end')}${program}`]));
  assert.deepEqual([code, lines.length], [0, 3]);
  await billed('at-end', lines, false);
});

test('the end of the program does not wait twice for what does not get through', async () => {
  const options = { ...optionsOf('twice'), baseUrl: 'http://127.0.0.1:9', exitTimeout: 300 };
  const program = `
    const other = new Ingestion({ ...${JSON.stringify(options)}, onAlarm() {} });
    trackAPICall(other, { customerId: 'cus_twice' });
    let ends = 0;
    process.on('beforeExit', () => { ends += 1; });
    process.on('warning', ({ code }) => say(code));
    process.on('exit', () => say(String(ends)));
  `;
  const { code, lines } = await end(start(['-e', `${prelude('once')}${program}`]));
  assert.deepEqual([code, lines.filter((line) => line === 'exit').length], [0, 1]);
  assert.ok(Number(lines.at(-1)) >= 1);
});

test('a signal keeps nothing of a wait that is over', async () => {
  const ingestion = connect('signals');
  const stop = new AbortController();
  await Promise.all(
    Array.from({ length: 20 }, () => {
      const receipt = trackAPICall(ingestion, { customerId: 'cus_signals' });
      return Promise.all([
        receipt.delivered({ signal: stop.signal }),
        ingestion.flush({ signal: stop.signal }),
      ]);
    }),
  );
  assert.equal(getEventListeners(stop.signal, 'abort').length, 0);
  const flushing = ingestion.flush({ signal: stop.signal });
  assert.ok(getEventListeners(stop.signal, 'abort').length <= 1);
  await flushing;
});

test('a signal made of a long-lived one can be collected after its wait', async () => {
  const program = `
    const lasting = new AbortController();
    const gone = [];
    (async () => {
      for (let n = 0; n < 50; n += 1) {
        const signal = AbortSignal.any([lasting.signal]);
        gone.push(new WeakRef(signal));
        await ingestion.flush({ signal });
      }
      for (let n = 0; n < 20; n += 1) {
        await new Promise((go) => setTimeout(go, 10));
        global.gc();
      }
      say(String(gone.filter((each) => each.deref()).length));
      lasting.abort();
    })();
  `;
  const { lines } = await end(start(['--expose-gc', '-e', `${prelude('any')}${program}`]));
  assert.ok(Number(lines[0]) <= 1, `${lines[0]} of 50 signals are kept`);
});
