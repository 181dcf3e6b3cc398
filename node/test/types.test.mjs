// What TypeScript says of the declarations, to an ES module and to CommonJS.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { test } from 'node:test';

const compiler = join(
  createRequire(import.meta.url).resolve('typescript/package.json'),
  '../bin/tsc',
);

const PROJECTS = [
  'tsconfig.json',
  'fastify4.json',
  // With the declarations themselves looked at.
  'strict.json',
  // An app on Fastify needs no types of Express.
  'without-express.json',
  'compatibility/existing.json',
  'compatibility/ours.json',
];
for (const project of PROJECTS) {
  test(`programs of test/types compile: ${project}`, () => {
    const args = [compiler, '--project', join(import.meta.dirname, 'types', project)];
    const { status, stdout } = spawnSync(process.execPath, args, { encoding: 'utf8' });
    assert.equal(status, 0, stdout);
  });
}
