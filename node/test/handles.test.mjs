// Clients that come and go leave nothing behind in their process.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { end, meter, optionsOf, prelude, rounds, start } from './processes.mjs';

const CYCLES = rounds(1_000);

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
      spools: count(process.argv[1]),
    });
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
      const before = measure();
      for (let number = 21; number <= 20 + ${CYCLES}; number += 1) await cycle(number);
      // What the last close has begun may not be at its end.
      let after = measure();
      for (let look = 0; look < 500 && JSON.stringify(after) !== JSON.stringify(before); look += 1) {
        await new Promise((go) => setTimeout(go, 20));
        after = measure();
      }
      say(JSON.stringify({ before, after }));
    })();
  `;
  const { code, lines } = await end(start(['-e', `${prelude('before-cycles')}${program}`]));
  assert.equal(code, 0);
  const { before, after } = JSON.parse(lines[0]);
  t.diagnostic(JSON.stringify(after));
  assert.deepEqual(after, before);
  assert.equal((await meter.events('cus_cycles')).length, 1 + Math.floor(CYCLES / 20));
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
      say(process.listenerCount('beforeExit'));
    })();
  `;
  const { code, lines } = await end(
    start(['--expose-gc', '-e', `${prelude('dropped')}${program}`]),
  );
  assert.deepEqual([code, lines], [0, ['1']]);
  assert.equal((await meter.events('cus_dropped')).length, 200);
});
