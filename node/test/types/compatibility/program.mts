// A program written against the declarations of the package that users have today. `existing.json` compiles it
// with that package, `ours.json` with this one.

import {
  APIError,
  ConfigurationError,
  type CreateBatchOptions,
  createBatch,
  createLLMTracker,
  DodoClient,
  type DodoConfig,
  type DodoEvent,
  DodoIngestionError,
  Ingestion,
  type IngestionConfig,
  type IngestResponse,
  LLMTracker,
  ProviderError,
  type TokenUsage,
  type TrackAPICallOptions,
  type TrackingConfig,
  type TrackObjectStorageOptions,
  type TrackStreamBytesOptions,
  type TrackTimeRangeOptions,
  trackAPICall,
  trackObjectStorage,
  trackStreamBytes,
  trackTimeRange,
  ValidationError,
  type WrapperConfig,
  wrapLLMClient,
} from '@dodopayments/ingestion-blueprints';

const config: IngestionConfig = { apiKey: 'k', environment: 'test_mode', eventName: 'api_call' };
const ingestion = new Ingestion(config);
// biome-ignore lint/suspicious/noExplicitAny: as the declarations have it
const metadata: Record<string, any> = { endpoint: '/v1/users' };
const call: TrackAPICallOptions = { customerId: 'cus_1', metadata };
const tracked: Promise<void> = ingestion.track(call);
await tracked.catch((error) => console.error(error));
await trackAPICall(ingestion, call);

const storage: TrackObjectStorageOptions = { customerId: 'cus_1', bytes: 1, metadata };
const stream: TrackStreamBytesOptions = { customerId: 'cus_1', bytes: 1 };
const range: TrackTimeRangeOptions = { customerId: 'cus_1', durationMs: 1, durationSeconds: 1 };
const all: Promise<void>[] = [
  trackObjectStorage(ingestion, storage),
  trackStreamBytes(ingestion, stream),
  trackTimeRange(ingestion, range),
];
await Promise.all(all);

const options: CreateBatchOptions = { maxSize: 10, flushInterval: 1000 };
let batch: ReturnType<typeof createBatch> | undefined = createBatch(ingestion, options);
const { add, flush }: { add: (event: TrackAPICallOptions) => void; flush: () => Promise<void> } =
  batch;
add({ customerId: 'cus_1' });
await flush();
await batch.cleanup();
batch = undefined;

const tracking: TrackingConfig = { apiKey: 'k', eventName: 'llm' };
const tracker = createLLMTracker(tracking);
const client = { chat: { completions: { create: async (_: object) => ({ model: 'm' }) } } };
const wrapped: typeof client = tracker.wrap({ client, customerId: 'cus_1', metadata });
await wrapped.chat.completions.create({});
const response: unknown = {};
await tracker.track(response, 'cus_1', metadata);
const healthy: boolean = await tracker.healthCheck();
const wrapper: WrapperConfig = { tracker: new LLMTracker(tracking), customerId: 'cus_1', metadata };
export const other: typeof client = wrapLLMClient(client, wrapper);
export const total = ({ inputTokens, outputTokens }: TokenUsage): number =>
  inputTokens + outputTokens;

const dodoConfig: DodoConfig = { apiKey: 'k', environment: 'live_mode' };
const dodo = new DodoClient(dodoConfig);
const event: DodoEvent = { event_id: 'e', customer_id: 'c', event_name: 'n', metadata };
const answer: IngestResponse = await dodo.ingestEvents([event]);
export const seen: [boolean, number, boolean, string] = [
  answer.success,
  answer.events_processed,
  healthy && (await dodo.healthCheck()),
  dodo.getEnvironment() + dodo.getClientInfo().sdkVersion,
];
for (const { event_id, error } of answer.errors ?? []) {
  console.error(event_id, error);
}

export function status(error: unknown): number {
  if (error instanceof ValidationError || error instanceof ConfigurationError) {
    return error.statusCode ?? 400;
  }
  if (error instanceof APIError) {
    console.error(error.code, error.details?.error?.code);
  }
  return error instanceof DodoIngestionError ? (error.statusCode ?? 500) : 500;
}
export const made: DodoIngestionError[] = [
  new DodoIngestionError('words', 'CODE', 400, { a: 1 }),
  new ValidationError('words', { a: 1 }),
  new APIError('words', 500, { a: 1 }),
  new ConfigurationError('words'),
  new ProviderError('words', 'details'),
];

// Values of types that say less, or more, than an event's do.
interface Pairs {
  endpoint: string;
  status: number;
}
export const handed = (
  pairs: Pairs,
  unknown: Record<string, unknown>,
  payload: object,
  query: Record<string, string | string[] | undefined>,
): Promise<void>[] => [
  trackAPICall(ingestion, { customerId: 'cus_1', metadata: pairs }),
  trackObjectStorage(ingestion, { customerId: 'cus_1', metadata: unknown }),
  ingestion.track({ customerId: 'cus_1', metadata: payload }),
  tracker.track(response, 'cus_1', query),
];
for (const each of [pairs(call), pairs({ customerId: 'cus_1', metadata })]) {
  add({ ...each, metadata: { ...each.metadata, region: 'eu' } });
}
function pairs(options: TrackAPICallOptions): TrackAPICallOptions {
  options.metadata = { ...options.metadata, region: 'eu' };
  options.metadata.plan = 'pro';
  return options;
}
for (const each of [event]) {
  each.metadata ??= {};
  each.metadata.region = 'eu';
}

// What is always there.
export const texts = (usage: TokenUsage): string[] => [
  usage.model.toUpperCase(),
  config.apiKey.slice(0, 4),
  config.eventName.trim(),
  tracking.apiKey.trim(),
  dodoConfig.apiKey.trim(),
];
export function told(error: DodoIngestionError): DodoIngestionError {
  error.details = { told: true };
  error.code = 'TOLD';
  error.statusCode = 418;
  return error;
}

// Stand-ins of a program's own tests.
export const failure: DodoIngestionError = { name: 'Error', message: 'words', code: 'CODE' };
export const standIns: [ReturnType<typeof createBatch>, ReturnType<typeof createLLMTracker>] = [
  { add: () => {}, flush: async () => {}, cleanup: async () => {} },
  { wrap: ({ client }) => client, track: async () => {}, healthCheck: async () => true },
];
