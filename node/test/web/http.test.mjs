import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { readFileSync } from 'node:fs';
import { createServer, IncomingMessage, ServerResponse } from 'node:http';
import { connect, constants, createServer as createHttp2Server } from 'node:http2';
import { Writable } from 'node:stream';
import { test } from 'node:test';
import { ConfigurationError } from 'dodo-ingestion';
import {
  meter,
  setCustomer,
  setEndpoint,
  setMetadata,
  setUnits,
  skipMetering,
} from 'dodo-ingestion/http';
import { handler, routeOf } from './plain.mjs';
import { arrivals, echo, suite } from './suite.mjs';
import {
  meter as billing,
  call,
  client,
  events,
  eventually,
  leave,
  listen,
  raw,
  someone,
} from './support.mjs';

const start = async (ingestion, options) => {
  const { arrived, here } = arrivals();
  const metered = meter(ingestion, { endpoint: routeOf, ...options });
  const handle = handler(here, { setCustomer, setUnits });
  const server = createServer((req, res) => {
    metered(req, res);
    handle(req, res);
  });
  await echo(server, metered.upgrade);
  return { port: await listen(server), arrived, stats: metered.stats };
};
suite('node:http', start, { endpoint: '/v1/users/:user/orders/:order', upgrades: true });

const HEADER = 'x-customer-id';

/** A server with one handler, and the events of one customer. */
async function serve(handle, options = {}, create = createServer) {
  const ingestion = client();
  const metered = meter(ingestion, { customer: HEADER, ...options });
  const server = create((req, res) => {
    metered(req, res);
    handle(req, res, metered);
  });
  const customer = someone();
  const port = await listen(server);
  const found = async (count) =>
    (await events(ingestion, customer, count)).map(({ metadata }) => metadata);
  const headers = { [HEADER]: customer };
  return { ingestion, port, customer, headers, found, metered, server };
}

test('every way to write a response', async () => {
  const bodies = {
    '/end': (res) => res.end('é'),
    '/latin1': (res) => res.end('é', 'latin1'),
    '/bytes': (res) => res.end(new Uint8Array(7)),
    '/head': (res) => res.writeHead(200, 'Fine', { 'x-a': '1' }).end('four'),
    '/array': (res) => res.writeHead(200, ['x-a', '1', 'x-b', '2']).end('four'),
    '/flush': (res) => {
      res.flushHeaders();
      setImmediate(() => res.end('four'));
    },
    '/early': (res) => {
      res.writeEarlyHints({ link: '</style.css>; rel=preload' });
      res.end('four');
    },
    '/trailers': (res) => {
      res.writeHead(200, { trailer: 'x-sum' });
      res.write('four');
      res.addTrailers({ 'x-sum': '4' });
      res.end();
    },
    '/empty': (res) => res.end(),
    '/twice': (res) => {
      res.end('four');
      res.end();
      res.on('error', () => {});
      res.write('lost');
    },
    '/called': (res) => res.write('fo', 'utf8', () => res.end('ur', () => {})),
    '/refused': (res) => {
      assert.throws(() => res.end({ json: true }), { code: 'ERR_INVALID_ARG_TYPE' });
      res.end('four');
    },
  };
  const { port, headers, found } = await serve((req, res) => bodies[req.url](res), {
    endpoint: ({ url }) => url,
  });
  const sent = {};
  for (const path of Object.keys(bodies)) {
    sent[path] = (await call(port, path, { headers })).body.length;
  }
  const counted = {};
  for (const metadata of await found(Object.keys(bodies).length)) {
    counted[metadata.endpoint] = metadata.response_bytes;
    assert.equal(metadata.aborted, undefined, metadata.endpoint);
  }
  assert.deepEqual(Object.entries(counted).sort(), Object.entries(sent).sort());
});

