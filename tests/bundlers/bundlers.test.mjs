// Bundles as the README says that they are made, run where the package is installed.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { command, copyOf, meterOfTests, readme, run } from './support.mjs';

/** Runs a bundle in which the package is not, and looks at the bill. */
async function billsOneCall(meter, app, bundle) {
  const customerId = 'cus_bundled';
  const before = await meter.events({ customerId });
  assert.equal(await run(meter, app, [process.execPath, bundle]), 'true\n');
  const events = await meter.events({ customerId, count: before.length + 1, timeout: 120_000 });
  assert.equal(events.length, before.length + 1);
  assert.equal(events.at(-1).metadata.endpoint, '/users/{id}');
}

const meter = await meterOfTests();

test('esbuild', async () => {
  const app = copyOf('bundled');
  const [program, ...args] = readme('esbuild').split(' ');
  assert.equal(program, 'esbuild');
  await run(meter, app, [command('esbuild'), ...args]);
  await billsOneCall(meter, app, 'server.js');
});

test('webpack', async () => {
  const app = copyOf('bundled');
  const config = `export default {
    mode: 'production', entry: './app.js', output: { path: import.meta.dirname, filename: 'server.cjs' },
    ${readme('webpack')}
  };`;
  writeFileSync(join(app, 'webpack.config.mjs'), config);
  const build = `
    import webpack from 'webpack';
    import config from './webpack.config.mjs';
    webpack(config, (error, stats) => {
      if (error || stats.hasErrors()) throw error ?? new Error(stats.toString());
    });
  `;
  await run(meter, app, [process.execPath, '--input-type=module', '--eval', build]);
  await billsOneCall(meter, app, 'server.cjs');
});
