// The AI SDK, with its mock model: what `{ generateText, streamText }` bills, and that nobody is hurt by it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import * as ai from 'ai';
import { MockEmbeddingModelV3, MockLanguageModelV3 as MockModel } from 'ai/test';
import { createLLMTracker } from 'dodo-ingestion';
import { startMeter } from './meter.mjs';

const meter = await startMeter();
const ingestion = meter.connect();
const tracker = createLLMTracker({ ingestion, eventName: 'llm' });

const { generateText, stepCountIs, streamObject, streamText, tool } = ai;
const usage = {
  inputTokens: { total: 10, noCache: 6, cacheRead: 4 },
  outputTokens: { total: 20, text: 12, reasoning: 8 },
};
const ONE = {
  inputTokens: 10,
  outputTokens: 20,
  totalTokens: 30,
  model: 'mock-model-id',
  provider: 'mock-provider',
  cachedInputTokens: 4,
  reasoningTokens: 8,
};
const TWO = {
  ...ONE,
  inputTokens: 20,
  outputTokens: 40,
  totalTokens: 60,
  cachedInputTokens: 8,
  reasoningTokens: 16,
};

const call = { type: 'tool-call', toolCallId: '1', toolName: 'add', input: '{}' };
const finish = (reason) => ({ finishReason: { unified: reason }, usage });
/** A model that calls a tool first, and then answers. */
function tooled() {
  let calls = 0;
  const first = () => {
    calls += 1;
    return calls === 1;
  };
  return new MockModel({
    doGenerate: async () =>
      first()
        ? { content: [call], ...finish('tool-calls'), warnings: [] }
        : { content: [{ type: 'text', text: '3' }], ...finish('stop'), warnings: [] },
    doStream: async () => ({ stream: first() ? streamOf([call], 'tool-calls') : text('3') }),
  });
}
const options = () => ({
  model: tooled(),
  prompt: '1 + 2?',
  tools: { add: tool({ inputSchema: ai.jsonSchema({ type: 'object' }), execute: () => 3 }) },
  stopWhen: stepCountIs(3),
});

function streamOf(parts, reason = 'stop') {
  const begin = { type: 'stream-start', warnings: [] };
  return ai.simulateReadableStream({
    chunks: [begin, ...parts, { type: 'finish', ...finish(reason) }],
    initialDelayInMs: null,
    chunkDelayInMs: null,
  });
}
const delta = (id, part) => ({ type: 'text-delta', id, delta: part });
const text = (...parts) =>
  streamOf([
    { type: 'text-start', id: '1' },
    ...parts.map((part) => delta('1', part)),
    { type: 'text-end', id: '1' },
  ]);
const streaming = (doStream) => ({ model: new MockModel({ doStream }), prompt: 'Hello?' });

async function events(customerId) {
  await ingestion.flush();
  return (await meter.events(customerId)).map(({ metadata }) => metadata);
}

test('generateText bills all of its steps', async () => {
  const wrapped = tracker.wrap({ client: { generateText }, customerId: 'cus_generate' });
  const answer = await wrapped.generateText(options());
  assert.deepEqual([answer.text, answer.steps.length], ['3', 2]);
  assert.deepEqual(await events('cus_generate'), [TWO]);
});

test('streamText bills all of its steps when somebody has read it', async () => {
  const wrapped = tracker.wrap({ client: { streamText }, customerId: 'cus_stream' });
  let finished = 0;
  const onFinish = ({ totalUsage }) => {
    finished += totalUsage.totalTokens;
  };
  const answer = wrapped.streamText({ ...options(), onFinish });
  let told = '';
  for await (const part of answer.textStream) {
    told += part;
  }
  assert.deepEqual([told, finished], ['3', 60]);
  assert.deepEqual(await events('cus_stream'), [TWO]);
});

test('a listener that the version of the SDK does not know does no harm', async () => {
  const wrapped = tracker.wrap({ client: { streamText }, customerId: 'cus_end' });
  const onEnd = () => {
    throw new Error('planted');
  };
  const request = { ...streaming(async () => ({ stream: text('Hello.') })), onEnd };
  assert.equal(await wrapped.streamText(request).text, 'Hello.');
  assert.deepEqual(await events('cus_end'), [ONE]);
});

