// How a process can end, and what is billed then: all that it was told is accepted, once.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { beside, billed, blackHole, end, meter, optionsOf, prelude, start } from './processes.mjs';

/** Runs a program with `ingestion` and `accept(count)`; the signal comes when it has told of some calls. */
async function run(account, program, signal) {
  const child = start(['-e', `${prelude(account)}${program}`], {
    stdio: ['ignore', 'pipe', signal ? 'inherit' : 'pipe'],
  });
  child.stderr?.resume();
  if (signal) {
    child.stdout.on('data', () => {
      if (!child.killed && child.told.split('\n').length > 50) {
        child.kill(signal);
      }
    });
  }
  const { lines, ...ended } = await end(child);
  return { ...ended, ids: lines };
}

test('the natural end bills what waits', async () => {
  const { code, ids } = await run('natural', 'accept(500);');
  assert.deepEqual([code, ids.length], [0, 500]);
  assert.equal((await billed('natural', ids, false)).length, 500);
});

test('process.exit() leaves what waits to the next', async () => {
  const { code, ids } = await run('exit', 'accept(500); process.exit(3);');
  assert.deepEqual([code, ids.length], [3, 500]);
  assert.equal((await billed('exit', ids)).length, 500);
});

test('an uncaught exception leaves what waits to the next', async () => {
  const { code, ids } = await run('uncaught', 'accept(500); throw new Error("planted");');
  assert.deepEqual([code, ids.length], [1, 500]);
  assert.equal((await billed('uncaught', ids)).length, 500);
});

test('a rejection that nobody handles leaves what waits to the next', async () => {
  const program = 'accept(500); Promise.reject(new Error("planted"));';
  const { code, ids } = await run('unhandled', program);
  assert.deepEqual([code, ids.length], [1, 500]);
  assert.equal((await billed('unhandled', ids)).length, 500);
});

test('the natural end does not wait for a server that does not answer', async (t) => {
  const hole = await blackHole(t);
  const more = JSON.stringify({ baseUrl: hole.url, exitTimeout: 500 });
  const program = `
    const other = new Ingestion({ ...options, ...${more} });
    for (let n = 0; n < 500; n += 1) {
      say(trackAPICall(other, { customerId: 'cus_hole', metadata: { n } }).eventId);
    }
  `;
  const child = start(['-e', `${prelude('hole')}${program}`]);
  const killed = setTimeout(() => child.kill('SIGKILL'), 120_000);
  const { code, by, lines } = await end(child);
  clearTimeout(killed);
  assert.deepEqual([code, by, lines.length], [0, null, 500]);
  assert.deepEqual(await meter.events('cus_hole'), []);
  hole.open();
  assert.equal((await billed('hole', lines, true, { baseUrl: hole.url })).length, 500);
});

/** A billing API that refuses a customer, and fails on everything else. */
async function refusing(t) {
  const server = createServer(async (req, res) => {
    const [body] = await req.toArray();
    const { events } = JSON.parse(body ?? '{"events":[]}');
    const refused = events.some(({ customer_id: id }) => id === 'cus_unknown');
    res.writeHead(refused ? 400 : 503, { 'content-type': 'application/json' });
    res.end('{"code":"INVALID","message":"no such customer"}');
  }).listen(0, '127.0.0.1');
  t.after(() => server.closeAllConnections() ?? server.close());
  await once(server, 'listening');
  return `http://127.0.0.1:${server.address().port}`;
}

test('an answer to many events does not keep the process for those that wait', async (t) => {
  const more = JSON.stringify({ baseUrl: await refusing(t), exitTimeout: 100 });
  const program = `
    const { DodoClient } = require('dodo-ingestion');
    const client = new DodoClient({ ...options, ...${more} });
    const events = ['unknown', 'waiting'].map((event_id) => ({
      event_id,
      customer_id: 'cus_' + event_id,
      event_name: 'own',
    }));
    client.ingestEvents(events, { timeout: 600_000 }).catch((error) => say(error.name));
  `;
  const child = start(['-e', `${prelude('answered')}${program}`], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  child.stderr.resume();
  const killed = setTimeout(() => child.kill('SIGKILL'), 60_000);
  const { code, by, lines } = await end(child);
  clearTimeout(killed);
  assert.deepEqual([code, by, lines], [0, null, ['RejectedError']]);
});

for (const signal of ['SIGTERM', 'SIGKILL']) {
  test(`${signal} in the middle of calls leaves what was accepted to the next`, async () => {
    const account = signal.toLowerCase();
    const { by, ids } = await run(account, 'for (;;) accept(1);', signal);
    assert.equal(by, signal);
    assert.ok(ids.length >= 50);
    // A call may have been accepted whose id was not told any more.
    assert.ok((await billed(account, ids)).length <= ids.length + 1);
  });
}

test('SIGTERM with a handler that closes bills all', async () => {
  const program = `
    let timer;
    const more = () => {
      accept(1);
      timer = setImmediate(more);
    };
    more();
    process.on('SIGTERM', async () => {
      clearImmediate(timer);
      await ingestion.close();
      process.exit(0);
    });
  `;
  const { code, ids } = await run('graceful', program, 'SIGTERM');
  assert.equal(code, 0);
  await billed('graceful', ids, false);
});

test('a cluster, of which a worker is killed', async () => {
  const env = { ...process.env, OPTIONS: JSON.stringify(optionsOf('cluster')) };
  const { code, lines } = await end(start([beside('cluster.cjs')], { env }));
  assert.equal(code, 0);
  assert.equal(lines.length, 600);
  assert.equal((await billed('cluster', lines)).length, 600);
});
