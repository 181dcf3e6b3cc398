// Jest and Vitest, which need nothing to be set.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { command, copyOf, meterOfTests, run } from './support.mjs';

const meter = await meterOfTests();

test('jest', async () => {
  // Jest complains when it lives for another second, which it also does where much else runs. It is to have nothing left
  // that it could live for, but its output; its usual reporter would have a timer.
  const reporters = ['--reporters', './open.js', '--reporters', 'summary'];
  const args = ['--rootDir', '.', '--openHandlesTimeout', '0', ...reporters];
  const told = await run(meter, copyOf('jest'), [command('jest'), ...args]);
  assert.match(told, /Tests: +4 passed, 4 total/);
  assert.match(told, /^open: PipeWrap PipeWrap$/m);
});

for (const pool of ['forks', 'threads']) {
  test(`vitest, with a pool of ${pool}`, async () => {
    const args = [command('vitest'), 'run', '--no-color', '--pool', pool];
    assert.match(await run(meter, copyOf('vitest'), args), /Tests +3 passed \(3\)/);
  });
}
