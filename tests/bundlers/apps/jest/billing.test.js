const { statSync } = require('node:fs');
const { ConfigurationError, Ingestion, ValidationError } = require('dodo-ingestion');
const { startMeter } = require('dodo-ingestion/testing');
const { serve } = require('./billing');

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

test('a date that Node has made is one', async () => {
  const { mtime } = statSync(__filename);
  const client = meter.connect();
  await client.track({ customerId: 'cus_2', timestamp: new Date(), metadata: { mtime } });
  const [event] = await meter.events({ customerId: 'cus_2', count: 1 });
  expect(event.metadata).toEqual({ mtime: mtime.toISOString() });
});

test('modules that are reset', async () => {
  jest.resetModules();
  const again = require('dodo-ingestion');
  expect(again.Ingestion).not.toBe(Ingestion);
  expect(() => new again.Ingestion({ lingr: 1 })).toThrow(again.ConfigurationError);
});
