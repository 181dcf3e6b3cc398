import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Reading } from '../dist/llm/usage.js';

const shared = new URL('../../tests/vectors/usage.json', import.meta.url);

for (const { name, pieces, usage } of JSON.parse(readFileSync(shared, 'utf8'))) {
  test(name, () => {
    const reading = new Reading();
    for (const piece of pieces) {
      reading.add(piece);
    }
    assert.deepEqual(JSON.parse(JSON.stringify(reading.usage() ?? null)), usage);
  });
}