test('the status is the one that is sent', async () => {
  const ways = {
    '/unsendable': (res) => {
      res.statusMessage = 'two\nlines';
      assert.throws(() => res.end('fine'), { code: 'ERR_INVALID_CHAR' });
      res.statusMessage = undefined;
      res.statusCode = 500;
      res.end('failed');
    },
    '/changed': (res) => {
      // As `on-headers` does it.
      const { writeHead } = res;
      res.writeHead = function (_, ...args) {
        this.statusCode = 429;
        return writeHead.call(this, 429, ...args);
      };
      res.end('fine');
    },
    '/written': (res) => {
      res.statusCode = 201;
      res.setHeader('content-length', 4);
      res.write('fine');
      res.end();
    },
  };
  const { port, headers, found } = await serve((req, res) => ways[req.url](res), {
    endpoint: ({ url }) => url,
  });
  const sent = {};
  for (const path of Object.keys(ways)) {
    sent[path] = (await call(port, path, { headers })).status;
  }
  assert.deepEqual(sent, { '/unsendable': 500, '/changed': 429, '/written': 201 });
  for (const metadata of await found(Object.keys(ways).length)) {
    assert.equal(metadata.status_code, sent[metadata.endpoint], metadata.endpoint);
    assert.equal(metadata.aborted, undefined, metadata.endpoint);
  }
});

test('backpressure, return values and errors are as they were', async () => {
  const size = 16 * 1024 * 1024;
  let full = 0;
  const chunk = Buffer.alloc(1024 * 1024);
  const { port, headers, found } = await serve(async (_, res) => {
    for (let left = size; left > 0; left -= chunk.length) {
      if (!res.write(chunk)) {
        full += 1;
        await new Promise((resolve) => res.once('drain', resolve));
      }
    }
    assert.throws(() => res.write({}), { code: 'ERR_INVALID_ARG_TYPE' });
    res.end();
  });
  const { body } = await call(port, '/', { headers });
  assert.equal(body.length, size);
  assert.ok(full > 0);
  const [{ response_bytes: bytes }] = await found(1);
  assert.equal(bytes, size);
});

test('a response that the server breaks off is aborted', async () => {
  const { port, headers, found } = await serve((_, res) => {
    res.write('some');
    setImmediate(() => res.destroy());
  });
  await assert.rejects(call(port, '/', { headers }));
  const [metadata] = await found(1);
  assert.deepEqual([metadata.status_code, metadata.aborted], [200, true]);
});

test('what a handler says of its call', async () => {
  const { port, customer, found } = await serve((req, res) => {
    setCustomer(req, customer);
    setEndpoint(req, '/said/:id');
    setMetadata(req, { plan: 'free', region: 'eu' });
    setMetadata(req, { plan: 'paid' });
    setUnits(req, Number.NaN);
    if (req.url === '/skipped') {
      skipMetering(req);
    }
    res.end();
  });
  await call(port, '/skipped');
  await call(port, '/said/secret');
  const [{ endpoint, plan, units }] = await found(1);
  assert.deepEqual(
    { endpoint, plan, units },
    { endpoint: '/said/:id', plan: 'paid', units: undefined },
  );
});

test('an upgrade that runs through the middleware is one call', async () => {
  // So do frameworks that find the handler of a WebSocket by their routes.
  const { port, headers, found, metered, server } = await serve(() => {});
  server.on('upgrade', (req, socket) => {
    const res = new ServerResponse(req);
    res.assignSocket(socket);
    metered(req, res);
    socket.end(
      'HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nbytes',
    );
  });
  const [[name, value]] = Object.entries(headers);
  const head = `${name}: ${value}\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n`;
  await raw(port, `GET / HTTP/1.1\r\nhost: x\r\n${head}`, (told) => told.endsWith('bytes'));
  const [metadata] = await found(1);
  assert.deepEqual([metadata.status_code, metadata.response_bytes], [101, 5]);
});

test('a response without a connection, as adapters for Lambda make it, finishes and never closes', async () => {
  const { headers, found, metered } = await serve(() => {});
  const req = Object.assign(new IncomingMessage(null), { method: 'GET', url: '/', headers });
  const res = new ServerResponse(req);
  res.assignSocket(new Writable({ write: (_chunk, _encoding, done) => done() }));
  metered(req, res);
  res.end('here');
  const [metadata] = await found(1);
  assert.deepEqual([metadata.status_code, metadata.response_bytes], [200, 4]);
});

