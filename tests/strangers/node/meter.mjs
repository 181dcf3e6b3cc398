import { after } from 'node:test';
import { DodoPayments } from 'dodopayments';
import { startMeter } from '../../page/meter.mjs';

export const KEY = 'strangers_key';

const meters = [];
after(() => Promise.all(meters.map((meter) => meter.stop())));

/** The address of a `dodometer serve` that ends with the tests of this file. */
export async function serving(...options) {
  const meter = await startMeter({ options: ['--key', KEY, ...options] });
  meters.push(meter);
  return meter.url;
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
