import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, realpathSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { findDodometer } from '../dist/dodometer.js';

test('the nearest dodometer is taken', (t) => {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), 'dodometer-')));
  const before = { ...process.env, cwd: process.cwd() };
  t.after(() => {
    process.chdir(before.cwd);
    Object.assign(process.env, { PATH: before.PATH, DODOMETER_BIN: before.DODOMETER_BIN ?? '' });
  });
  process.chdir(directory);
  process.env.PATH = directory;
  process.env.DODOMETER_BIN = '';
  assert.throws(findDodometer, /npm install dodometer/);

  const onPath = join(directory, process.platform === 'win32' ? 'dodometer.exe' : 'dodometer');
  writeFileSync(onPath, '');
  assert.equal(findDodometer(), onPath);

  const launcher = join(directory, 'node_modules', 'dodometer');
  mkdirSync(launcher, { recursive: true });
  writeFileSync(join(launcher, 'index.js'), "exports.binaryPath = () => '/installed';");
  assert.equal(findDodometer(), '/installed');

  process.env.DODOMETER_BIN = '/named';
  assert.equal(findDodometer(), '/named');
});
