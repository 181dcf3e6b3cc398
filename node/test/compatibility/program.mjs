// The program that is run with either package, which the first argument names. It prints what it saw.

const {
  APIError,
  ConfigurationError,
  createBatch,
  createLLMTracker,
  DodoClient,
  DodoIngestionError,
  Ingestion,
  LLMTracker,
  ProviderError,
  trackAPICall,
  trackObjectStorage,
  trackStreamBytes,
  trackTimeRange,
  ValidationError,
  wrapLLMClient,
} = await import(process.argv[2]);

const seen = {};
const config = { apiKey: 'compatible', environment: 'test_mode' };
const ingestion = new Ingestion({ ...config, eventName: 'api_call' });

await ingestion.track({ customerId: 'track' });
await trackAPICall(ingestion, {
  customerId: 'call',
  metadata: { endpoint: '/v1/users', status: 200, cached: false, ratio: 0.5, at: new Date(0) },
});
await trackObjectStorage(ingestion, { customerId: 'storage', bytes: 7, metadata: { bucket: 'b' } });
await trackObjectStorage(ingestion, {
  customerId: 'storage-own',
  bytes: 7,
  metadata: { bytes: 8 },
});
await trackStreamBytes(ingestion, { customerId: 'stream', bytes: 0 });
await trackTimeRange(ingestion, { customerId: 'ms', durationMs: 1.5 });
await trackTimeRange(ingestion, { customerId: 'seconds', durationSeconds: 90 });
await trackTimeRange(ingestion, { customerId: 'both', durationMinutes: 2, durationMs: 120_000 });
await trackTimeRange(ingestion, { customerId: 'none' });

const { add, flush, cleanup } = createBatch(ingestion, { maxSize: 100, flushInterval: 60_000 });
for (let n = 0; n < 20; n += 1) {
  add({ customerId: 'batch', metadata: { n } });
}
await flush();
add({ customerId: 'batch', metadata: { n: 20 } });
await cleanup();

const usage = { prompt_tokens: 12, completion_tokens: 30, total_tokens: 42 };
const tracker = createLLMTracker({ ...config, eventName: 'llm' });
const client = { chat: { completions: { create: async () => ({ model: 'm', usage }) } } };
const wrapped = tracker.wrap({ client, customerId: 'wrapped', metadata: { feature: 'chat' } });
seen.answer = await wrapped.chat.completions.create({});
await tracker.track({ model: 'm', usage }, 'tracked', { feature: 'chat' });
seen.healthy = await tracker.healthCheck();
const own = new LLMTracker({ ...config, eventName: 'llm' });
const messages = {
  create: async () => ({ model: 'c', usage: { input_tokens: 1, output_tokens: 2 } }),
};
await wrapLLMClient({ messages }, { tracker: own, customerId: 'anthropic' }).messages.create({});
const models = {
  generateContent: async () => ({
    modelVersion: 'g',
    usageMetadata: {
      promptTokenCount: 1,
      candidatesTokenCount: 2,
      totalTokenCount: 6,
      thoughtsTokenCount: 3,
    },
  }),
};
await wrapLLMClient({ models }, { tracker: own, customerId: 'google' }).models.generateContent({});
await tracker.track({ model: 'm', usage: { input: 1, output: 2, total: 4 } }, 'generic');
await tracker.track({ model: 'm', usage: { input: 1, output: 2 } }, 'generic-sum');
const generateText = async () => ({ usage: { inputTokens: 1, outputTokens: 2, totalTokens: 3 } });
await wrapLLMClient({ generateText }, { tracker: own, customerId: 'sdk' }).generateText({});

const dodo = new DodoClient(config);
const event = { event_id: 'id-1', customer_id: 'client', event_name: 'api_call' };
const { success, events_processed } = await dodo.ingestEvents([
  event,
  { ...event, event_id: 'id-2' },
]);
seen.ingested = { success, events_processed };
await dodo.ingestEvent(event);
seen.environment = dodo.getEnvironment();
seen.healthyClient = await dodo.healthCheck();

const refused = async (act) => {
  try {
    await act();
    return 'nothing';
  } catch (error) {
    const classes = {
      APIError,
      ConfigurationError,
      DodoIngestionError,
      ProviderError,
      ValidationError,
    };
    return {
      name: error.name,
      code: error.code,
      statusCode: error.statusCode,
      classes: Object.keys(classes).filter((name) => error instanceof classes[name]),
    };
  }
};
seen.refused = {
  customer: await refused(() => trackAPICall(ingestion, { customerId: '' })),
  timestamp: await refused(() => dodo.ingestEvent({ ...event, timestamp: 'yesterday' })),
  id: await refused(() => dodo.ingestEvent({ ...event, event_id: '' })),
  noEvents: await refused(() => dodo.ingestEvents([])),
};
seen.made = [
  new DodoIngestionError('words', 'MINE', 418, { a: 1 }),
  new ValidationError('words', { a: 1 }),
  new APIError('words', 503, { a: 1 }),
  new ConfigurationError('words', { a: 1 }),
  new ProviderError('words', { a: 1 }),
].map(({ name, message, code, statusCode, details }) => ({
  name,
  message,
  code,
  statusCode,
  details,
}));
process.stdout.write(JSON.stringify(seen));
