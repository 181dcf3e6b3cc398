import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { TimeoutError } from 'dodo-ingestion';
import { meter as metering } from 'dodo-ingestion/http';
import { startMeter } from 'dodo-ingestion/testing';

const cwd = new URL('..', import.meta.url);

test('what an app bills can be looked at', async () => {
  const meter = await startMeter();
  const metered = metering(meter.connect(), { customer: 'x-customer-id', endpoint: () => '/' });
  const server = createServer((req, res) => {
    metered(req, res);
    res.end('here');
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const url = `http://127.0.0.1:${server.address().port}`;
  await (await fetch(url, { headers: { 'x-customer-id': 'cus_1' } })).text();
  server.close();

  const [event] = await meter.events({ customerId: 'cus_1', count: 1, timeout: 120_000 });
  assert.equal(event.eventName, 'api_call');
  assert.equal(event.metadata.endpoint, '/');
  assert.ok(event.timestamp instanceof Date);
  assert.equal((await meter.events({ eventName: 'api_call' })).length, 1);
  assert.deepEqual(await meter.events({ customerId: 'cus_2' }), []);
  await assert.rejects(meter.events({ count: 2, timeout: 100 }), TimeoutError);
  await meter.stop();
  await meter.stop();
  await assert.rejects(fetch(meter.url));
});

test('the clock of a test is not that by which events are waited for', async (t) => {
  const meter = await startMeter();
  t.after(() => meter.stop());
  t.mock.timers.enable();
  await assert.rejects(meter.events({ count: 1, timeout: 100 }), TimeoutError);
  const client = meter.connect();
  let found;
  client.expect(
    new Promise((resolve) => {
      found = resolve;
    }),
  );
  await assert.rejects(client.flush({ timeout: 100 }), TimeoutError);
  found();
});

test('a meter that is stopped keeps no client', async () => {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc');
  const meter = await startMeter();
  const client = new WeakRef(meter.connect());
  await meter.stop();
  for (let tries = 0; client.deref() !== undefined; tries += 1) {
    assert.ok(tries < 100, 'it is kept');
    await sleep(10);
    gc();
  }
  await meter.stop();
});

test('what a client billed that its app has closed can be looked at', async (t) => {
  const meter = await startMeter();
  t.after(() => meter.stop());
  const [closed, open] = [meter.connect(), meter.connect({ account: 'open' })];
  closed.track({ customerId: 'cus_closed' });
  await closed.close();
  open.track({ customerId: 'cus_open' });
  for (const customerId of ['cus_closed', 'cus_open', 'cus_closed']) {
    const [event] = await meter.events({ customerId, count: 1 });
    assert.equal(event.customerId, customerId);
  }
});

test('options of a meter that there are not', async (t) => {
  await assert.rejects(startMeter({ binry: 'dodometer' }), { field: 'binry' });
  const meter = await startMeter();
  t.after(() => meter.stop());
  await assert.rejects(meter.events({ customer: 'cus_1' }), {
    name: 'ConfigurationError',
    message: 'customer: is no option; the nearest is customerId',
  });
});

test('a program that is not there is said', async () => {
  await assert.rejects(startMeter({ binary: '/nowhere/dodometer' }), /ENOENT/);
  await assert.rejects(startMeter({ binary: process.execPath }), /exited/);
  const script =
    "require('dodo-ingestion/testing').startMeter().catch(({ message }) => console.log(message))";
  const env = { ...process.env, DODOMETER_BIN: '', PATH: '' };
  const { stdout } = spawnSync(process.execPath, ['-e', script], { cwd, env, encoding: 'utf8' });
  assert.match(stdout, /dodometer is not installed: `npm install dodometer`/);
});

for (const [end, status, signal] of [
  ['', 0, null],
  ["process.kill(process.pid, 'SIGKILL')", null, 'SIGKILL'],
]) {
  test(`a meter that is not stopped ends with its process: ${signal ?? 'exit'}`, async () => {
    const script = `
      const { startMeter } = require('dodo-ingestion/testing');
      startMeter().then(({ url }) => {
        require('node:fs').writeSync(1, url);
        ${end};
      });
    `;
    const options = { cwd, encoding: 'utf8', timeout: 120_000 };
    const ended = spawnSync(process.execPath, ['-e', script], options);
    assert.deepEqual([ended.status, ended.signal], [status, signal]);
    await assert.rejects(async () => {
      for (const until = Date.now() + 120_000; Date.now() < until; ) {
        await (await fetch(ended.stdout)).text();
      }
    }, TypeError);
  });
}
