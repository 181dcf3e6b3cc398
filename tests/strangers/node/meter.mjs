import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { after } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { DodoPayments } from 'dodopayments';

const READY_WITHIN = 20_000;
export const KEY = 'strangers_key';

const meters = [];
after(() => {
  for (const meter of meters) {
    meter.kill();
  }
});

/** Starts a `dodometer serve` that ends with the tests of this file. */
export async function serving(...options) {
  const binary = process.env.DODOMETER_BIN;
  if (!binary) {
    throw new Error('set DODOMETER_BIN to the dodometer binary: these tests talk to a real meter');
  }
  const args = ['serve', '--listen', '127.0.0.1:0', '--key', KEY, '--json', ...options];
  const meter = spawn(binary, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  meters.push(meter);
  const [line] = await Promise.race([
    once(createInterface(meter.stdout), 'line'),
    once(meter, 'error').then(([error]) => Promise.reject(error)),
    once(meter, 'exit').then(([code]) => Promise.reject(new Error(`${binary} exited: ${code}`))),
    sleep(READY_WITHIN, undefined, { ref: false }).then(() => {
      throw new Error(`${binary} said nothing within ${READY_WITHIN / 1000} s`);
    }),
  ]);
  return JSON.parse(line).url;
}

/** The official client of a meter. */
export function connect(url, options = {}) {
  return new DodoPayments({ bearerToken: KEY, baseURL: url, maxRetries: 0, ...options });
}

let number = 0;

export function unique(what) {
  number += 1;
  return `${what}_${number}`;
}

export function event(fields = {}) {
  return {
    event_id: unique('js'),
    customer_id: 'cus_js',
    event_name: 'api_call',
    ...fields,
  };
}

/** A time so many minutes from now. */
export function minutes(count) {
  return new Date(Date.now() + count * 60_000).toISOString();
}
