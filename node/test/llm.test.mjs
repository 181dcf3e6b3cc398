// The real clients of language models, against a server that answers in their wire formats.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import Anthropic from '@anthropic-ai/sdk';
import { GoogleGenAI } from '@google/genai';
import { createLLMTracker, ValidationError, wrapLLMClient } from 'dodo-ingestion';
import OpenAI from 'openai';
import { startMeter } from './meter.mjs';
import { GEMINI, startModels } from './models.mjs';

const [meter, url] = [await startMeter(), await startModels()];
const ingestion = meter.connect();
const tracker = createLLMTracker({ ingestion, eventName: 'llm' });

const openai = new OpenAI({ apiKey: 'k', baseURL: url, maxRetries: 0 });
const anthropic = new Anthropic({ apiKey: 'k', baseURL: url, maxRetries: 0 });
const google = new GoogleGenAI({ apiKey: 'k', httpOptions: { baseUrl: url } });

const ask = { model: 'asked', messages: [{ role: 'user', content: 'Hello?' }] };
const metered = { ...ask, stream: true, stream_options: { include_usage: true } };
const message = { ...ask, max_tokens: 9 };
const TURN = { role: 'user', content: 'Hello?' };
const content = { model: 'asked', contents: 'Hello?' };

const CHAT = {
  inputTokens: 100,
  outputTokens: 20,
  totalTokens: 120,
  model: 'gpt-test',
  provider: 'openai',
  cachedInputTokens: 64,
  reasoningTokens: 8,
};
const RESPONSE = {
  inputTokens: 200,
  outputTokens: 30,
  totalTokens: 230,
  model: 'gpt-test',
  provider: 'openai',
  reasoningTokens: 10,
};
const EMBEDDING = {
  inputTokens: 9,
  outputTokens: 0,
  totalTokens: 9,
  model: 'embedding-test',
  provider: 'openai',
};
const MESSAGE = {
  inputTokens: 10,
  outputTokens: 7,
  totalTokens: 17,
  model: 'claude-test',
  provider: 'anthropic',
  cachedInputTokens: 40,
  cacheCreationInputTokens: 5,
};

const INTERACTION = {
  inputTokens: 500,
  outputTokens: 60,
  totalTokens: 560,
  model: 'gemini-test',
  provider: 'google',
};
const BOTH_ROUNDS = { ...INTERACTION, inputTokens: 230, outputTokens: 15, totalTokens: 245 };

const schema = { type: 'object', properties: {} };
const ADD = {
  type: 'function',
  function: { name: 'add', parameters: schema, parse: JSON.parse, function: () => '3' },
};
const WEATHER = {
  tool: async () => ({ functionDeclarations: [{ name: 'weather' }] }),
  callTool: async () => [{ functionResponse: { name: 'weather', response: { is: 'rain' } } }],
};
const RUN = { name: 'add', input_schema: schema, run: () => '3' };

async function drained(stream) {
  for await (const _ of await stream) {
    // What comes is of no interest.
  }
}

