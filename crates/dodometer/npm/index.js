// Where the program lies: it comes as a package of its own for each platform, of which npm installs the right one.
'use strict';

const { optionalDependencies: packages = {} } = require('./package.json');

const EXECUTABLE = process.platform === 'win32' ? 'dodometer.exe' : 'dodometer';

/** The absolute path of the program for this machine. */
function binaryPath() {
  const names = candidates().filter((name) => name in packages);
  for (const name of names) {
    try {
      return require.resolve(`${name}/bin/${EXECUTABLE}`);
    } catch (error) {
      if (error.code !== 'MODULE_NOT_FOUND') {
        throw error;
      }
    }
  }
  throw new Error(names.length > 0 ? notInstalled(names[0]) : noneFits());
}

/** The platform packages that would run here, the best first. */
function candidates() {
  const platform = `@dodometer/${process.platform}-${process.arch}`;
  if (process.platform === 'win32') {
    return [`${platform}-msvc`];
  }
  if (process.platform !== 'linux') {
    return [platform];
  }
  // The program for musl is linked statically, and runs with either C library.
  const musl = `${platform}-musl`;
  return hasGlibc() ? [`${platform}-gnu`, musl] : [musl];
}

function hasGlibc() {
  process.report.excludeNetwork = true;
  return process.report.getReport().header.glibcVersionRuntime !== undefined;
}

function notInstalled(name) {
  return `The package ${name} is not installed.
Install again without --omit=optional (--no-optional), and on the system that it is to run on:
  npm install dodometer
${OTHER_WAYS}`;
}

function noneFits() {
  const known = Object.keys(packages).map((name) => `  ${name.replace('@dodometer/', '')}`);
  return `There is no dodometer for ${process.platform}-${process.arch}. There is one for
${known.join('\n')}
${OTHER_WAYS}`;
}

const OTHER_WAYS = `Or build it from source, with Rust from https://rustup.rs:
  git clone https://github.com/dodopayments/dodo-ingestion && cd dodo-ingestion
  cargo install --locked --path crates/dodometer`;

module.exports = { binaryPath };
