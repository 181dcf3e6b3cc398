// Clients of language models by their own names for asking: the real ones where they are small, else classes of
// the same form. Whatever carries a usage is billed, once, and nothing else is.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GoogleGenerativeAI } from '@google/generative-ai';
import { createLLMTracker } from 'dodo-ingestion';
import { Ollama } from 'ollama';
import { startMeter } from './meter.mjs';
import { GEMINI, startModels } from './models.mjs';

const [meter, url] = [await startMeter(), await startModels()];
const ingestion = meter.connect();
const tracker = createLLMTracker({ ingestion, eventName: 'llm' });

const USAGE = { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 };
const ANSWER = { model: 'm', usage: USAGE };
const TOKENS = { inputTokens: 1, outputTokens: 2, totalTokens: 3 };

async function billed(name, client, call) {
  const customerId = `cus ${name}`;
  const answer = await call(tracker.wrap({ client, customerId }));
  await ingestion.flush();
  return { answer, events: (await meter.events(customerId)).map(({ metadata }) => metadata) };
}

async function drained(stream) {
  for await (const _ of await stream) {
    // What comes is of no interest.
  }
}

async function* pieces(...all) {
  yield* all;
}

/** As Mistral's streams are. */
class EventStream extends ReadableStream {
  constructor(...all) {
    super({
      start(controller) {
        for (const each of all) {
          controller.enqueue(each);
        }
        controller.close();
      },
    });
  }
}

