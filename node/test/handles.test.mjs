// Clients that come and go leave nothing behind in their process.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { end, meter, optionsOf, prelude, start, times } from './processes.mjs';

const CYCLES = times(1_000);

test(`${CYCLES} clients, created and closed`, async (t) => {
  const program = `
    const { readdirSync } = require('node:fs');
    const count = (directory) => {
      try {
        return readdirSync(directory).length;
      } catch {
        return 0; // not Linux
      }
    };
    const measure = () => ({
      threads: count('/proc/self/task'),
      descriptors: count('/proc/self/fd'),
      resources: process.getActiveResourcesInfo().length,
      listeners: process.listenerCount('beforeExit'),
    });
    /** When what has been begun is at its end: nothing changes any more. */
    const settled = async () => {
      let last;
      for (let same = 0; same < 25; same += 1) {
        const now = JSON.stringify(measure());
        if (now !== last) same = 0;
        last = now;
        await new Promise((go) => setTimeout(go, 20));
      }
      return measure();
    };
    const settings = ${JSON.stringify(optionsOf('cycles'))};
    const cycle = async (number) => {
      const client = new Ingestion({ ...settings, onAlarm() {} });
      // Most are made for nothing: a request each would be waited for.
      if (number % 20 === 0) {
        await trackAPICall(client, { customerId: 'cus_cycles', metadata: { number } });
      }
      await client.close();
    };
    (async () => {
      await ingestion.close();
      for (let number = 1; number <= 20; number += 1) await cycle(number);
      const before = await settled();
      for (let number = 21; number <= 20 + ${CYCLES}; number += 1) await cycle(number);
      say(JSON.stringify({ before, after: await settled() }));
    })();
  `;
  const { code, lines } = await end(start(['-e', `${prelude('before-cycles')}${program}`]));
  assert.equal(code, 0);
  const { before, after } = JSON.parse(lines[0]);
  t.diagnostic(lines[0]);
  for (const [what, count] of Object.entries(after)) {
    assert.ok(count <= before[what], `more ${what}: ${lines[0]}`);
  }
  assert.equal((await meter.events('cus_cycles')).length, 1 + Math.floor(CYCLES / 20));
});

test('a batch that somebody has is billed at the end of the program, also without its client', async () => {
  const program = `
    const { createBatch } = require('dodo-ingestion');
    const open = () => {
      const client = new Ingestion({ ...options, account: 'batch-alone' });
      global.batch = createBatch(client, { flushInterval: 300_000 });
    };
    open();
    (async () => {
      await ingestion.close();
      for (let turns = 0; turns < 20; turns += 1) {
        await new Promise((go) => setTimeout(go, 10));
        global.gc();
      }
      batch.add({ customerId: 'cus_batch_alone' });
    })();
  `;
  const { code } = await end(start(['--expose-gc', '-e', `${prelude('before-batch')}${program}`]));
  assert.equal(code, 0);
  assert.equal((await meter.events('cus_batch_alone')).length, 1);
});

test('what a client has in memory is billed at the end of the program, also when nobody has it any more', async () => {
  const program = `
    const open = () => {
      const memory = { account: 'memory-alone', durability: 'memory', spoolDir: undefined };
      const client = new Ingestion({ ...options, ...memory, linger: 300_000 });
      trackAPICall(client, { customerId: 'cus_memory_alone' });
    };
    open();
    (async () => {
      await ingestion.close();
      const ends = process[Symbol.for('dodo-ingestion.open.1')];
      for (let turns = 0; turns < 100 && ends.size > 0; turns += 1) {
        await new Promise((go) => setTimeout(go, 10));
        global.gc();
      }
      say(ends.size);
    })();
  `;
  const args = ['--expose-gc', '-e', `${prelude('before-memory')}${program}`];
  const { code, lines } = await end(start(args));
  assert.deepEqual([code, lines], [0, ['0']]);
  assert.equal((await meter.events('cus_memory_alone')).length, 1);
});

test('clients that nobody closes are let go with their last reference', async () => {
  const program = `
    (async () => {
      for (let n = 0; n < 200; n += 1) {
        const client = new Ingestion({ ...options });
        trackAPICall(client, { customerId: 'cus_dropped', metadata: { n } });
        if (n % 50 === 49) {
          await new Promise((go) => setImmediate(go));
          global.gc();
        }
      }
      await ingestion.close();
      const ends = process[Symbol.for('dodo-ingestion.open.1')];
      for (let turns = 0; turns < 100 && ends.size > 10; turns += 1) {
        await new Promise((go) => setTimeout(go, 10));
        global.gc();
      }
      say(process.listenerCount('beforeExit'));
      say(ends.size <= 10);
    })();
  `;
  const { code, lines } = await end(
    start(['--expose-gc', '-e', `${prelude('dropped')}${program}`]),
  );
  assert.deepEqual([code, lines], [0, ['1', 'true']]);
  assert.equal((await meter.events('cus_dropped')).length, 200);
});
