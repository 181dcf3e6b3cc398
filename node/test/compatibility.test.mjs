// One program with the package that users have today and with this one, each against a meter of its own:
// what is billed, and what the program sees, is the same. The differences are in COMPATIBILITY.md.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { promisify } from 'node:util';
import { startMeter } from './meter.mjs';

const EXISTING = '@dodopayments/ingestion-blueprints';
const OURS = 'dodo-ingestion';
/** What only ours tells of tokens. */
const MORE = ['provider', 'cachedInputTokens', 'cacheCreationInputTokens', 'reasoningTokens'];
const run = promisify(execFile);
const cwd = new URL('..', import.meta.url);

const spool = mkdtempSync(join(tmpdir(), 'dodo-ingestion-compatible-'));
after(() => rmSync(spool, { recursive: true, force: true }));

/** Runs a program with a package, and gives what it saw and the events that a meter then has. */
async function billed(name, program, env = {}) {
  const meter = await startMeter();
  const args = ['--import', './test/compatibility/redirect.mjs', program, name];
  const ours = { DODO_PAYMENTS_BASE_URL: meter.url, DODO_INGESTION_SPOOL_DIR: spool };
  const { stdout } = await run(process.execPath, args, {
    cwd,
    env: { ...process.env, METER_URL: meter.url, ...(name === OURS ? ours : {}), ...env },
    timeout: 120_000,
  });
  return { seen: JSON.parse(stdout), meter };
}

/** All events in a form that can be compared: ids and times are each package's own. */
async function events(meter) {
  const { items } = await meter.get('/events', { page_size: 100 });
  return items
    .map(({ customer_id, event_name, metadata }) => {
      // The existing package has a model "unknown" where ours has none.
      const pairs = Object.entries(metadata ?? {}).filter(
        ([key, value]) => !MORE.includes(key) && value !== 'unknown',
      );
      return JSON.stringify([customer_id, event_name, pairs.sort()]);
    })
    .sort();
}

test('the same program bills the same', async () => {
  const program = './test/compatibility/program.mjs';
  const [existing, ours] = await Promise.all([billed(EXISTING, program), billed(OURS, program)]);
  assert.deepEqual(await events(ours.meter), await events(existing.meter));
  assert.deepEqual(ours.seen, existing.seen);
});

test('what only the existing package bills, and what only ours does', async () => {
  const program = './test/compatibility/differences.mjs';
  const [existing, ours] = await Promise.all([billed(EXISTING, program), billed(OURS, program)]);
  const customers = async ({ meter }) =>
    (await events(meter)).map((event) => JSON.parse(event)[0]).sort();
  assert.deepEqual(await customers(existing), ['again', 'negative', 'reasoning', 'steps']);
  assert.deepEqual(existing.seen, [
    ['null', 'API_ERROR'],
    ['bigint', 'API_ERROR'],
  ]);
  assert.deepEqual(await customers(ours), ['bigint', 'null', 'reasoning', 'steps', 'stream']);
  assert.deepEqual(ours.seen, [['negative', 'VALIDATION_ERROR']]);
  const tokens = async ({ meter }, customer) => {
    const [{ metadata }] = await meter.events(customer);
    return [metadata.inputTokens, metadata.outputTokens, metadata.totalTokens];
  };
  // Reasoning tokens are output tokens, and are not added to them.
  assert.deepEqual(await tokens(existing, 'reasoning'), [1, 3, 3]);
  assert.deepEqual(await tokens(ours, 'reasoning'), [1, 2, 3]);
  assert.deepEqual(await tokens(existing, 'steps'), [1, 3, 3]);
  assert.deepEqual(await tokens(ours, 'steps'), [5, 6, 11]);
});
