// A server that is started anew at each edit.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { answer, command, copyOf, freePort, meterOfTests, start, stop } from './support.mjs';

const meter = await meterOfTests();

test('tsx watch', async () => {
  const directory = copyOf('tsx');
  const PORT = String(await freePort());
  const server = start(meter, directory, [command('tsx'), 'watch', 'server.ts'], { PORT });
  let calls = 0;
  for (let edition = 1; edition <= 4; edition += 1) {
    const path = join(directory, 'server.ts');
    const text = readFileSync(path, 'utf8').replace(/= \d;/, `= ${edition};`);
    writeFileSync(path, text);
    const options = { headers: { 'x-customer-id': 'cus_watch', connection: 'close' } };
    await answer(server, `http://127.0.0.1:${PORT}`, options, (text) => {
      calls += 1;
      return text === String(edition);
    });
  }
  await stop(server);
  // A server that takes long to end is killed by tsx, and leaves its calls to the next.
  meter.connect({ durability: 'disk', spoolDir: join(directory, '.spool') });
  await meter.events({ customerId: 'cus_watch', count: calls, timeout: 120_000 });
  const events = await meter.events({ customerId: 'cus_watch' });
  // What the end of a server has cut off was billed and not answered.
  assert.equal(events.filter(({ metadata }) => !metadata.aborted).length, calls);
});
