// Servers that are killed under load: what their clients have whole is billed, once.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { Ingestion } from 'dodo-ingestion';
import { beside, meter, optionsOf, start, WITHIN } from './processes.mjs';

const KILLED = 5;
const CONNECTIONS = 4;
/** Whole answers before a server is killed. */
const ANSWERS = 60;

/** Asks one request after the other, until there is no answer any more. */
async function ask(port, customer, numbers, asked, answered) {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  try {
    for (;;) {
      const number = numbers.next().value;
      asked.add(number);
      const headers = { 'x-customer-id': customer, 'x-number': number };
      const outgoing = request({ host: '127.0.0.1', port, agent, headers });
      outgoing.end();
      const [incoming] = await once(outgoing, 'response');
      let body = '';
      for await (const chunk of incoming) {
        body += chunk;
      }
      assert.equal(body, 'answered');
      answered.add(number);
    }
  } catch (error) {
    assert.equal(error.code, 'ECONNRESET');
  } finally {
    agent.destroy();
  }
}

function* counting() {
  for (let number = 1; ; number += 1) {
    yield number;
  }
}

for (const framework of ['http', 'express', 'fastify', 'koa']) {
  test(`${framework}: whoever has a whole answer is billed, though the server is killed`, async () => {
    const account = `killed-${framework}`;
    const customer = `cus_${account}`;
    const env = { ...process.env, OPTIONS: JSON.stringify(optionsOf(account)) };
    const [numbers, asked, answered] = [counting(), new Set(), new Set()];
    for (let killed = 0; killed < KILLED; killed += 1) {
      const child = start([beside('killed.cjs'), framework], { env });
      const [port] = await once(createInterface({ input: child.stdout }), 'line');
      const before = answered.size;
      const clients = Array.from({ length: CONNECTIONS }, () =>
        ask(port, customer, numbers, asked, answered),
      );
      while (answered.size < before + ANSWERS) {
        await new Promise(setImmediate);
      }
      child.kill('SIGKILL');
      await Promise.all(clients);
    }
    const ingestion = new Ingestion({ ...optionsOf(account), onAlarm() {} });
    let billed = [];
    const until = Date.now() + WITHIN;
    const isIn = (number) => billed.includes(number);
    do {
      await new Promise((resolve) => setTimeout(resolve, 100));
      billed = (await meter.events(customer)).map(({ metadata }) => metadata.n);
    } while (![...answered].every(isIn) && Date.now() < until);
    await ingestion.close();
    const unbilled = [...answered].filter((number) => !isIn(number));
    assert.deepEqual(unbilled, [], `of ${answered.size} answered`);
    assert.equal(new Set(billed).size, billed.length, 'billed twice');
    assert.ok(billed.every((number) => asked.has(number)));
  });
}