test('where both listeners are known, the newer one is called, and one call is billed', async () => {
  const usage = { inputTokens: 1, outputTokens: 2 };
  const newer = ({ onFinish, onEnd = onFinish }) => onEnd({ usage });
  const careless = ({ onFinish, onEnd }) => [onFinish({ usage }), onEnd({ usage })];
  for (const [name, streamText] of Object.entries({ newer, careless })) {
    const wrapped = tracker.wrap({ client: { streamText }, customerId: `cus_${name}` });
    const told = [];
    wrapped.streamText({ onFinish: () => told.push('finish'), onEnd: () => told.push('end') });
    assert.deepEqual(told, name === 'newer' ? ['end'] : ['finish', 'end']);
    assert.equal((await events(`cus_${name}`)).length, 1);
  }
});

test('embeddings', async () => {
  const wrapped = tracker.wrap({ client: { ...ai }, customerId: 'cus_embed' });
  const doEmbed = async ({ values }) => ({
    embeddings: values.map(() => [0.5]),
    usage: { tokens: 5 },
    warnings: [],
  });
  const model = new MockEmbeddingModelV3({ doEmbed, maxEmbeddingsPerCall: 2 });
  assert.deepEqual((await wrapped.embed({ model, value: 'a' })).embedding, [0.5]);
  await wrapped.embedMany({ model, values: ['a', 'b', 'c'] });
  const read = (tokens) => ({ inputTokens: tokens, outputTokens: 0, totalTokens: tokens });
  const named = { model: 'mock-model-id', provider: 'mock-provider' };
  const found = await events('cus_embed');
  found.sort((one, other) => one.inputTokens - other.inputTokens);
  assert.deepEqual(found, [
    { ...read(5), ...named },
    { ...read(10), ...named },
  ]);
});

test('the whole module can be wrapped', async () => {
  const wrapped = tracker.wrap({ client: { ...ai }, customerId: 'cus_module' });
  const answer = wrapped.streamText(streaming(async () => ({ stream: text('Hello.') })));
  assert.equal(await answer.text, 'Hello.');
  assert.deepEqual(await events('cus_module'), [ONE]);
});

test('an agent of the wrapped module is billed, whatever its model is', async () => {
  const wrapped = tracker.wrap({ client: { ...ai }, customerId: 'cus_agent' });
  const { prompt, ...settings } = options();
  settings.model = tracker.wrap({ client: settings.model, customerId: 'cus_agent' });
  const agent = new wrapped.ToolLoopAgent(settings);
  assert.ok(agent instanceof ai.ToolLoopAgent);
  assert.equal((await agent.generate({ prompt })).text, '3');
  assert.deepEqual(await events('cus_agent'), [TWO]);
});

test('an agent’s stream is billed step by step, and its listeners hear what they did', async () => {
  const wrapped = tracker.wrap({ client: { ...ai }, customerId: 'cus_agent_stream' });
  const told = [];
  const hear = (name) => () => told.push(name);
  const { prompt, ...settings } = options();
  const agent = new wrapped.ToolLoopAgent({
    ...settings,
    onStepFinish: hear('step of the agent'),
    onFinish: hear('end'),
  });
  const stream = await agent.stream({ prompt, onStepFinish: hear('step of the call') });
  assert.equal(await stream.text, '3');
  assert.deepEqual(await events('cus_agent_stream'), [ONE, ONE]);
  const step = ['step of the agent', 'step of the call'];
  assert.deepEqual(told, [...step, ...step, 'end']);
});

test('the steps of an agent before one that fails are billed', async () => {
  const wrapped = tracker.wrap({ client: { ...ai }, customerId: 'cus_agent_step' });
  const { prompt, ...settings } = options();
  const agent = new wrapped.ToolLoopAgent({ ...settings, model: failing(), maxRetries: 0 });
  await assert.rejects(agent.generate({ prompt }), /planted/);
  assert.deepEqual(await events('cus_agent_step'), [ONE]);
});

test('a model alone is not billed, and a warning says what to wrap', async () => {
  const warned = new Promise((resolve) => process.once('warning', resolve));
  const alone = createLLMTracker({ ingestion, eventName: 'llm' });
  const model = alone.wrap({ client: tooled(), customerId: 'cus_model' });
  assert.equal((await generateText({ ...options(), model })).text, '3');
  assert.match((await warned).message, /wrap what has generateText/);
  const made = new Promise((resolve) => process.once('warning', resolve));
  const other = createLLMTracker({ ingestion, eventName: 'llm' });
  other.wrap({ client: { chat: tooled }, customerId: 'cus_model' }).chat();
  assert.match((await made).message, /wrap what has generateText/);
  assert.deepEqual(await events('cus_model'), []);
});