const CASES = {
  'openai chat': [openai, (c) => c.chat.completions.create(ask), CHAT],
  'openai chat, parsed': [openai, (c) => c.chat.completions.parse(ask), CHAT],
  'openai chat, with its response': [
    openai,
    async (c) => {
      const { data, response } = await c.chat.completions.create(ask).withResponse();
      assert.deepEqual([data.id, response.status], ['chatcmpl-1', 200]);
    },
    CHAT,
  ],
  'openai chat, with other options': [
    openai,
    (c) => c.withOptions({ timeout: 9_000 }).chat.completions.create(ask),
    CHAT,
  ],
  'openai chat, piece by piece': [openai, (c) => drained(c.chat.completions.create(metered)), CHAT],
  'openai chat, a stream split in two': [
    openai,
    async (c) => {
      const [one, other] = (await c.chat.completions.create(metered)).tee();
      await Promise.all([drained(one), drained(other)]);
    },
    CHAT,
  ],
  'openai chat, put together': [
    openai,
    (c) => c.chat.completions.stream(metered).finalChatCompletion(),
    CHAT,
  ],
  'openai responses': [openai, (c) => c.responses.create({ input: 'Hello?' }), RESPONSE],
  'openai responses, piece by piece': [
    openai,
    (c) => drained(c.responses.create({ input: 'Hello?', stream: true })),
    RESPONSE,
  ],
  'openai embeddings': [
    openai,
    (c) => c.embeddings.create({ model: 'asked', input: 'x', encoding_format: 'float' }),
    EMBEDDING,
  ],
  'anthropic messages': [anthropic, (c) => c.messages.create(message), MESSAGE],
  'anthropic messages, piece by piece': [
    anthropic,
    (c) => drained(c.messages.create({ ...message, stream: true })),
    MESSAGE,
  ],
  'anthropic messages, put together': [
    anthropic,
    (c) => c.messages.stream(message).finalMessage(),
    MESSAGE,
  ],
  'openai chat, which runs tools': [
    openai,
    (c) => c.chat.completions.runTools({ ...ask, tools: [ADD] }).finalContent(),
    [CHAT, CHAT],
  ],
  'openai chat, which runs tools, piece by piece': [
    openai,
    (c) => c.chat.completions.runTools({ ...metered, tools: [ADD] }).finalContent(),
    [CHAT, CHAT],
  ],
  'anthropic messages, by a runner of tools': [
    anthropic,
    async (c) => {
      const { stop_reason: reason } = await c.beta.messages.toolRunner({
        ...message,
        tools: [RUN],
      });
      assert.equal(reason, 'end_turn');
    },
    [MESSAGE, MESSAGE],
  ],
  'anthropic messages, by a runner of tools, piece by piece': [
    anthropic,
    async (c) => {
      const runner = c.beta.messages.toolRunner({ ...message, tools: [RUN], stream: true });
      for await (const stream of runner) {
        await drained(stream);
      }
    },
    [MESSAGE, MESSAGE],
  ],
  'anthropic, a thread': [
    anthropic,
    async (c) => {
      const thread = c.beta.messages.thread({ model: 'asked', max_tokens: 9 });
      assert.equal((await thread.send(TURN)).model, 'claude-test');
      await thread.fork().send(TURN);
    },
    [MESSAGE, MESSAGE],
  ],
  'anthropic, a thread, piece by piece and parsed': [
    anthropic,
    async (c) => {
      const thread = c.beta.messages.thread({ model: 'asked', max_tokens: 9 });
      await thread.stream(TURN).finalMessage();
      await thread.parse(TURN);
    },
    [MESSAGE, MESSAGE],
  ],
  'anthropic, a thread, by a runner of tools': [
    anthropic,
    async (c) => {
      const thread = c.beta.messages.thread({ ...message, tools: [RUN] });
      await thread.toolRunner();
    },
    [MESSAGE, MESSAGE],
  ],
  google: [google, (c) => c.models.generateContent(content), GEMINI],
  'google, piece by piece': [
    google,
    (c) => drained(c.models.generateContentStream(content)),
    GEMINI,
  ],
  'google, an interaction': [
    google,
    (c) => c.interactions.create({ model: 'asked', input: 'Hello?' }),
    INTERACTION,
  ],
  'google, an interaction, piece by piece': [
    google,
    (c) => drained(c.interactions.create({ model: 'asked', input: 'Hello?', stream: true })),
    INTERACTION,
  ],
  'google, which calls a function, piece by piece': [
    google,
    (c) => drained(c.models.generateContentStream({ ...content, config: { tools: [WEATHER] } })),
    BOTH_ROUNDS,
  ],
  'google, a conversation': [
    google,
    (c) => c.chats.create({ model: 'asked' }).sendMessage({ message: 'Hello?' }),
    GEMINI,
  ],
};

for (const [name, [client, call, expected]] of Object.entries(CASES)) {
  test(name, async () => {
    const customerId = `cus ${name}`;
    await call(tracker.wrap({ client, customerId, metadata: { feature: 'chat' } }));
    await ingestion.flush();
    const events = await meter.events(customerId);
    assert.deepEqual(
      events.map(({ event_name, metadata }) => [event_name, metadata]),
      [expected].flat().map((each) => ['llm', { ...each, feature: 'chat' }]),
    );
  });
}

test('an answer is handed on as it is, and a stream that is left early is billed so far', async () => {
  const customerId = 'cus_early';
  const wrapped = wrapLLMClient(anthropic, { tracker, customerId });
  assert.ok(wrapped instanceof Anthropic);
  for await (const { type } of await wrapped.messages.create({ ...message, stream: true })) {
    assert.equal(type, 'message_start');
    break;
  }
  await ingestion.flush();
  const [{ metadata }] = await meter.events(customerId);
  assert.deepEqual([metadata.inputTokens, metadata.outputTokens], [10, 1]);
});

test('a client is wrapped with options that there are', () => {
  for (const [field, options] of [
    ['customerid', { client: openai, customerid: 'cus_1' }],
    ['client', { customerId: 'cus_1' }],
    ['client', undefined],
  ]) {
    assert.throws(() => tracker.wrap(options), { name: 'ConfigurationError', field });
  }
  assert.throws(() => wrapLLMClient(openai, { traker: tracker, customerId: 'cus_1' }), {
    message: 'traker: is no option; the nearest is tracker',
  });
});

