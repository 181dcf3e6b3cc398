// Installs what is published of the package, as npm would: a copy, and not a link into this tree.

import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';

const from = join(import.meta.dirname, '../../node');
const to = join(import.meta.dirname, 'node_modules/dodo-ingestion');

rmSync(to, { recursive: true, force: true });
for (const name of ['package.json', 'dist', 'native']) {
  cpSync(join(from, name), join(to, name), { recursive: true });
}
