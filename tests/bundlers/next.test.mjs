// A real app of Next.js, built and served, and in development while it is edited.

import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, test } from 'node:test';
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

function app(more = '') {
  const directory = copyOf('next');
  const config = `export default { ${readme('Next.js')} ${more} };\n`;
  writeFileSync(join(directory, 'next.config.mjs'), config);
  return directory;
}

const as = (customer) => ({ headers: { 'x-customer-id': customer } });

test('next build, next start, and what it has traced, alone', async () => {
  const root = JSON.stringify(import.meta.dirname);
  const directory = app(`output: 'standalone', outputFileTracingRoot: ${root},`);
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

  // Where no other package is found.
  const elsewhere = mkdtempSync(join(tmpdir(), 'dodo-ingestion-standalone-'));
  after(() => rmSync(elsewhere, { recursive: true, force: true }));
  const whole = { recursive: true, verbatimSymlinks: true };
  cpSync(join(directory, '.next/standalone'), elsewhere, whole);
  const place = join(elsewhere, '.work', basename(directory));
  const env = { PORT: String(await freePort()), HOSTNAME: '127.0.0.1' };
  const alone = start(meter, place, [process.execPath, 'server.js'], env);
  await answer(alone, `http://127.0.0.1:${env.PORT}/api/users/7`, as('cus_alone'));
  await meter.events({ customerId: 'cus_alone', count: 1, timeout: 120_000 });
  await stop(alone);
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
