// Real processes that bill to a meter, from a spool that outlives them.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Ingestion } from 'dodo-ingestion';
import { startMeter } from './meter.mjs';

/** So many, or `LIFECYCLE_FACTOR` times as many. */
export const times = (count) => count * (Number(process.env.LIFECYCLE_FACTOR) || 1);

export const WITHIN = times(600_000);

export const meter = await startMeter();
export const spoolDir = mkdtempSync(join(tmpdir(), 'dodo-ingestion-lifecycle-'));
after(() => rmSync(spoolDir, { recursive: true, force: true }));

/** The options of a client whose spool outlives its process, and whose bill does not wait for the API's budget. */
export const optionsOf = (account) => ({
  apiKey: 'dodo_test_node',
  environment: 'test_mode',
  baseUrl: meter.url,
  eventName: 'api_call',
  spoolDir,
  account,
  exitTimeout: 100_000,
  requestsPerMinute: 1_000_000,
  requestsPerSecond: 100_000,
});

/** A path beside this file. */
export const beside = (name) => fileURLToPath(new URL(name, import.meta.url));

/** What a script begins with: `ingestion`, and `accept(count)`, which tracks calls and prints their ids. */
export function prelude(account) {
  return `
    const { Ingestion, trackAPICall } = require('dodo-ingestion');
    const say = require(${JSON.stringify(beside('say.cjs'))});
    const options = { ...${JSON.stringify(optionsOf(account))}, onAlarm() {} };
    const ingestion = new Ingestion(options);
    const accept = (count) => {
      for (let n = 0; n < count; n += 1) {
        const { eventId } = trackAPICall(ingestion, { customerId: 'cus_${account}', metadata: { n } });
        if (eventId) say(eventId);
      }
    };
  `;
}

/** A process of Node, killed with the tests at the latest. */
export function start(args, options = {}) {
  const child = spawn(process.execPath, args, {
    cwd: fileURLToPath(new URL('..', import.meta.url)),
    stdio: ['pipe', 'pipe', 'inherit'],
    ...options,
  });
  after(() => child.kill('SIGKILL'));
  child.told = '';
  child.stdout.on('data', (chunk) => {
    child.told += chunk;
  });
  return child;
}

/** How a process ended, and the lines that it told. */
export async function end(child) {
  const [code, by] = await once(child, 'close', { signal: AbortSignal.timeout(WITHIN) });
  // The last line may have been cut off by the end.
  return { code, by, lines: child.told.split('\n').slice(0, -1) };
}

/** The ids that a customer is billed for: those that were told, each once. Whoever comes next bills what is left. */
export async function billed(account, ids, next = true, options = {}) {
  const customer = `cus_${account}`;
  const ingestion = next
    ? new Ingestion({ ...optionsOf(account), onAlarm() {}, ...options })
    : undefined;
  const until = Date.now() + WITHIN;
  let found = [];
  while (found.length < ids.length && Date.now() < until) {
    await sleep(50);
    found = await meter.events(customer);
  }
  await ingestion?.close({ timeout: WITHIN });
  found = await meter.events(customer);
  const foundIds = new Set(found.map((event) => event.event_id));
  assert.equal(foundIds.size, found.length);
  const missing = ids.filter((id) => !foundIds.has(id));
  assert.deepEqual(missing, [], `accepted and not billed, of ${account}`);
  return [...foundIds];
}

/** A server that answers nothing until it is opened, and from then on is the meter. */
export async function blackHole(t) {
  let open = false;
  const server = createServer(async (req, res) => {
    const chunks = await req.toArray();
    if (open) {
      const { method, headers, url } = req;
      const { 'content-type': type, authorization } = headers;
      const answer = await fetch(new URL(url, meter.url), {
        method,
        headers: { authorization, ...(type && { 'content-type': type }) },
        ...(method === 'POST' && { body: Buffer.concat(chunks) }),
      });
      res.writeHead(answer.status, { 'content-type': 'application/json' });
      res.end(await answer.text());
    }
  }).listen(0, '127.0.0.1');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    open: () => {
      open = true;
    },
  };
}

/** Waits until a condition holds. */
export async function until(holds) {
  const end = Date.now() + WITHIN;
  while (!(await holds())) {
    assert.ok(Date.now() < end, `did not come about: ${holds}`);
    await sleep(10);
  }
}
