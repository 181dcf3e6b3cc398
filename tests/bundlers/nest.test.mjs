// NestJS of the version before the one that the package's own tests have.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { copyOf, meterOfTests, run } from './support.mjs';

const meter = await meterOfTests();

test('NestJS 11', async () => {
  await run(meter, copyOf('nest'), [process.execPath, 'app.js']);
  const events = await meter.events({ customerId: 'cus_nest', count: 2, timeout: 120_000 });
  const seen = events.map(({ eventName, metadata }) => [eventName, metadata.endpoint].join(' '));
  assert.deepEqual(seen.sort(), [
    'api_call /v1/users/:user/orders/:order',
    'api_error /v1/users/:user/orders/:order/refused',
  ]);
});
