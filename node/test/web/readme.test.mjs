// What the package's README names is there.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Ingestion } from 'dodo-ingestion';
import { meter } from 'dodo-ingestion/http';
import { client } from './support.mjs';

const root = new URL('../../', import.meta.url);
const readme = readFileSync(new URL('README.md', root), 'utf8');
const { exports, peerDependencies } = JSON.parse(
  readFileSync(new URL('package.json', root), 'utf8'),
);

/** What is no framework. */
const OTHERS = ['.', './testing', './package.json'];

/** The first column of a table under a heading. */
function column(heading) {
  const [, section] = readme.split(`## ${heading}\n`);
  const rows = section.split('\n## ')[0].matchAll(/^\| `([^`]+)` \|/gm);
  return [...rows].map(([, name]) => name);
}

test('every framework of the README is a path of the package', async () => {
  const paths = column('Frameworks').filter((name) => !name.includes('…'));
  assert.deepEqual(
    paths.map((path) => `./${path}`).sort(),
    Object.keys(exports).filter((path) => !OTHERS.includes(path)),
  );
  for (const path of paths) {
    const names = Object.keys(await import(`dodo-ingestion/${path}`)).sort();
    assert.deepEqual(
      names.filter((name) => /^(meter|set|skip)/.test(name)),
      ['meter', 'setCustomer', 'setEndpoint', 'setMetadata', 'setUnits', 'skipMetering'],
    );
  }
});

test('every option of the README is one', () => {
  const ingestion = client();
  assert.ok(ingestion instanceof Ingestion);
  const options = column('Options');
  assert.equal(options.length, 10);
  meter(ingestion, Object.fromEntries(options.map((option) => [option, undefined])));
});

test('no version of a framework keeps the package from being installed', () => {
  assert.deepEqual(new Set(Object.values(peerDependencies)), new Set(['*']));
});
