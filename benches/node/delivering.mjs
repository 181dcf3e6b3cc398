// What it takes to deliver calls, from the first that is made to the last that is acknowledged.

import { performance } from 'node:perf_hooks';
import { blueprints, ours, PATIENCE, posthog, sdk } from './clients.mjs';
import { run, turn } from './contender.mjs';
import { call, capture, event } from './event.mjs';

/** Calls that the existing package sends at once, as the default of its batch has it. */
const AT_A_TIME = 100;
/** What PostHog's queue holds. Whatever comes then takes the place of the oldest. */
const QUEUE = 1000;

/** Times all that is done, with its processor time and the memory of this process at its highest. */
async function measure(deliver) {
  await turn();
  const busy = performance.eventLoopUtilization();
  const cpu = process.cpuUsage();
  const start = performance.now();
  await deliver();
  const seconds = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  return {
    seconds,
    busy_seconds: performance.eventLoopUtilization(busy).active / 1000,
    cpu_seconds: (user + system) / 1e6,
    peak_mib: process.resourceUsage().maxRSS / 1024,
  };
}

/** The numbers of the calls, so many at a time. */
function* chunks({ calls }, size) {
  for (let first = 0; first < calls; first += size) {
    yield Array.from({ length: Math.min(size, calls - first) }, (_, index) => first + index);
  }
}

await run({
  'build-event': (options) =>
    measure(async () => {
      for (const numbers of chunks(options, AT_A_TIME)) {
        numbers.map(event);
        await turn();
      }
    }),

  async ours(options) {
    const ingestion = await ours(options);
    const batch = ingestion.createBatch();
    const measured = await measure(async () => {
      for (const numbers of chunks(options, AT_A_TIME)) {
        for (const number of numbers) {
          batch.add(call(number));
        }
        await turn();
      }
      await batch.flush(PATIENCE);
    });
    await ingestion.close(PATIENCE);
    return measured;
  },

  async blueprints(options) {
    // A batch that is full sends itself and nobody can wait for that.
    const batch = await blueprints(options, { maxSize: AT_A_TIME + 1 });
    return await measure(async () => {
      for (const numbers of chunks(options, AT_A_TIME)) {
        for (const number of numbers) {
          batch.add(call(number));
        }
        await batch.flush();
      }
    });
  },

  async sdk(options) {
    const client = await sdk(options);
    return await measure(async () => {
      for (const numbers of chunks(options, 1000)) {
        await client.usageEvents.ingest({ events: numbers.map(event) });
      }
    });
  },

  async posthog(options) {
    const client = await posthog(options);
    return await measure(async () => {
      for (const numbers of chunks(options, QUEUE)) {
        for (const number of numbers) {
          client.capture(capture(number));
        }
        await client.flush();
      }
      await client.shutdown();
    });
  },
});
