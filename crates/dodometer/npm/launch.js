#!/usr/bin/env node
// Runs the program in place of itself, as nearly as Node can: its terminal, its signals, its exit status.
'use strict';

const { spawn } = require('node:child_process');
const { constants } = require('node:os');
const { isatty } = require('node:tty');
const { binaryPath } = require('./index.js');

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'];

function main() {
  let binary;
  try {
    binary = binaryPath();
  } catch (error) {
    fail(error.message);
    return;
  }
  const handlers = SIGNALS.map((signal) => [signal, () => hears(signal) || child.kill(signal)]);
  // Before the program can say that it is ready: who waits for that may interrupt it at once.
  for (const [signal, handler] of handlers) {
    process.on(signal, handler);
  }
  const child = spawn(binary, process.argv.slice(2), { stdio: 'inherit' });
  child.on('error', (error) => fail(`${binary} cannot be started: ${error.message}`));
  child.on('exit', (code, signal) => {
    for (const [name, handler] of handlers) {
      process.off(name, handler);
    }
    if (signal === null) {
      process.exitCode = code;
      return;
    }
    // For the case that this process outlives the signal, as with one that Windows does not have.
    process.exitCode = 128 + (constants.signals[signal] ?? 0);
    process.kill(process.pid, signal);
  });
}

/** Whether the program has a signal from elsewhere: a terminal sends Ctrl-C to all that runs in its foreground. */
function hears(signal) {
  return signal === 'SIGINT' && (process.platform === 'win32' || isatty(0));
}

function fail(message) {
  process.stderr.write(`dodometer: ${message}\n`);
  process.exitCode = 1;
}

main();
