// What the existing package bills wrongly, or not at all. It prints what went wrong.

const { createLLMTracker, Ingestion, trackAPICall, trackTimeRange } = await import(process.argv[2]);

const refused = [];
const attempt = (name, promise) => promise.catch((error) => refused.push([name, error.code]));
const config = { apiKey: 'compatible', environment: 'test_mode' };
const ingestion = new Ingestion({ ...config, eventName: 'api_call' });

await attempt('negative', trackTimeRange(ingestion, { customerId: 'negative', durationMs: -1 }));
await attempt(
  'null',
  trackAPICall(ingestion, { customerId: 'null', metadata: { n: 1, gone: null } }),
);
await attempt('bigint', trackAPICall(ingestion, { customerId: 'bigint', metadata: { n: 1n } }));

const answer = { model: 'm', usage: { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 } };
async function* pieces() {
  yield { model: 'm' };
  yield answer;
}
class Answers {
  async create() {
    return pieces();
  }
  async retrieve() {
    return answer;
  }
}
const tracker = createLLMTracker({ ...config, eventName: 'llm' });
const responses = new Answers();
const streaming = tracker.wrap({ client: { responses }, customerId: 'stream' });
for await (const _ of await streaming.responses.create({ stream: true })) {
  // What comes is of no interest.
}
await tracker.wrap({ client: { responses }, customerId: 'again' }).responses.retrieve('resp_1');
const steps = { inputTokens: 1, outputTokens: 2, reasoningTokens: 1, totalTokens: 3 };
await tracker.track({ usage: steps }, 'reasoning');
const totalUsage = { inputTokens: 5, outputTokens: 6, totalTokens: 11 };
await tracker.track({ usage: steps, totalUsage }, 'steps');
process.stdout.write(JSON.stringify(refused));
