// Installs what is published of the package, as npm would: a copy, and not a link into this tree.

import { cpSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

const from = join(import.meta.dirname, '../../node');
const modules = join(import.meta.dirname, 'node_modules');
const to = join(modules, 'dodo-ingestion');

const { glibcVersionRuntime: glibc } = process.report.getReport().header;
const abi = { linux: glibc ? 'gnu' : 'musl', win32: 'msvc' }[process.platform];
const platform = [process.platform, process.arch, abi].filter(Boolean).join('-');
const addon = join(modules, '@dodo-ingestion', platform);

for (const each of [to, addon]) {
  rmSync(each, { recursive: true, force: true });
  mkdirSync(each, { recursive: true });
}
for (const name of ['package.json', 'dist']) {
  cpSync(join(from, name), join(to, name), { recursive: true });
}
cpSync(join(from, 'native'), addon, { recursive: true });
