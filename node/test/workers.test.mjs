// Worker threads that are terminated in the middle of calls: what they were told is accepted is billed, once.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { end, meter, prelude, start, times } from './processes.mjs';

const AT_ONCE = 50;
const TERMINATIONS = times(100);

test(`${AT_ONCE} worker threads at once, ${TERMINATIONS} terminated in the middle of calls`, async (t) => {
  const program = `
    const { Worker } = require('node:worker_threads');
    // How many calls have begun, and how many have returned.
    const calls = new Int32Array(new SharedArrayBuffer(8));
    const work = \`
      const { parentPort, workerData } = require('node:worker_threads');
      const { Ingestion, trackAPICall } = require('dodo-ingestion');
      const { calls, settings } = workerData;
      const ingestion = new Ingestion({ ...settings, onAlarm() {} });
      for (let n = 0; ; n += 1) {
        Atomics.add(calls, 0, 1);
        const { eventId } = trackAPICall(ingestion, { customerId: 'cus_workers', metadata: { n } });
        if (eventId === undefined) {
          throw new Error('refused');
        }
        Atomics.add(calls, 1, 1);
        if (n === 10) {
          parentPort.postMessage('calling');
        }
      }
    \`;
    const { onAlarm, ...settings } = options;
    const run = () => new Promise((resolve, reject) => {
      const worker = new Worker(work, { eval: true, workerData: { calls, settings } });
      worker.once('error', reject);
      worker.once('message', () => resolve(worker));
    });
    (async () => {
      let started = 0;
      let terminated = 0;
      const replace = async () => {
        while (started < ${TERMINATIONS}) {
          started += 1;
          const worker = await run();
          await worker.terminate();
          terminated += 1;
        }
      };
      await Promise.all(Array.from({ length: ${AT_ONCE} }, replace));
      // The clients of all threads are one account of one process: it has counted what it has accepted.
      await ingestion.flush({ timeout: 120_000 });
      const { accepted } = ingestion.stats();
      await ingestion.close();
      say(JSON.stringify({ terminated, begun: calls[0], returned: calls[1], accepted }));
    })();
  `;
  const { code, by, lines } = await end(start(['-e', `${prelude('workers')}${program}`]));
  assert.deepEqual([code, by], [0, null]);
  t.diagnostic(lines[0]);
  const { terminated, begun, returned, accepted } = JSON.parse(lines[0]);
  assert.equal(terminated, TERMINATIONS);
  assert.ok(returned <= accepted && accepted <= begun, lines[0]);
  const ids = (await meter.events('cus_workers')).map((event) => event.event_id);
  assert.equal(ids.length, accepted);
  assert.equal(new Set(ids).size, accepted);
});
