// Programs that others build and run, and what the README says of them.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { startMeter } from 'dodo-ingestion/testing';

const WITHIN = 300_000;
const HERE = import.meta.dirname;

/** A meter that ends with the tests of this file. */
export async function meterOfTests() {
  const meter = await startMeter();
  after(() => meter.stop());
  return meter;
}

/** A copy of an app that may be written to, below the packages that it uses. */
export function copyOf(app) {
  mkdirSync(join(HERE, '.work'), { recursive: true });
  const copy = mkdtempSync(join(HERE, '.work', `${app}-`));
  after(() => rmSync(copy, { recursive: true, force: true }));
  cpSync(join(HERE, 'apps', app), copy, { recursive: true });
  return copy;
}

/** The first code of a row of the README's table. */
export function readme(row) {
  const text = readFileSync(join(HERE, '../../node/README.md'), 'utf8');
  const line = text.split('\n').find((each) => each.startsWith(`| ${row} |`));
  assert.ok(line, `the README has no row ${row}`);
  return /`([^`]+)`/.exec(line)[1];
}

/** A command that a package installs. */
export const command = (name) => join(HERE, 'node_modules/.bin', name);

/** A process in whose environment the client finds the meter and a spool of its own. */
export function start(meter, cwd, [program, ...args], env = {}) {
  const child = spawn(program, args, {
    cwd,
    env: {
      ...process.env,
      DODO_PAYMENTS_API_KEY: 'dodo_test',
      DODO_PAYMENTS_ENVIRONMENT: 'test_mode',
      DODO_PAYMENTS_BASE_URL: meter.url,
      DODO_INGESTION_EVENT_NAME: 'api_call',
      DODO_INGESTION_SPOOL_DIR: join(cwd, '.spool'),
      DODO_INGESTION_EXIT_TIMEOUT: '100',
      NEXT_TELEMETRY_DISABLED: '1',
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  after(() => child.kill('SIGKILL'));
  child.told = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      child.told += chunk;
    });
  }
  return child;
}

/** Runs a program to its end, which has to be a good one. */
export async function run(...args) {
  const child = start(...args);
  const [code] = await once(child, 'close', { signal: AbortSignal.timeout(WITHIN) });
  assert.equal(code, 0, child.told);
  return child.told;
}

/** Ends a server as its operator does. */
export async function stop(child) {
  const ended = once(child, 'close', { signal: AbortSignal.timeout(WITHIN) });
  child.kill('SIGTERM');
  await ended;
}

/** A port that nobody has, and none of those that the kernel gives to whoever asks for any. */
export async function freePort() {
  for (;;) {
    const port = randomInt(10_000, 30_000);
    const server = createServer().listen(port, '127.0.0.1');
    const isFree = await once(server, 'listening').then(
      () => true,
      () => false,
    );
    if (isFree) {
      server.close();
      await once(server, 'close');
      return port;
    }
  }
}

/** The text of an answer of 200, as soon as there is one for which `holds`. */
export async function answer(child, url, options, holds = () => true) {
  const end = Date.now() + WITHIN;
  for (;;) {
    const response = await fetch(url, options).catch(() => undefined);
    const text = await response?.text();
    if (response?.ok && holds(text)) {
      return text;
    }
    assert.ok(child.exitCode === null && Date.now() < end, `${text}\n${child.told}`);
    await sleep(50);
  }
}
