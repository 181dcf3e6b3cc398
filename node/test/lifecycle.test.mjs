// How a process can end, and what is billed then: all that it was told is accepted, once.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Ingestion } from 'dodo-ingestion';
import { startMeter } from './meter.mjs';

const WITHIN = 60_000;

const meter = await startMeter();
const spoolDir = mkdtempSync(join(tmpdir(), 'dodo-ingestion-lifecycle-'));
after(() => rmSync(spoolDir, { recursive: true, force: true }));

/** The options of a client whose spool outlives its process. */
const options = (account) => ({
  apiKey: 'dodo_test_node',
  environment: 'test_mode',
  baseUrl: meter.url,
  eventName: 'api_call',
  spoolDir,
  account,
});

/** Runs a program with `ingestion` and `accept(count)`, which tracks calls and prints how many were accepted. */
async function run(account, program, signal) {
  const script = `
    const { Ingestion, trackAPICall } = require('dodo-ingestion');
    const say = require(process.env.SAY);
    const options = ${JSON.stringify(options(account))};
    const ingestion = new Ingestion({ ...options, onAlarm() {} });
    const accept = (count) => {
      for (let n = 0; n < count; n += 1) {
        const { eventId } = trackAPICall(ingestion, { customerId: 'cus_${account}', metadata: { n } });
        if (eventId) say(eventId);
      }
    };
    ${program}
  `;
  const child = spawn(process.execPath, ['-e', script], {
    cwd: new URL('..', import.meta.url),
    env: { ...process.env, SAY: fileURLToPath(new URL('say.cjs', import.meta.url)) },
    stdio: ['ignore', 'pipe', signal ? 'inherit' : 'pipe'],
  });
  let told = '';
  child.stdout.on('data', (chunk) => {
    told += chunk;
    if (signal && !child.killed && told.split('\n').length > 50) {
      child.kill(signal);
    }
  });
  child.stderr?.resume();
  const [code, by] = await once(child, 'close');
  // The last line may have been cut off by the end.
  return { code, by, ids: told.split('\n').slice(0, -1) };
}

/** Whoever comes next bills what is left. */
async function billed(account, ids, next = true) {
  const customer = `cus_${account}`;
  const ingestion = next ? new Ingestion({ ...options(account), onAlarm() {} }) : undefined;
  const until = Date.now() + WITHIN;
  let found = [];
  while (found.length < ids.length && Date.now() < until) {
    await sleep(50);
    found = await meter.events(customer);
  }
  await ingestion?.close({ timeout: WITHIN });
  found = await meter.events(customer);
  const foundIds = found.map((event) => event.event_id);
  assert.equal(new Set(foundIds).size, foundIds.length);
  for (const id of ids) {
    assert.ok(foundIds.includes(id), `${id} of ${account} was accepted and is not billed`);
  }
  return foundIds;
}

test('the natural end bills what waits', async () => {
  const { code, ids } = await run('natural', 'accept(500);');
  assert.deepEqual([code, ids.length], [0, 500]);
  assert.equal((await billed('natural', ids, false)).length, 500);
});

test('process.exit() leaves what waits to the next', async () => {
  const { code, ids } = await run('exit', 'accept(500); process.exit(3);');
  assert.deepEqual([code, ids.length], [3, 500]);
  assert.equal((await billed('exit', ids)).length, 500);
});

test('an uncaught exception leaves what waits to the next', async () => {
  const { code, ids } = await run('uncaught', 'accept(500); throw new Error("planted");');
  assert.deepEqual([code, ids.length], [1, 500]);
  assert.equal((await billed('uncaught', ids)).length, 500);
});

for (const signal of ['SIGTERM', 'SIGKILL']) {
  test(`${signal} in the middle of calls leaves what was accepted to the next`, async () => {
    const account = signal.toLowerCase();
    const { by, ids } = await run(account, 'for (;;) accept(1);', signal);
    assert.equal(by, signal);
    assert.ok(ids.length >= 50);
    // A call may have been accepted whose id was not told any more.
    assert.ok((await billed(account, ids)).length <= ids.length + 1);
  });
}

test('SIGTERM with a handler that closes bills all', async () => {
  const program = `
    let timer;
    const more = () => {
      accept(1);
      timer = setImmediate(more);
    };
    more();
    process.on('SIGTERM', async () => {
      clearImmediate(timer);
      await ingestion.close();
      process.exit(0);
    });
  `;
  const { code, ids } = await run('graceful', program, 'SIGTERM');
  assert.equal(code, 0);
  await billed('graceful', ids, false);
});

test('worker threads that are terminated in the middle of calls', async () => {
  const program = `
    const { Worker } = require('node:worker_threads');
    const work = \`
      const { Ingestion, trackAPICall } = require('dodo-ingestion');
      const say = require(process.env.SAY);
      const ingestion = new Ingestion({ ...\${JSON.stringify(options)}, onAlarm() {} });
      for (;;) {
        const { eventId } = trackAPICall(ingestion, { customerId: 'cus_workers' });
        say(eventId);
      }
    \`;
    (async () => {
      for (let round = 0; round < 5; round += 1) {
        const workers = [1, 2].map(() => new Worker(work, { eval: true }));
        await Promise.all(workers.map((worker) => new Promise((go) => worker.once('online', go))));
        await new Promise((go) => setTimeout(go, 20 * round));
        await Promise.all(workers.map((worker) => worker.terminate()));
      }
      accept(1);
      await ingestion.close();
    })();
  `;
  const { code, ids } = await run('workers', program);
  assert.equal(code, 0);
  assert.ok(ids.length > 0);
  await billed('workers', ids);
});

test('a cluster, of which a worker is killed', async () => {
  const child = spawn(process.execPath, [fileURLToPath(new URL('cluster.cjs', import.meta.url))], {
    env: { ...process.env, OPTIONS: JSON.stringify(options('cluster')) },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let told = '';
  child.stdout.on('data', (chunk) => {
    told += chunk;
  });
  const [code] = await once(child, 'close');
  assert.equal(code, 0);
  const ids = told.split('\n').slice(0, -1);
  assert.equal(ids.length, 600);
  assert.equal((await billed('cluster', ids)).length, 600);
});
