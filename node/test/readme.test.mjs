// The README's lines of JavaScript, run as they stand.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { startMeter } from './meter.mjs';

const meter = await startMeter();

test('the README bills two calls', async (t) => {
  const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');
  const [, code] = /```js\n(.*?)```/s.exec(readme);
  const spool = mkdtempSync(join(tmpdir(), 'dodo-ingestion-readme-'));
  t.after(() => rmSync(spool, { recursive: true, force: true }));
  const env = {
    ...process.env,
    DODO_PAYMENTS_API_KEY: 'readme',
    DODO_PAYMENTS_BASE_URL: meter.url,
    DODO_INGESTION_SPOOL_DIR: spool,
    DODO_INGESTION_EXIT_TIMEOUT: '100',
  };
  const args = ['--input-type=module', '--eval', code];
  const options = { cwd: new URL('..', import.meta.url), encoding: 'utf8', env, timeout: 120_000 };
  const { status, stderr } = spawnSync(process.execPath, args, options);
  assert.equal(status, 0, stderr);
  const [single] = await meter.events('cus_1');
  assert.deepEqual(single.metadata, { endpoint: '/v1/users/{id}', status_code: 200 });
  const [batched] = await meter.events('cus_2');
  assert.deepEqual(batched.metadata, { endpoint: '/v1/search' });
});
