// A real app of Next.js, built and served, and in development while it is edited.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  answer,
  command,
  copyOf,
  freePort,
  meterOfTests,
  readme,
  run,
  start,
  stop,
} from './support.mjs';

const meter = await meterOfTests();

function app() {
  const directory = copyOf('next');
  writeFileSync(join(directory, 'next.config.mjs'), `export default { ${readme('Next.js')} };\n`);
  return directory;
}

const as = (customer) => ({ headers: { 'x-customer-id': customer } });

test('next build and next start', async () => {
  const directory = app();
  await run(meter, directory, [command('next'), 'build']);
  const port = await freePort();
  const server = start(meter, directory, [command('next'), 'start', '--port', String(port)]);
  const url = `http://127.0.0.1:${port}/api/users/7`;
  assert.equal(await answer(server, url, as('cus_next')), '{"id":"7","EDITION":1}');
  await answer(server, url, as('cus_next'));
  const events = await meter.events({ customerId: 'cus_next', count: 2, timeout: 120_000 });
  assert.deepEqual(
    events.map((event) => event.metadata.endpoint),
    Array(2).fill('/api/users/[id]'),
  );
  await stop(server);
  assert.equal((await meter.events({ customerId: 'cus_next' })).length, 2);
});

test('next dev, while the app is edited', async () => {
  const directory = app();
  const port = await freePort();
  const server = start(meter, directory, [command('next'), 'dev', '--port', String(port)]);
  const url = `http://127.0.0.1:${port}/api/users/7`;
  let calls = 0;
  for (let edition = 1; edition <= 4; edition += 1) {
    // The route, and with it the module that makes the client.
    for (const name of ['app/api/users/[id]/route.js', 'lib/billing.js']) {
      const path = join(directory, name);
      const text = readFileSync(path, 'utf8').replace(/EDITION = \d/, `EDITION = ${edition}`);
      writeFileSync(path, `${text}\n// ${edition}\n`);
    }
    await answer(server, url, as('cus_dev'), (text) => {
      calls += 1;
      return text.includes(`"EDITION":${edition}`);
    });
  }
  await meter.events({ customerId: 'cus_dev', count: calls, timeout: 120_000 });
  await stop(server);
  assert.equal((await meter.events({ customerId: 'cus_dev' })).length, calls);
});
