// The ways in which programs of Node are run: the package twice, frozen functions, children, reloads.

import assert from 'node:assert/strict';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  beside,
  billed,
  end,
  meter,
  optionsOf,
  prelude,
  spoolDir,
  start,
  times,
  until,
} from './processes.mjs';

/** Installs what is published of the package into the `node_modules` of a new directory. */
function installed(t) {
  const directory = mkdtempSync(join(tmpdir(), 'dodo-ingestion-copy-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const own = join(directory, 'node_modules', 'dodo-ingestion');
  mkdirSync(own, { recursive: true });
  for (const name of ['package.json', 'dist', 'native']) {
    cpSync(beside(join('..', name)), join(own, name), { recursive: true });
  }
  return directory;
}

/** How many hold the lock of a sender: one, whoever it is. */
function senders(namespace) {
  const { ino } = statSync(join(namespace, 'sender.lock'));
  const locks = readFileSync('/proc/locks', 'utf8').split('\n');
  return locks.filter((lock) => lock.includes(' FLOCK ') && lock.includes(`:${ino} `)).length;
}

test('two copies of the package in one process', async (t) => {
  const program = `
    const { createRequire } = require('node:module');
    const [one, other] = ${JSON.stringify([installed(t), installed(t)])}
      .map((directory) => createRequire(directory + '/')('dodo-ingestion'));
    const options = { ...${JSON.stringify(optionsOf('copies'))}, onAlarm() {} };
    const clients = [one, other].map(({ Ingestion }) => new Ingestion(options));
    (async () => {
      for (let n = 0; n < 500; n += 1) {
        const receipts = clients.map((client) => client.track({ customerId: 'cus_copies', metadata: { n } }));
        for (const { eventId } of receipts) console.log(eventId);
      }
      await Promise.all(clients.map((client) => client.flush()));
      console.log(JSON.stringify({ apart: one.Ingestion !== other.Ingestion }));
      await require('node:events').once(process.stdin, 'data');
      await Promise.all(clients.map((client) => client.close()));
      process.stdin.destroy();
    })();
  `;
  const child = start(['-e', program]);
  await until(() => child.told.includes('apart'));
  assert.match(child.told, /"apart":true/);
  if (process.platform === 'linux') {
    const root = join(spoolDir, 'dodo-ingestion');
    const [namespace] = readdirSync(root).filter((name) => name.endsWith('-copies'));
    assert.equal(senders(join(root, namespace)), 1);
  }
  child.stdin.write('\n');
  const { code, lines } = await end(child);
  assert.equal(code, 0);
  const ids = lines.filter((line) => !line.startsWith('{'));
  assert.equal(new Set(ids).size, 1_000);
  assert.equal((await billed('copies', ids, false)).length, 1_000);
});

test('a function that is frozen between its invocations', async () => {
  const customer = 'cus_frozen';
  const program = `
    const { createInterface } = require('node:readline');
    createInterface(process.stdin).on('line', async (line) => {
      const { calls, flush } = JSON.parse(line);
      for (let n = 0; n < calls; n += 1) {
        trackAPICall(ingestion, { customerId: '${customer}' });
      }
      if (flush) await ingestion.flush({ timeout: 120_000 });
      say('answered');
    });
  `;
  const child = start(['-e', `${prelude('frozen')}${program}`]);
  let answers = 0;
  const invoke = async (invocation) => {
    child.stdin.write(`${JSON.stringify(invocation)}\n`);
    answers += 1;
    await until(() => child.told.split('answered').length > answers);
  };
  const frozen = async (milliseconds) => {
    child.kill('SIGSTOP');
    await sleep(milliseconds);
    child.kill('SIGCONT');
  };
  let calls = 0;
  for (let round = 0; round < times(2); round += 1) {
    await invoke({ calls: 3, flush: true });
    calls += 3;
    assert.equal((await meter.events(customer)).length, calls);
    await frozen(500);
    // Frozen in the middle of its delivery: the next invocation's flush is for these as well.
    await invoke({ calls: 200, flush: false });
    calls += 200;
    await frozen(200);
  }
  await invoke({ calls: 0, flush: true });
  assert.equal((await meter.events(customer)).length, calls);
  child.stdin.end();
  assert.equal((await end(child)).code, 0);
  await billed('frozen', [], false);
});

for (const way of ['fork', 'spawn']) {
  test(`children by ${way}, of which one outlives its parent`, async () => {
    const account = `children-${way}`;
    const env = { ...process.env, OPTIONS: JSON.stringify(optionsOf(account)), WAY: way };
    const { by, lines } = await end(start([beside('children.cjs'), 'parent'], { env }));
    assert.equal(by, 'SIGKILL');
    assert.equal(lines.length, 500);
    assert.equal((await billed(account, lines)).length, 500);
  });
}

test('workers of a cluster that are reloaded one by one', async () => {
  const env = { ...process.env, OPTIONS: JSON.stringify(optionsOf('reloaded')) };
  const { code, lines } = await end(start([beside('reload.cjs'), String(times(2))], { env }));
  assert.equal(code, 0);
  const killed = lines.filter((line) => line === 'killed').length;
  const ids = lines.filter((line) => line !== 'killed');
  assert.ok(killed > 0 && ids.length > 0);
  // A call may have been accepted whose id was not told any more.
  assert.ok((await billed('reloaded', ids)).length <= ids.length + killed);
});

test('the package and its user, evaluated again and again in one process', async () => {
  const program = `
    const { sep } = require('node:path');
    const own = process.cwd() + sep;
    const again = () => {
      for (const path of Object.keys(require.cache)) {
        if (path.startsWith(own)) delete require.cache[path];
      }
      const { Ingestion, trackAPICall } = require('dodo-ingestion');
      const client = new Ingestion(options);
      for (let n = 0; n < 10; n += 1) {
        say(trackAPICall(client, { customerId: 'cus_again' }).eventId);
      }
    };
    for (let evaluation = 0; evaluation < 50; evaluation += 1) again();
    process.on('warning', (warning) => say(warning));
  `;
  const { code, lines } = await end(start(['-e', `${prelude('again')}${program}`]));
  assert.equal(code, 0);
  assert.equal(lines.length, 500, lines.at(-1));
  assert.equal((await billed('again', lines, false)).length, 500);
});
