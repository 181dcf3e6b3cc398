// What one call costs the thread that adds it, up to the next turn of the event loop.

import { performance } from 'node:perf_hooks';
import { blueprints, ours, PATIENCE, posthog } from './clients.mjs';
import { run, turn } from './contender.mjs';
import { call, capture } from './event.mjs';

const WARM_UP = 200;

/** Times the loop that adds the calls. The first of them are added before. */
async function measure({ calls }, add) {
  for (let number = 0; number < WARM_UP; number += 1) {
    add(number);
  }
  await turn();
  const start = performance.now();
  for (let number = 0; number < calls; number += 1) {
    add(number);
  }
  await turn();
  return { nanoseconds: ((performance.now() - start) * 1e6) / calls, made: calls + WARM_UP };
}

await run({
  'build-call': (options) => measure(options, call),

  async ours(options) {
    const ingestion = await ours(options);
    const batch = ingestion.createBatch();
    const measured = await measure(options, (number) => batch.add(call(number)));
    await ingestion.close(PATIENCE);
    return measured;
  },

  async blueprints(options) {
    const batch = await blueprints(options);
    const measured = await measure(options, (number) => batch.add(call(number)));
    await batch.cleanup();
    return measured;
  },

  async posthog(options) {
    const client = await posthog(options);
    const measured = await measure(options, (number) => client.capture(capture(number)));
    await client.shutdown();
    return measured;
  },
});
