// The programs of `examples/`, as they stand.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { startMeter } from './meter.mjs';

const WITHIN = 120_000;

/** Each has a meter of its own: their customers are the same. */
async function run(t, name, env = {}) {
  const meter = await startMeter();
  const spool = mkdtempSync(join(tmpdir(), 'dodo-ingestion-example-'));
  const child = spawn(process.execPath, [`examples/${name}.mjs`], {
    cwd: new URL('..', import.meta.url),
    env: {
      ...process.env,
      PORT: '0',
      DODO_PAYMENTS_API_KEY: 'example',
      DODO_PAYMENTS_BASE_URL: meter.url,
      DODO_INGESTION_SPOOL_DIR: spool,
      DODO_INGESTION_LINGER: '0.02',
      ...env,
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(async () => {
    if (child.exitCode === null && child.kill('SIGKILL')) {
      await once(child, 'exit');
    }
    rmSync(spool, { recursive: true, force: true });
  });
  const [line] = await Promise.race([
    once(createInterface(child.stdout), 'line'),
    once(child, 'exit').then(([code]) => Promise.reject(new Error(`${name} exited: ${code}`))),
  ]);
  return { meter, line };
}

async function billed(meter, customer, count) {
  const until = Date.now() + WITHIN;
  let events = [];
  while (events.length < count && Date.now() < until) {
    await sleep(50);
    events = await meter.events(customer);
  }
  assert.equal(events.length, count);
  return events.map(({ metadata }) => metadata);
}

const as = (key) => ({ headers: { 'x-api-key': key } });

for (const name of ['express', 'fastify', 'hono', 'nestjs']) {
  test(`examples/${name}.mjs`, async (t) => {
    const { meter, line: url } = await run(t, name);
    assert.equal((await (await fetch(`${url}/users/7`, as('key-1'))).json()).id, '7');
    await (await fetch(`${url}/users/8`, as('key-2'))).text();
    for (const customer of ['cus_1', 'cus_2']) {
      const [{ endpoint, status_code: status }] = await billed(meter, customer, 1);
      assert.deepEqual([endpoint, status], ['/users/:id', 200]);
    }
  });
}

test('examples/gateway.mjs', async (t) => {
  const upstream = createServer((_, res) => res.end('from upstream')).listen(0);
  after(() => upstream.close());
  await once(upstream, 'listening');
  const UPSTREAM = `http://localhost:${upstream.address().port}`;
  const { meter, line: url } = await run(t, 'gateway', { UPSTREAM });
  assert.equal(await (await fetch(`${url}/users/7`, as('key-1'))).text(), 'from upstream');
  const [{ endpoint, response_bytes: bytes }] = await billed(meter, 'cus_1', 1);
  assert.deepEqual([endpoint, bytes], ['/users/{id}', 13]);
});

test('examples/script.mjs', async (t) => {
  const { meter, line } = await run(t, 'script');
  assert.equal(line, 'billed');
  const pages = (await billed(meter, 'cus_1', 3)).map(({ page }) => page);
  assert.deepEqual(pages.sort(), [1, 2, 3]);
});

test('examples/script.mjs says billed only of what is', async (t) => {
  const billsNothing = createServer((req, res) => {
    req.resume().on('end', () => {
      res.writeHead(400, { 'content-type': 'application/json' });
      res.end('{"code":"INVALID_REQUEST_PARAMETERS","message":"no such customer"}');
    });
  }).listen(0, '127.0.0.1');
  after(() => billsNothing.close());
  await once(billsNothing, 'listening');
  const DODO_PAYMENTS_BASE_URL = `http://127.0.0.1:${billsNothing.address().port}`;
  await assert.rejects(run(t, 'script', { DODO_PAYMENTS_BASE_URL }), /script exited: 1/);
});