test('HTTP/2', async () => {
  const { port, headers, found } = await serve(
    (req, res) => {
      res.write('some');
      if (req.url === '/whole') {
        res.end('more');
      }
    },
    { endpoint: ({ url }) => url },
    createHttp2Server,
  );
  const session = connect(`http://127.0.0.1:${port}`);
  const whole = session.request({ ':path': '/whole', ...headers });
  let body = '';
  for await (const chunk of whole) {
    body += chunk;
  }
  assert.equal(body, 'somemore');
  const broken = session.request({ ':path': '/broken', ...headers });
  broken.on('error', () => {});
  await new Promise((resolve) => broken.once('data', resolve));
  broken.close(constants.NGHTTP2_CANCEL);
  const seen = (await found(2)).map(({ endpoint, response_bytes: bytes, aborted }) => [
    endpoint,
    bytes,
    aborted,
  ]);
  assert.deepEqual(seen.sort(), [
    ['/broken', 4, true],
    ['/whole', 8, undefined],
  ]);
  session.close();
});

test('many clients that go away leave as many calls', async () => {
  const { port, headers, found } = await serve((_, res) => res.write('some'));
  const left = Array.from({ length: 50 }, () => leave(port, '/', { headers, begun: true }));
  await Promise.all(left);
  for (const { aborted } of await found(50)) {
    assert.equal(aborted, true);
  }
});

test('many requests in the pipeline of one connection', async (t) => {
  const warnings = [];
  const hear = ({ name, message }) => warnings.push(`${name}: ${message}`);
  process.on('warning', hear);
  t.after(() => process.off('warning', hear));
  const { port, headers, found } = await serve((req, res) => {
    // The first holds the others up.
    setTimeout(() => res.end(req.url), req.url === '/0' ? 200 : 0);
  });
  const [[name, value]] = Object.entries(headers);
  const head = `host: x\r\n${name}: ${value}\r\n\r\n`;
  const requests = Array.from({ length: 30 }, (_, n) => `GET /${n} HTTP/1.1\r\n${head}`);
  await raw(port, requests.join(''), (told) => told.endsWith('/29'));
  assert.equal((await found(30)).length, 30);
  assert.deepEqual(
    warnings.filter((each) => each.includes('MaxListeners')),
    [],
  );
});

test('whose call it is: text, a number or a bigint, and nothing else', async () => {
  const named = someone();
  const number = Number(`7${process.pid}`);
  // A thenable need not give a promise.
  const then = (resolve) => void setImmediate(resolve, named);
  const thenable = Object.fromEntries([['then', then]]);
  const customers = [
    number,
    BigInt(number),
    thenable,
    {},
    true,
    Symbol('s'),
    Number.NaN,
    [named],
    '',
  ];
  const warnings = [];
  const hear = ({ code, message }) => warnings.push(`${code}: ${message}`);
  process.on('warning', hear);
  const { port, ingestion, metered } = await serve((_, res) => res.end(), {
    customer: ({ url }) => customers[Number(url.slice(1))],
  });
  for (const index of customers.keys()) {
    await call(port, `/${index}`);
  }
  await eventually(() => metered.stats().missingCustomer === 6);
  await events(ingestion, String(number), 2);
  await events(ingestion, named, 1);
  process.off('warning', hear);
  assert.equal(metered.stats().failed, 5);
  assert.equal(warnings.filter((each) => each.includes('which is no id')).length, 1);
});

