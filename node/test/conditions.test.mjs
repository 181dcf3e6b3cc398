// Where there is no Node, the package says so.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const cwd = new URL('..', import.meta.url);

for (const condition of ['edge-light', 'workerd', 'browser']) {
  test(`imported and required under the condition ${condition}`, () => {
    const script = `
      (async () => {
        for (const path of ['dodo-ingestion', 'dodo-ingestion/hono', 'dodo-ingestion/next']) {
          for (const load of [(name) => import(name), async (name) => require(name)]) {
            await load(path).catch(({ message }) => console.log(message));
          }
        }
      })();
    `;
    const args = ['--conditions', condition, '-e', script];
    const { stdout, stderr } = spawnSync(process.execPath, args, { cwd, encoding: 'utf8' });
    const lines = stdout.trim().split('\n');
    assert.equal(lines.length, 6, stderr);
    for (const line of lines) {
      assert.match(line, /^dodo-ingestion runs in Node, .* and not in a browser or at the edge/);
    }
  });
}

test('in a bundle that is an ES module', () => {
  const path = fileURLToPath(new URL('dist/load.js', cwd));
  const script = `
    import { createRequire } from 'node:module';
    const require = createRequire(${JSON.stringify(path)});
    const exports = {};
    ${readFileSync(path, 'utf8')}
  `;
  const args = ['--input-type=module', '-e', script];
  const { stderr } = spawnSync(process.execPath, args, { cwd, encoding: 'utf8' });
  assert.match(stderr, /dodo-ingestion is to stay outside of a bundle.*#bundlers/);
});
