// A parent, a child that it waits for, and one that outlives it: each accepts calls and tells their ids.

const assert = require('node:assert/strict');
const { fork, spawn } = require('node:child_process');
const { readdirSync, readlinkSync } = require('node:fs');

const { OPTIONS, WAY } = process.env;
const options = JSON.parse(OPTIONS);
const role = process.argv[2];

if (process.platform === 'linux') {
  const inherited = readdirSync('/proc/self/fd').filter((descriptor) => {
    try {
      return readlinkSync(`/proc/self/fd/${descriptor}`).startsWith(options.spoolDir);
    } catch {
      return false; // that of the directory itself
    }
  });
  assert.deepEqual(inherited, [], 'descriptors of the parent');
}

const { Ingestion, trackAPICall } = require('dodo-ingestion');
const say = require('./say.cjs');

const ingestion = new Ingestion({ ...options, onAlarm() {} });
const customerId = `cus_${options.account}`;

function accept(count) {
  for (let n = 0; n < count; n += 1) {
    say(trackAPICall(ingestion, { customerId, metadata: { role, n } }).eventId);
  }
}

function child(its) {
  const settings = { stdio: ['ignore', 'inherit', 'inherit'], detached: true };
  return WAY === 'fork'
    ? fork(__filename, [its], { ...settings, stdio: [...settings.stdio, 'ipc'] })
    : spawn(process.execPath, [__filename, its], settings);
}

accept(100);
if (role === 'parent') {
  child('waited-for').once('exit', (code) => {
    assert.equal(code, 0);
    accept(100);
    child('outlives');
    accept(100);
    process.kill(process.pid, 'SIGKILL');
  });
}
