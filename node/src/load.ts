/**
 * Loads the addon. It comes as a package of its own for each platform, of which npm installs the one that fits; the
 * manifest names them, and `cargo xtask package` writes them there. A checkout has the one that it has built instead.
 */

import { closeSync, existsSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { addonOf } from './addons';
import type { Native } from './native';

const FILE = 'dodo_ingestion.node';

if (typeof __dirname === 'undefined') {
  // Only a bundler makes an ES module of this file.
  const way = 'https://github.com/dodopayments/dodo-ingestion/blob/main/node/README.md#bundlers';
  throw new Error(`dodo-ingestion is to stay outside of a bundle, as its addon does: ${way}`);
}
const BUILT = join(__dirname, '..', 'native', FILE);

const { name, optionalDependencies: packages = {} } = require('../package.json') as {
  name: string;
  optionalDependencies?: Record<string, string>;
};

function load(): Native {
  const { platform, arch, version } = process;
  const abi = { linux: isMusl() ? 'musl' : 'gnu', win32: 'msvc' }[platform as string];
  const target = [platform, arch, abi].filter(Boolean).join('-');
  const wanted = `@${name}/${target}`;
  const libc = abi === 'gnu' ? ' with glibc' : abi === 'musl' ? ' with musl' : '';
  const here = `${platform}-${arch}${libc}`;

  const path = existsSync(BUILT) ? BUILT : installed(target);
  if (path === undefined) {
    const reason = wanted in packages ? notInstalled(wanted) : noneFits();
    throw new Error(`${name} has no addon for ${here}: ${reason}`);
  }
  try {
    return require(path) as Native;
  } catch (cause) {
    const reason = `${path} cannot be loaded on ${here} with Node ${version}`;
    throw new Error(`${name}: ${reason}: ${(cause as Error).message}`, { cause });
  }
}

function installed(target: string): string | undefined {
  try {
    return addonOf(target);
  } catch {
    return undefined;
  }
}

/** Whether Node itself runs with musl: near its beginning the program names what loads it. */
function isMusl(): boolean {
  if (process.platform !== 'linux') {
    return false;
  }
  const head = Buffer.alloc(4096);
  try {
    const file = openSync(process.execPath, 'r');
    readSync(file, head);
    closeSync(file);
  } catch {
    return false;
  }
  return head.includes('/ld-musl-');
}

function notInstalled(wanted: string): string {
  return `the package ${wanted} is not installed.
npm leaves it out with --omit=optional (--no-optional), and where node_modules or package-lock.json were made on
another system. Remove both, and on the system that it is to run on
  npm install --include=optional
What deploys only the files that it has traced a program to need (a standalone Next.js app, a serverless function) takes
the addon of the system that it is built on: build it on one like that which it is to run on.`;
}

function noneFits(): string {
  const library = { darwin: 'lib*.dylib', win32: '*.dll' }[process.platform as string] ?? 'lib*.so';
  const known = Object.keys(packages).map((each) => `\n  ${each.replace(`@${name}/`, '')}`);
  return `there is no package for it.${known.length > 0 ? ` There is one for${known.join('')}` : ''}
Build it from source, with Rust from https://rustup.rs:
  git clone https://github.com/dodopayments/dodo-ingestion && cd dodo-ingestion
  cargo build --release --package dodo-ingestion-napi
and copy target/release/${library.replace('*', 'dodo_ingestion_napi')} to
  ${BUILT}`;
}

/** @internal */
export const native: Native = load();
