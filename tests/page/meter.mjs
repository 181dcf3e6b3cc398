// A local meter as a process of its own, and events for it.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

const READY_WITHIN = 120_000;

/** Starts a `dodometer serve` with further options; port 0 takes a free one. */
export async function startMeter({ port = 0, options = [] } = {}) {
  const binary = process.env.DODOMETER_BIN;
  if (!binary) throw new Error('set DODOMETER_BIN to the dodometer binary: these tests talk to a real meter');
  const args = ['serve', '--listen', `127.0.0.1:${port}`, '--data', ':memory:', '--json', ...options];
  const running = spawn(binary, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = await Promise.race([
    once(createInterface(running.stdout), 'line'),
    once(running, 'error').then(([error]) => Promise.reject(error)),
    once(running, 'exit').then(([code]) => Promise.reject(new Error(`${binary} exited: ${code}`))),
    sleep(READY_WITHIN, undefined, { ref: false }).then(() => {
      throw new Error(`${binary} said nothing within ${READY_WITHIN / 1000} s`);
    }),
  ]);
  return new Meter(JSON.parse(line).url, running);
}

class Meter {
  #running;

  constructor(url, running) {
    this.url = url;
    this.#running = running;
  }

  async stop() {
    if (this.#running.exitCode !== null || this.#running.signalCode !== null) return;
    const ended = once(this.#running, 'exit');
    this.#running.kill();
    await ended;
  }

  /** Has it stand still, its connections open, until it is told to go on. */
  freeze() {
    this.#running.kill('SIGSTOP');
  }

  goOn() {
    this.#running.kill('SIGCONT');
  }

  async send(method, path, body) {
    const headers = { authorization: 'Bearer test', 'content-type': 'application/json' };
    const answer = await fetch(new URL(path, this.url), {
      method,
      headers,
      body: typeof body === 'string' ? body : JSON.stringify(body),
    });
    const text = await answer.text();
    return { status: answer.status, body: text ? JSON.parse(text) : null };
  }

  /** Sends events that must all be taken, a thousand a request. */
  async ingest(events) {
    for (let from = 0; from < events.length; from += 1000) {
      const { status, body } = await this.send('POST', '/events/ingest', { events: events.slice(from, from + 1000) });
      if (status !== 200) throw new Error(`the meter answered ${status}: ${JSON.stringify(body)}`);
    }
  }

  /** Makes a meter that has a price. */
  async price(definition, price) {
    const made = await this.send('POST', '/meters', definition);
    if (made.status !== 201) throw new Error(JSON.stringify(made.body));
    const priced = await this.send('PUT', `/_dev/meters/${made.body.id}/price`, price);
    if (priced.status !== 200) throw new Error(JSON.stringify(priced.body));
    return made.body.id;
  }

  /** The two meters that the tests and the pictures bill by. */
  async priceCalls() {
    await this.price(
      { name: 'API calls', event_name: 'api_call', measurement_unit: 'call', aggregation: { type: 'count' } },
      { price_per_unit: '0.4', free_threshold: 100 },
    );
    await this.price(
      {
        name: 'Response data',
        event_name: 'api_call',
        measurement_unit: 'byte',
        aggregation: { type: 'sum', key: 'response_bytes' },
      },
      { price_per_unit: '0.00002', free_threshold: 100000 },
    );
  }
}

let id = 0;

/** One event; `metadata` is added to that of an ordinary call. */
export function event({ customer = 'cus_1', at, name = 'api_call', ...metadata } = {}) {
  id += 1;
  return {
    event_id: `e${process.pid}-${id}`,
    customer_id: customer,
    event_name: name,
    ...(at && { timestamp: at.toISOString() }),
    metadata: { endpoint: '/v1/users/{id}', method: 'GET', status_code: 200, response_time_ms: 12.5, ...metadata },
  };
}

/** Numbers from 0 to 1 that are the same each time. */
function random(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x6d2b79f5) | 0;
    const mixed = Math.imul(state ^ (state >>> 12), 0x297a2d39);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
  };
}

const ENDPOINTS = [
  ['GET', '/v1/users/{id}', 9, 14],
  ['GET', '/v1/search', 6, 48],
  ['POST', '/v1/orders', 4, 85],
  ['GET', '/v1/orders/{id}', 5, 22],
  ['POST', '/v1/files', 1, 240],
  ['GET', '/v1/files/{id}', 3, 60],
  ['DELETE', '/v1/sessions/{id}', 1, 9],
];

/** Events as an API would send them: some customers are large, some endpoints slow, for a while it fails. */
export function traffic({ count, customers, minutes = 55, seed = 1, now = Date.now() }) {
  const next = random(seed);
  const pool = ENDPOINTS.flatMap(([method, endpoint, weight, ms]) => Array(weight).fill({ method, endpoint, ms }));
  const length = minutes * 60_000;
  const events = [];
  for (let n = 0; n < count; n += 1) {
    const customer = Math.floor(customers * next() ** 2.2);
    const call = pool[Math.floor(next() * pool.length)];
    // More calls lately, in waves.
    let back = next() ** 1.2;
    if (next() < 0.35) back = Math.round(back * 8) / 8 + (next() - 0.5) * 0.06;
    back = Math.min(Math.max(back, 0), 1);
    const failing = back > 0.36 && back < 0.44;
    const dice = next();
    const status = dice < (failing ? 0.14 : 0.004) ? 503 : dice < 0.025 + (failing ? 0.14 : 0) ? 404 : 200;
    const slow = (0.55 + next() ** 6 * 7 + next() * 0.5) * (failing ? 2.2 : 1);
    events.push(
      event({
        customer: `cus_${String(customer + 1).padStart(3, '0')}`,
        at: new Date(now - back * length),
        name: status < 500 ? 'api_call' : 'api_error',
        method: call.method,
        endpoint: call.endpoint,
        status_code: status,
        response_time_ms: Math.round(call.ms * slow * 10) / 10,
        response_bytes: Math.floor(200 + next() * 9000),
      }),
    );
  }
  return events.sort((a, b) => (a.timestamp < b.timestamp ? -1 : 1));
}