test('a class of one’s own that extends an agent is as it was', () => {
  const { ToolLoopAgent } = tracker.wrap({ client: { ...ai }, customerId: 'cus_own' });
  class Own extends ToolLoopAgent {
    #name = 'own';
    name() {
      return this.#name;
    }
  }
  assert.equal(new Own(options()).name(), 'own');
});

test('streamObject', async () => {
  const wrapped = tracker.wrap({ client: { streamObject }, customerId: 'cus_object' });
  const answer = wrapped.streamObject({
    ...streaming(async () => ({ stream: text('{"n":', '1}') })),
    output: 'no-schema',
  });
  await drain(answer.partialObjectStream);
  assert.deepEqual(await answer.object, { n: 1 });
  assert.deepEqual(await events('cus_object'), [ONE]);
});

test('what an answer has still to come is not asked for', async () => {
  const touched = [];
  /** As the SDK's answer: to ask for what it comes to is to read it. */
  class StreamTextResult {
    get textStream() {
      return pieces();
    }
  }
  for (const name of ['totalUsage', 'usage', 'response', 'text']) {
    const get = () => {
      touched.push(name);
      return Promise.reject(new Error('planted'));
    };
    Object.defineProperty(StreamTextResult.prototype, name, { get });
  }
  const streaming = (told) => {
    told?.onFinish?.({ totalUsage: { inputTokens: 1, outputTokens: 2 }, usage: {} });
    return new StreamTextResult();
  };
  const client = { streamText: streaming, ask: () => streaming() };
  const wrapped = tracker.wrap({ client, customerId: 'cus_untouched' });
  const warned = new Promise((resolve) => process.once('warning', resolve));
  const warnings = [];
  process.on('warning', ({ message }) => warnings.push(message));
  for (const answer of [wrapped.streamText({}), wrapped.ask(), wrapped.ask()]) {
    assert.ok(answer instanceof StreamTextResult);
  }
  assert.match((await warned).message, /streamText/);
  await turn();
  assert.equal(warnings.length, 1, 'told once');
  assert.deepEqual(touched, []);
  const [{ totalTokens }, ...more] = await events('cus_untouched');
  assert.deepEqual([totalTokens, more], [3, []]);
});

/** A model that calls a tool first, and is not there then. */
function failing() {
  const model = tooled();
  const [generate, stream] = [model.doGenerate, model.doStream];
  let calls = 0;
  const once = (answer) => async (request) => {
    calls += 1;
    assert.ok(calls === 1, 'planted');
    return answer(request);
  };
  return new MockModel({ doGenerate: once(generate), doStream: once(stream) });
}

test('the steps before one that fails are billed', async () => {
  const wrapped = tracker.wrap({ client: { ...ai }, customerId: 'cus_step' });
  const steps = [];
  const request = () => ({
    ...options(),
    model: failing(),
    maxRetries: 0,
    onStepFinish: ({ usage }) => steps.push(usage.totalTokens),
  });
  await assert.rejects(wrapped.generateText(request()), /planted/);
  assert.deepEqual(await events('cus_step'), [ONE]);
  const failed = new Promise((resolve) => {
    const { fullStream } = wrapped.streamText({ ...request(), onError: resolve });
    drain(fullStream);
  });
  assert.match(String((await failed).error), /planted/);
  while ((await events('cus_step')).length < 2) {
    await turn();
  }
  assert.deepEqual(await events('cus_step'), [ONE, ONE]);
  assert.deepEqual(steps, [30, 30]);
});

test('the steps before a stream is aborted are billed', async () => {
  const wrapped = tracker.wrap({ client: { streamText }, customerId: 'cus_abort' });
  const aborting = new AbortController();
  const told = [];
  const { fullStream } = wrapped.streamText({
    ...options(),
    abortSignal: aborting.signal,
    onStepFinish: () => aborting.abort(),
    onAbort: ({ steps }) => told.push(steps.length),
  });
  await drain(fullStream);
  assert.deepEqual(told, [1]);
  assert.deepEqual(await events('cus_abort'), [ONE]);
});

