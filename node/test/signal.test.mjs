// The README's way to end a server by a signal, as it stands.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { get } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocket } from 'ws';
import { startMeter } from './meter.mjs';

const WITHIN = 60_000;
const CUSTOMER = { 'x-customer-id': 'cus_1' };

const SERVER = `
import { createServer } from 'node:http';
import { Ingestion } from 'dodo-ingestion';
import { meter } from 'dodo-ingestion/http';
import { WebSocketServer } from 'ws';

const ingestion = new Ingestion({ eventName: 'api_call', durability: 'memory', linger: 60_000 });
const metered = meter(ingestion, { customer: 'x-customer-id', endpoint: (req) => req.url });
const server = createServer((req, res) => {
  metered(req, res);
  res.write('some');
  if (req.url === '/whole') {
    res.end();
  }
});
const webSockets = new WebSocketServer({ noServer: true });
server.on('upgrade', metered.upgrade);
server.on('upgrade', (...request) => webSockets.handleUpgrade(...request, () => {}));
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
`;

test('a server with a WebSocket and a hanging request bills both and ends', async (t) => {
  const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');
  const [recipe] = [...readme.matchAll(/```js\n(.*?)```/gs)]
    .map(([, code]) => code)
    .filter((code) => code.includes('SIGTERM'));
  const meter = await startMeter();
  const spool = mkdtempSync(join(tmpdir(), 'dodo-ingestion-signal-'));
  const child = spawn(process.execPath, ['--input-type=module', '--eval', SERVER + recipe], {
    cwd: new URL('..', import.meta.url),
    env: {
      ...process.env,
      DODO_PAYMENTS_API_KEY: 'signal',
      DODO_PAYMENTS_BASE_URL: meter.url,
      DODO_INGESTION_SPOOL_DIR: spool,
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exit = once(child, 'exit');
  t.after(() => {
    child.kill('SIGKILL');
    rmSync(spool, { recursive: true, force: true });
  });
  const [port] = await once(createInterface(child.stdout), 'line');

  const ask = async (path) => {
    const [response] = await once(get({ port, path, headers: CUSTOMER }), 'response');
    return response.on('error', () => {});
  };
  await once((await ask('/whole')).resume(), 'end'); // over a connection that is kept
  await once(await ask('/hanging'), 'data');
  const socket = new WebSocket(`ws://127.0.0.1:${port}/socket`, { headers: CUSTOMER });
  socket.on('error', () => {});
  await once(socket, 'open');

  child.kill('SIGTERM');
  const ended = await Promise.race([exit, sleep(WITHIN, ['still there'], { ref: false })]);
  assert.deepEqual(ended, [0, null]);
  const events = await meter.events('cus_1');
  assert.deepEqual(events.map(({ metadata }) => metadata.endpoint).sort(), [
    '/hanging',
    '/socket',
    '/whole',
  ]);
});
