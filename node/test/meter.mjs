// A local meter to bill to, and clients of it.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { after } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Ingestion } from 'dodo-ingestion';
import { findDodometer } from '../dist/dodometer.js';

const READY_WITHIN = 120_000;

/** Starts a `dodometer serve` that ends with the tests of this file. */
export async function startMeter() {
  const binary = findDodometer();
  const args = ['serve', '--listen', '127.0.0.1:0', '--data', ':memory:', '--json'];
  const meter = spawn(binary, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  after(() => meter.kill());
  const [line] = await Promise.race([
    once(createInterface(meter.stdout), 'line'),
    once(meter, 'error').then(([error]) => Promise.reject(error)),
    once(meter, 'exit').then(([code]) => Promise.reject(new Error(`${binary} exited: ${code}`))),
    sleep(READY_WITHIN, undefined, { ref: false }).then(() => {
      throw new Error(`${binary} said nothing within ${READY_WITHIN / 1000} s`);
    }),
  ]);
  return new Meter(JSON.parse(line).url);
}

class Meter {
  constructor(url) {
    this.url = url;
  }

  async text(path, query = {}) {
    const url = new URL(path, this.url);
    url.search = new URLSearchParams(query).toString();
    const response = await fetch(url, { headers: { authorization: 'Bearer test' } });
    const body = await response.text();
    if (!response.ok) {
      throw new Error(`GET ${url}: ${response.status} ${body}`);
    }
    return body;
  }

  async get(path, query) {
    return JSON.parse(await this.text(path, query));
  }

  /** All events of a customer, page by page. */
  async events(customerId) {
    const found = [];
    for (let page = 0; ; page += 1) {
      const query = { customer_id: customerId, page_size: 1000, page_number: page };
      const { items } = await this.get('/events', query);
      found.push(...items);
      if (items.length < 1000) {
        return found;
      }
    }
  }

  /** A client that bills to this meter, closed when the tests end. */
  connect(options = {}) {
    const ingestion = new Ingestion({
      apiKey: 'dodo_test_node',
      environment: 'test_mode',
      baseUrl: this.url,
      eventName: 'api_call',
      durability: 'memory',
      ...options,
    });
    after(() => ingestion.close({ timeout: 1_000 }).catch(() => {}));
    return ingestion;
  }
}

/** JSON with integers beyond 2^53 as bigints. */
export function parseExactly(text) {
  // An escaped quote before the colon would mean JSON within a string.
  const marked = text.replace(/(?<=[^\\]":\s*)-?\d{16,}(?=\s*[,}])/g, '"bigint:$&"');
  return JSON.parse(marked, (_, value) =>
    typeof value === 'string' && value.startsWith('bigint:')
      ? compact(BigInt(value.slice('bigint:'.length)))
      : value,
  );
}

function compact(integer) {
  const number = Number(integer);
  return Number.isSafeInteger(number) ? number : integer;
}

/** The vectors that JavaScript can say. */
export function vectors() {
  const path = new URL('../../tests/vectors/events.json', import.meta.url);
  return parseExactly(readFileSync(path, 'utf8')).filter((vector) => !vector.json_only);
}
