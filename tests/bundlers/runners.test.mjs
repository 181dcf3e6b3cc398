// Jest and Vitest, which need nothing to be set.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { command, copyOf, meterOfTests, run } from './support.mjs';

const meter = await meterOfTests();

test('jest', async () => {
  // Jest's own second is too little where much else runs. What a client could hold it for is its `exitTimeout` of 5 s.
  const args = ['--rootDir', '.', '--openHandlesTimeout', '4000'];
  const told = await run(meter, copyOf('jest'), [command('jest'), ...args]);
  assert.match(told, /Tests: +4 passed, 4 total/);
  assert.doesNotMatch(told, /did not exit/);
});

for (const pool of ['forks', 'threads']) {
  test(`vitest, with a pool of ${pool}`, async () => {
    const args = [command('vitest'), 'run', '--no-color', '--pool', pool];
    assert.match(await run(meter, copyOf('vitest'), args), /Tests +3 passed \(3\)/);
  });
}