test('what goes wrong with the bill is a warning, and with the call the caller’s', async () => {
  const wrapped = tracker.wrap({ client: openai, customerId: '' });
  const warned = new Promise((resolve) => process.once('warning', resolve));
  assert.equal((await wrapped.chat.completions.create(ask)).model, 'gpt-test');
  assert.match((await warned).message, /customerId/);
  await assert.rejects(
    wrapped.completions.create({ model: 'm', prompt: '' }),
    OpenAI.NotFoundError,
  );
});

test('an answer that cannot be parsed is billed', async () => {
  const customerId = 'cus_parse';
  const wrapped = tracker.wrap({ client: openai, customerId });
  const json = { type: 'json_schema', json_schema: { name: 'n', schema } };
  const structured = { ...ask, response_format: json };
  await assert.rejects(wrapped.chat.completions.parse(structured), SyntaxError);
  await assert.rejects(
    wrapped.chat.completions.parse({ ...structured, max_completion_tokens: 1 }),
    OpenAI.LengthFinishReasonError,
  );
  const format = { type: 'json_schema', name: 'n', schema };
  await assert.rejects(
    wrapped.responses.parse({ model: 'asked', input: 'Hello?', text: { format } }),
    SyntaxError,
  );
  const { messages } = tracker.wrap({ client: anthropic, customerId });
  await assert.rejects(
    messages.parse({ ...message, output_config: { format: { type: 'json_schema', schema } } }),
    Anthropic.AnthropicError,
  );
  await ingestion.flush();
  const billed = (await meter.events(customerId)).map(({ metadata }) => metadata);
  billed.sort((one, other) => one.totalTokens - other.totalTokens);
  assert.deepEqual(billed, [MESSAGE, CHAT, CHAT, RESPONSE]);
});

test('a stream without usage is warned of, once', async (t) => {
  const warnings = [];
  const hear = ({ message }) => warnings.push(message);
  process.on('warning', hear);
  t.after(() => process.off('warning', hear));
  for (let count = 0; count < 2; count += 1) {
    const wrapped = tracker.wrap({ client: openai, customerId: 'cus_none' });
    await drained(wrapped.chat.completions.create({ ...ask, stream: true }));
    await turn();
  }
  assert.equal(warnings.length, 1);
  assert.match(warnings[0], /include_usage/);
});

test('an answer without usage is warned of, once', async (t) => {
  const warnings = [];
  const hear = ({ message }) => warnings.push(message);
  process.on('warning', hear);
  t.after(() => process.off('warning', hear));
  const without = async (...request) => {
    const response = await fetch(...request);
    const { usage, ...answer } = await response.json();
    assert.ok(usage);
    return Response.json(answer);
  };
  const client = new OpenAI({ apiKey: 'k', baseURL: url, fetch: without });
  const wrapped = createLLMTracker({ ingestion }).wrap({ client, customerId: 'cus_none' });
  for (let count = 0; count < 2; count += 1) {
    const { choices } = await wrapped.chat.completions.create(ask);
    assert.equal(choices.length, 1);
    await wrapped.responses.create({ model: 'asked', input: 'Hello?' });
    await wrapped.embeddings.create({ model: 'asked', input: 'Hello?' });
    await turn();
  }
  assert.equal(warnings.length, 1);
  assert.match(warnings[0], /an answer of a language model has no token usage/);
});

test('an answer that somebody has already, and verbs taken out of the tracker', async () => {
  const { healthCheck, track } = createLLMTracker({
    apiKey: 'dodo_test_node',
    environment: 'test_mode',
    eventName: 'tokens',
    baseUrl: meter.url,
    durability: 'memory',
  });
  const usage = { inputTokens: 1, outputTokens: 2, totalTokens: 3, cachedInputTokens: 1 };
  const receipt = track({ usage, response: { modelId: 'm' } }, 'cus_track', { model: 'mine' });
  await receipt.delivered({ timeout: 120_000 });
  const [{ event_name, metadata }] = await meter.events('cus_track');
  assert.deepEqual([event_name, metadata], ['tokens', { ...usage, model: 'mine' }]);
  await assert.rejects(track({ text: 'Hello.' }, 'cus_track'), (error) => {
    assert.ok(error instanceof ValidationError);
    assert.equal(error.field, 'response');
    return true;
  });
  assert.equal(await healthCheck(), true);
});