test('an answer that the SDK cannot take is billed', async () => {
  const wrapped = tracker.wrap({ client: { ...ai }, customerId: 'cus_cut' });
  const schema = ai.jsonSchema({ type: 'object' });
  const cut = { content: [{ type: 'text', text: '{"n":' }], ...finish('length'), warnings: [] };
  const model = new MockModel({ doGenerate: async () => cut });
  const refused = { name: 'AI_NoObjectGeneratedError' };
  await assert.rejects(wrapped.generateObject({ model, schema, prompt: 'n?' }), refused);
  assert.deepEqual(await events('cus_cut'), [ONE]);
  const output = ai.Output.object({
    schema: ai.jsonSchema(
      { type: 'object' },
      { validate: () => ({ success: false, error: new Error('planted') }) },
    ),
  });
  await assert.rejects(wrapped.generateText({ ...options(), output }), refused);
  const found = await events('cus_cut');
  found.sort((one, other) => one.totalTokens - other.totalTokens);
  assert.deepEqual(found, [ONE, TWO]);
});

test('messages that carry the usage of old answers are not billed, nor warned of', async (t) => {
  const warnings = [];
  const hear = ({ message }) => warnings.push(message);
  process.on('warning', hear);
  t.after(() => process.off('warning', hear));
  const wrapped = tracker.wrap({ client: { ...ai }, customerId: 'cus_history' });
  const metadata = { usage: { inputTokens: 1000, outputTokens: 500, totalTokens: 1500 } };
  const parts = [{ type: 'text', text: 'Hello.' }];
  const history = [{ id: '1', role: 'assistant', metadata, parts }];
  const messages = await wrapped.validateUIMessages({ messages: history });
  await wrapped.safeValidateUIMessages({ messages: history });
  await wrapped.convertToModelMessages(messages);
  wrapped.pruneMessages({ messages: [{ role: 'assistant', content: 'Hello.', ...metadata }] });
  assert.deepEqual(await events('cus_history'), []);

  const asked = () => wrapped.streamText(streaming(async () => ({ stream: text('Hello.') })));
  const messageMetadata = ({ part }) => part.totalUsage && { usage: part.totalUsage };
  const stream = wrapped.createUIMessageStream({
    execute: ({ writer }) => writer.merge(asked().toUIMessageStream({ messageMetadata })),
  });
  await drain(wrapped.readUIMessageStream({ stream }));
  await turn();
  assert.deepEqual(await events('cus_history'), [ONE]);
  assert.deepEqual(warnings, []);
});

test('whose a model is, the model says', async () => {
  const wrapped = tracker.wrap({ client: { ...ai }, customerId: 'cus_provider' });
  const doGenerate = async () => ({ content: [], ...finish('stop'), warnings: [] });
  const model = new MockModel({ provider: 'anthropic.messages', doGenerate });
  const answer = await wrapped.generateText({ model, prompt: 'Hello?' });
  assert.deepEqual(await events('cus_provider'), [{ ...ONE, provider: 'anthropic' }]);
  await tracker.track(answer, 'cus_provider_unknown');
  assert.equal((await events('cus_provider_unknown'))[0].provider, undefined);
});

test('a stream that fails is the caller’s alone', async (t) => {
  const unhandled = [];
  const hear = (reason) => unhandled.push(reason);
  process.on('unhandledRejection', hear);
  t.after(() => process.off('unhandledRejection', hear));
  const failing = async () => {
    throw new Error('planted');
  };
  for (const client of [{ streamText }, { streamObject }]) {
    const [[name, verb]] = Object.entries(tracker.wrap({ client, customerId: 'cus_failed' }));
    const told = new Promise((resolve) => {
      const { fullStream } = verb({
        ...streaming(failing),
        maxRetries: 0,
        ...(name === 'streamObject' ? { output: 'no-schema' } : {}),
        onError: ({ error }) => resolve(error),
      });
      drain(fullStream);
    });
    assert.match(String(await told), /planted/);
  }
  await turn();
  await turn();
  assert.deepEqual(unhandled, []);
  assert.deepEqual(await events('cus_failed'), []);
});

async function* pieces() {}

async function drain(stream) {
  for await (const _ of stream) {
    // What comes is of no interest.
  }
}
