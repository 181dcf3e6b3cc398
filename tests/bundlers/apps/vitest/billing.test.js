import { ConfigurationError, Ingestion, ValidationError } from 'dodo-ingestion';
import { startMeter } from 'dodo-ingestion/testing';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { serve } from './billing.js';

let meter;
beforeAll(async () => {
  meter = await startMeter();
});
afterAll(() => meter.stop());

test('a call is billed', async () => {
  await serve(meter.connect(), 'cus_1').delivered();
  const [event] = await meter.events({ customerId: 'cus_1', count: 1 });
  expect(event.metadata).toEqual({ endpoint: '/', at: '1970-01-01T00:00:00.000Z' });
});

test('errors are of their classes', async () => {
  expect(() => new Ingestion({ lingr: 1 })).toThrow(ConfigurationError);
  await expect(serve(meter.connect(), '')).rejects.toBeInstanceOf(ValidationError);
});

test('modules that are reset bill the same', async () => {
  const client = meter.connect();
  for (let evaluation = 0; evaluation < 3; evaluation += 1) {
    vi.resetModules();
    const again = await import('./billing.js');
    expect(again.serve).not.toBe(serve);
    await again.serve(client, 'cus_again');
  }
  expect(await meter.events({ customerId: 'cus_again', count: 3 })).toHaveLength(3);
});