test('options are checked when the middleware is made', () => {
  const ingestion = client();
  const refused = (options, message, field) =>
    assert.throws(
      () => meter(ingestion, options),
      (error) => {
        assert.ok(error instanceof ConfigurationError);
        assert.match(error.message, message);
        assert.equal(error.field, field);
        return true;
      },
    );
  refused({ customr: 'x' }, /nearest is customer/, 'customr');
  refused({ bill_status: () => true }, /nearest is billStatus/, 'bill_status');
  refused({ toString: 1 }, /is no option/, 'toString');
  refused({ customer: 'x customer' }, /a header's name/, 'customer');
  refused({ customer: 'From' }, /Node shows the first alone/, 'customer');
  refused({ customer: 7 }, /a header's name or a function/, 'customer');
  refused({ onMissingCustomer: 'raise' }, /'skip', 'throw'/, 'onMissingCustomer');
  refused({ exclude: '/healthz' }, /array of templates/, 'exclude');
  refused({ errorEventName: '' }, /a name or null/, 'errorEventName');
  assert.throws(() => meter(undefined), { field: 'ingestion' });
  meter(ingestion, { customer: undefined, errorEventName: null });
});

test('in development a missing customer can throw', () => {
  const script = `
    import { createServer } from 'node:http';
    import { Ingestion } from 'dodo-ingestion';
    import { meter } from 'dodo-ingestion/http';
    const ingestion = new Ingestion({
      apiKey: 'dodo_test_node', eventName: 'api_call', baseUrl: '${billing.url}',
      durability: 'memory', onAlarm: () => {},
    });
    const metered = meter(ingestion, { onMissingCustomer: 'throw' });
    const server = createServer((req, res) => {
      metered(req, res);
      res.end('served');
    });
    let left = 2;
    const tell = (...what) => {
      console.log(...what);
      left -= 1;
      if (left === 0) process.exit();
    };
    process.on('uncaughtException', ({ name, field }) => tell(name, field));
    server.listen(0, '127.0.0.1', async () => {
      const response = await fetch('http://127.0.0.1:' + server.address().port);
      tell(await response.text());
    });
  `;
  const options = { cwd: new URL('../..', import.meta.url), encoding: 'utf8', timeout: 120_000 };
  const args = ['--input-type=module', '--eval', script];
  const { stdout, stderr } = spawnSync(process.execPath, args, options);
  assert.deepEqual(
    stdout.trim().split('\n').sort(),
    ['ConfigurationError customer', 'served'],
    stderr,
  );
});

test('who spies on `track`, or listens for receipts, has those of a middleware', async () => {
  const ingestion = client();
  const metered = meter(ingestion, { customer: HEADER });
  const server = createServer((req, res) => {
    metered(req, res);
    res.end();
  });
  const port = await listen(server);
  const customers = [someone(), someone(), someone()];
  const ask = (customer) => call(port, '/', { headers: { [HEADER]: customer } });
  const ended = (count) =>
    eventually(() => metered.stats().errors + metered.stats().billed === count);

  await ask(customers[0]);
  await ended(1);

  const listened = [];
  const heard = (message) => listened.push(message);
  subscribe('dodo-ingestion:track', heard);
  await ask(customers[1]);
  await ended(2);
  unsubscribe('dodo-ingestion:track', heard);
  assert.equal(listened[0].event.customerId, customers[1]);

  const spied = [];
  ingestion.track = function track(event) {
    spied.push(event.customerId);
    return Object.getPrototypeOf(this).track.call(this, event);
  };
  await ask(customers[2]);
  await ended(3);
  assert.deepEqual(spied, [customers[2]]);

  await ingestion.flush();
  await listened[0].receipt.delivered();
  for (const customer of customers) {
    assert.equal((await events(ingestion, customer, 1)).length, 1);
  }
  await ingestion.close();
  server.close();
});

test('a path that climbs is below no excluded one', async () => {
  const ingestion = await client();
  const metered = meter(ingestion, {
    customer: 'x-customer-id',
    exclude: ['/internal/*', '/*'],
  });
  const server = createServer((req, res) => {
    metered(req, res);
    res.end('here');
  });
  const port = await listen(server);
  const { climbing, staying } = JSON.parse(
    readFileSync(new URL('../../../tests/vectors/metering.json', import.meta.url), 'utf8'),
  );
  const customer = someone();
  for (const path of [...staying, ...climbing]) {
    const head = `GET ${path} HTTP/1.1\r\nhost: x\r\nx-customer-id: ${customer}\r\nconnection: close\r\n\r\n`;
    await raw(port, head, () => false);
  }
  await events(ingestion, customer, climbing.length);
});