class Mistral {
  chat = new (class Chat {
    #usage = { promptTokens: 1, completionTokens: 2, totalTokens: 3 };
    async complete({ model }) {
      return { model, usage: this.#usage };
    }
    async stream({ model }) {
      return new EventStream({ data: { model } }, { data: { model, usage: this.#usage } });
    }
  })();
}

/** As Cohere's answers come: its response comes beside it, if that is asked for. */
class HttpResponsePromise extends Promise {
  static of(data) {
    const promise = new HttpResponsePromise((resolve) => resolve(data));
    return Object.assign(promise, {
      withRawResponse: async () => ({ data, rawResponse: { status: 200 } }),
    });
  }
}

class CohereClientV2 {
  #usage = {
    billedUnits: { inputTokens: 1, outputTokens: 2 },
    tokens: { inputTokens: 71, outputTokens: 2 },
  };
  chat() {
    const answer = { id: 'c', message: { role: 'assistant' }, usage: this.#usage };
    return HttpResponsePromise.of(answer);
  }
  async chatStream() {
    return pieces(
      { type: 'content-delta' },
      { type: 'message-end', delta: { usage: this.#usage } },
    );
  }
  async embed() {
    return { embeddings: [], meta: { billedUnits: { inputTokens: 3 } } };
  }
}

class Groq {
  chat = {
    completions: new (class Completions {
      create = async () => ANSWER;
    })(),
  };
}

class OpenRouter {
  chat = new (class Chat {
    async send({ model }) {
      return { model, usage: { promptTokens: 1, completionTokens: 2, totalTokens: 3 } };
    }
  })();
}

class ConverseCommand {
  constructor(input) {
    this.input = input;
  }
}

class BedrockRuntimeClient {
  async send({ input: { stream, count } }) {
    const usage = { inputTokens: 1, outputTokens: 2, totalTokens: 3, cacheReadInputTokens: 4 };
    if (count) {
      return { inputTokens: 1 };
    }
    return stream
      ? { $metadata: {}, stream: pieces({ messageStart: {} }, { metadata: { usage } }) }
      : { $metadata: {}, output: {}, usage };
  }
}

class AIMessage {
  response_metadata = { model_name: 'm', model_provider: 'openai' };
  usage_metadata = {
    input_tokens: 1,
    output_tokens: 2,
    total_tokens: 3,
    input_token_details: { cache_read: 4 },
  };
}

/** A piece of LangChain's streams, which goes on from the one before. */
class AIMessageChunk {
  response_metadata = { model_name: 'm', model_provider: 'openai' };
  constructor(input, output, cached) {
    const total = input + output;
    this.usage_metadata = { input_tokens: input, output_tokens: output, total_tokens: total };
    this.usage_metadata.input_token_details = { cache_read: cached };
    this.usage_metadata.output_token_details = { reasoning: output / 2 };
  }
  concat() {}
}
/** What a model tells with its pieces, as LangChain has it: read, written, and cached of what was read. */
const INCREMENTS = {
  gemini: [
    [1000, 100, 800],
    [0, 100, 800],
    [0, 200, 800],
  ],
  anthropic: [
    [1000, 0, 800],
    [0, 400, 0],
  ],
  openai: [[1000, 400, 800]],
};
const SUMMED = {
  inputTokens: 1000,
  outputTokens: 400,
  totalTokens: 1400,
  cachedInputTokens: 800,
  reasoningTokens: 200,
};

class RunnableSequence {
  lc_runnable = true;
  constructor(first, last) {
    Object.assign(this, { first, last });
  }
  async invoke(input) {
    return this.last(await this.first.invoke(input));
  }
}

class ChatModel {
  lc_runnable = true;
  constructor(increments = []) {
    this.increments = increments;
  }
  async stream() {
    const chunks = this.increments.map((each) => new AIMessageChunk(...each));
    return new IterableReadableStream(...chunks);
  }
  pipe(next) {
    return new RunnableSequence(this, next);
  }
  pick(name) {
    return this.pipe((message) => message[name]);
  }
  async invoke() {
    return new AIMessage();
  }
  async batch(inputs) {
    return inputs.map(() => new AIMessage());
  }
  bindTools() {
    return new ChatModel();
  }
  /** What a chain of two models tells. */
  async *streamEvents() {
    for (let run = 0; run < 2; run += 1) {
      yield { event: 'on_chat_model_stream', data: { chunk: new AIMessageChunk(1, 2, 4) } };
      yield { event: 'on_chat_model_end', data: { output: new AIMessageChunk(1, 2, 4) } };
    }
    yield { event: 'on_chain_end', data: { output: new AIMessage() } };
  }
}

/** As Anthropic's answers are in LangChain: the name of the model is beside that of others, or nowhere. */
class ChatAnthropic {
  lc_runnable = true;
  model = 'asked';
  #usage = { input_tokens: 1, output_tokens: 2 };
  async invoke(_, named) {
    const usage_metadata = this.#usage;
    return { usage_metadata, response_metadata: { model_provider: 'anthropic', ...named } };
  }
}

const google = new GoogleGenerativeAI('k').getGenerativeModel({ model: 'asked' }, { baseUrl: url });

/** What the client puts together of a stream has lost the model's name. */
const { model: _, ...AGGREGATED } = GEMINI;

class Gemini {
  getGenerativeModel() {
    return google;
  }
}

const ollama = new Ollama({ host: url });
const chat = { model: 'llama-test', messages: [{ role: 'user', content: 'Hello?' }] };
const LLAMA = {
  inputTokens: 26,
  outputTokens: 9,
  totalTokens: 35,
  model: 'llama-test',
  provider: 'ollama',
};

const model = { model: 'm' };
const of = (provider, more) => [{ ...TOKENS, model: 'm', provider, ...more }];
const bedrock = (input) => new ConverseCommand({ modelId: 'm', ...input });
const CASES = {
  'mistral chat.complete': [new Mistral(), (c) => c.chat.complete(model), of('mistral')],
  'mistral chat.stream': [new Mistral(), (c) => drained(c.chat.stream(model)), of('mistral')],
  'cohere chat': [new CohereClientV2(), (c) => c.chat(model), of('cohere')],
  'cohere chat().withRawResponse': [
    new CohereClientV2(),
    async (c) => {
      const { data, rawResponse } = await c.chat(model).withRawResponse();
      assert.deepEqual([data.id, rawResponse], ['c', { status: 200 }]);
    },
    of('cohere'),
  ],
  'cohere chatStream': [new CohereClientV2(), (c) => drained(c.chatStream(model)), of('cohere')],
  'cohere embed': [
    new CohereClientV2(),
    (c) => c.embed(model),
    of('cohere', { inputTokens: 3, outputTokens: 0 }),
  ],
  'groq chat.completions.create': [new Groq(), (c) => c.chat.completions.create({}), of('groq')],
  'openrouter chat.send': [new OpenRouter(), (c) => c.chat.send(model), of('openrouter')],
  'bedrock send': [
    new BedrockRuntimeClient(),
    (c) => c.send(bedrock()),
    of('bedrock', { cachedInputTokens: 4 }),
  ],
  'bedrock send, piece by piece': [
    new BedrockRuntimeClient(),
    async (c) => drained((await c.send(bedrock({ stream: true }))).stream),
    of('bedrock', { cachedInputTokens: 4 }),
  ],
  'bedrock send, which counts': [
    new BedrockRuntimeClient(),
    (c) => c.send(bedrock({ count: 1 })),
    [],
  ],
  'langchain invoke': [
    new ChatModel(),
    (c) => c.invoke('Hello?'),
    of('openai', { cachedInputTokens: 4 }),
  ],
  'langchain streamEvents': [
    new ChatModel(),
    (c) => drained(c.streamEvents('Hello?')),
    of('openai', {
      inputTokens: 2,
      outputTokens: 4,
      totalTokens: 6,
      cachedInputTokens: 8,
      reasoningTokens: 2,
    }),
  ],
  'langchain invoke, of Anthropic': [
    new ChatAnthropic(),
    (c) => c.invoke('Hello?', { model: 'm' }),
    of('anthropic'),
  ],
  'langchain invoke, of which the model alone knows its name': [
    new ChatAnthropic(),
    (c) => c.invoke('Hello?', {}),
    of('anthropic', { model: 'asked' }),
  ],
  'langchain bindTools().batch': [
    new ChatModel(),
    (c) => c.bindTools([]).batch([1, 2]),
    [...of('openai', { cachedInputTokens: 4 }), ...of('openai', { cachedInputTokens: 4 })],
  ],
  'langchain pipe, of which the answer is text': [
    new ChatModel(),
    async (c) => assert.equal(await c.pipe(() => 'Hello.').invoke('Hello?'), 'Hello.'),
    of('openai', { cachedInputTokens: 4 }),
  ],
  'langchain pipe, of which the answer is the message': [
    new ChatModel(),
    (c) => c.pipe((message) => message).invoke('Hello?'),
    of('openai', { cachedInputTokens: 4 }),
  ],
  'langchain bindTools().pick': [
    new ChatModel(),
    (c) => c.bindTools([]).pick('content').invoke('Hello?'),
    of('openai', { cachedInputTokens: 4 }),
  ],
  ...Object.fromEntries(
    Object.entries(INCREMENTS).map(([name, increments]) => [
      `langchain stream, of increments like those of ${name}`,
      [new ChatModel(increments), (c) => drained(c.stream('Hello?')), of('openai', SUMMED)],
    ]),
  ),
  'langchain invoke, which does not tell whose the model is': [
    { invoke: async () => ({ usage_metadata: { input_tokens: 1, output_tokens: 2 } }) },
    (c) => c.invoke('Hello?'),
    [TOKENS],
  ],
  'a parse with private fields': [
    new (class {
      #answer = ANSWER;
      parse() {
        return this.#answer;
      }
    })(),
    (c) => c.parse(),
    of('openai'),
  ],
  'ollama chat': [ollama, (c) => c.chat(chat), [LLAMA]],
  'ollama chat, piece by piece': [
    ollama,
    (c) => drained(c.chat({ ...chat, stream: true })),
    [LLAMA],
  ],
  'google getGenerativeModel().generateContent': [
    new Gemini(),
    (c) => c.getGenerativeModel().generateContent('Hello?'),
    [GEMINI],
  ],
  'google startChat().sendMessage': [
    new Gemini(),
    (c) => c.getGenerativeModel().startChat().sendMessage('Hello?'),
    [GEMINI],
  ],
  'google generateContentStream, of which the whole is awaited': [
    new Gemini(),
    async (c) => (await c.getGenerativeModel().generateContentStream('Hello?')).response,
    [AGGREGATED],
  ],
  'google generateContentStream, piece by piece': [
    new Gemini(),
    async (c) => drained((await c.getGenerativeModel().generateContentStream('Hello?')).stream),
    [AGGREGATED],
  ],
};
for (const [name, [client, call, expected]] of Object.entries(CASES)) {
  test(name, async () => {
    const { events } = await billed(name, client, call);
    const sum = (each) => ({ ...each, totalTokens: each.inputTokens + each.outputTokens });
    assert.deepEqual(events, name.startsWith('cohere') ? expected.map(sum) : expected);
  });
}

const FETCHING = [
  ...['retrieve', 'get', 'list', 'listModels', 'poll', 'cancel', 'countTokens', 'del'],
  ...['archive', 'modify', 'update'],
];
for (const name of FETCHING) {
  test(`not billed: ${name}`, async () => {
    class Answers {}
    Answers.prototype[name] = async () => ANSWER;
    const { answer, events } = await billed(name, { responses: new Answers() }, (client) =>
      client.responses[name]('resp_1'),
    );
    assert.deepEqual([answer, events], [ANSWER, []]);
  });
}

test('what is kept beside the asking is not looked into', async () => {
  class Kept {
    create = async () => ({ usageMetadata: { totalTokenCount: 7 } });
  }
  for (const name of ['caches', 'sessions']) {
    const { events } = await billed(name, { [name]: new Kept() }, (c) => c[name].create());
    assert.deepEqual(events, []);
  }
});

/** As those of LangChain's streams are: it is its own iterator, by a reader of its own. */
class IterableReadableStream extends EventStream {
  next() {
    this.reader ??= this.getReader();
    return this.reader.read();
  }
  [Symbol.asyncIterator]() {
    return this;
  }
}

const READING = {
  async 'by a reader'(stream) {
    const reader = stream.getReader();
    while (!(await reader.read()).done) {
      // What comes is of no interest.
    }
  },
  async 'by a reader that is cancelled'(stream) {
    const reader = stream.getReader();
    await reader.read();
    await reader.read();
    assert.equal(await reader.cancel(), undefined);
  },
  async 'through another stream, into a response'(stream) {
    const transform = (each, controller) => controller.enqueue(JSON.stringify(each));
    const text = stream.pipeThrough(new TransformStream({ transform }));
    const response = new Response(text.pipeThrough(new TextEncoderStream()));
    assert.match(await response.text(), /^{"data":{"model":"m"}}{/);
  },
  async 'into another stream'(stream) {
    await stream.pipeTo(new WritableStream());
  },
  async 'split in two'(stream) {
    await Promise.all(stream.tee().map(drained));
  },
  'by its values': (stream) => drained(stream.values()),
  'piece by piece': drained,
};
for (const Stream of [EventStream, IterableReadableStream]) {
  for (const [how, read] of Object.entries(READING)) {
    const name = `${Stream.name}, ${how}`;
    test(name, async () => {
      const client = {
        stream: async () => new Stream({ data: { model: 'm' } }, { data: ANSWER }),
      };
      const { events } = await billed(name, client, async (c) => read(await c.stream()));
      assert.deepEqual(events, of('openai'));
    });
  }
}

test('a client that is wrapped again is billed to the last customer alone', async () => {
  class Client {
    create = async () => ANSWER;
  }
  const client = tracker.wrap({ client: new Client(), customerId: 'cus_before' });
  const { events } = await billed('after', client, (c) => c.create());
  assert.equal(events.length, 1);
  assert.deepEqual(await meter.events('cus_before'), []);
});

test('a client can be set up through its wrapper', () => {
  class Client {
    #key = 'old';
    set apiKey(key) {
      this.#key = key;
    }
    get apiKey() {
      return this.#key;
    }
  }
  const client = new Client();
  const wrapped = tracker.wrap({ client, customerId: 'cus_1' });
  wrapped.apiKey = 'new';
  assert.deepEqual([wrapped.apiKey, client.apiKey], ['new', 'new']);
});

test('usage by generic names, and of all steps', async () => {
  await tracker.track({ usage: { input: 1, output: 2, total: 4 } }, 'cus_generic');
  const usage = { inputTokens: 1, outputTokens: 1, totalTokens: 2 };
  await tracker.track({ usage, totalUsage: TOKENS }, 'cus_generic');
  await ingestion.flush();
  const totals = (await meter.events('cus_generic')).map(({ metadata }) => metadata.totalTokens);
  assert.deepEqual(totals.sort(), [3, 4]);
});
