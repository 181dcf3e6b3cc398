// Real sockets to a metered app, and its events at a real meter.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { connect } from 'node:net';
import { after } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { startMeter } from '../meter.mjs';

const WITHIN = 120_000;

export const meter = await startMeter();

let accounts = 0;

/** A client of the meter that is in no test's way. */
export function client(options = {}) {
  accounts += 1;
  return meter.connect({
    account: `web-${accounts}`,
    linger: 20,
    onAlarm: () => {},
    requestsPerMinute: 100_000,
    requestsPerSecond: 10_000,
    ...options,
  });
}

let customers = 0;

/** A customer that no other test bills. */
export function someone() {
  customers += 1;
  return `cus_web_${process.pid}_${customers}`;
}

/** Has a server listen until the tests end; gives its port. */
export async function listen(server) {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  after(() => {
    server.closeAllConnections?.();
    server.close();
  });
  return server.address().port;
}

/** One request and its whole answer. */
export async function call(port, path, { method = 'GET', headers = {}, agent = false } = {}) {
  const outgoing = request({ host: '127.0.0.1', port, path, method, headers, agent });
  outgoing.end();
  const [incoming] = await once(outgoing, 'response');
  const chunks = [];
  for await (const chunk of incoming) {
    chunks.push(chunk);
  }
  return { status: incoming.statusCode, headers: incoming.headers, body: Buffer.concat(chunks) };
}

/** One request whose answer is not waited for: the client goes away at its first byte, or before it. */
export async function leave(port, path, { method = 'GET', headers = {}, begun, arrived } = {}) {
  const outgoing = request({ host: '127.0.0.1', port, path, method, headers, agent: false });
  outgoing.on('error', () => {});
  outgoing.end();
  if (begun) {
    const [incoming] = await once(outgoing, 'response');
    incoming.on('error', () => {});
    await once(incoming, 'data');
  } else {
    await arrived;
  }
  outgoing.destroy();
}

/** All that a server says to some bytes, until it or the test closes the connection. */
export async function raw(port, bytes, enough) {
  const socket = connect(port, '127.0.0.1');
  socket.write(bytes);
  let answer = '';
  for await (const chunk of socket) {
    answer += chunk.toString('latin1');
    if (enough(answer)) {
      break;
    }
  }
  socket.destroy();
  return answer;
}

export const keepAlive = () => new Agent({ keepAlive: true, maxSockets: 1 });

/** The events of a customer, once there are so many. */
export async function events(ingestion, customer, count = 1) {
  const until = Date.now() + WITHIN;
  for (;;) {
    await ingestion.flush({ timeout: WITHIN });
    const found = await meter.events(customer);
    if (found.length >= count) {
      assert.equal(found.length, count, `${customer} has ${found.length} events for ${count}`);
      return found;
    }
    if (Date.now() > until) {
      throw new Error(`${customer} has ${found.length} events after ${WITHIN} ms, not ${count}`);
    }
    await sleep(20);
  }
}

/** Waits for what becomes true. */
export async function eventually(is) {
  const until = Date.now() + WITHIN;
  while (!is()) {
    assert.ok(Date.now() < until, `not within ${WITHIN} ms: ${is}`);
    await sleep(10);
  }
}
