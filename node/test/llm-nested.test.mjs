// Calls of wrapped methods within others: what an outer one hands on of an inner one is billed once.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { createLLMTracker } from 'dodo-ingestion';
import OpenAI from 'openai';
import { startMeter } from './meter.mjs';
import { startModels } from './models.mjs';

const [meter, baseURL] = [await startMeter(), await startModels()];
const ingestion = meter.connect();
const tracker = createLLMTracker({ ingestion, eventName: 'llm' });

const openai = () => new OpenAI({ apiKey: 'k', baseURL, maxRetries: 0 });
const chat = { model: 'asked', messages: [{ role: 'user', content: 'Hello?' }] };
const streamed = { ...chat, stream: true, stream_options: { include_usage: true } };

/** The total tokens of each event of a customer. */
async function billed(customerId) {
  await ingestion.flush();
  return (await meter.events(customerId)).map(({ metadata }) => metadata.totalTokens);
}

async function* through(stream) {
  yield* await stream;
}

async function drained(stream) {
  for await (const _ of through(stream)) {
    // What comes is of no interest.
  }
}

const REPLACEMENTS = {
  'hands on the promise': (create) => create,
  'hands on the answer': (create) => async (request) => await create(request),
  'makes an answer of its own': (create) => async (request) => {
    const { usage } = await create(request);
    return { text: 'Hello.', usage };
  },
};
const STREAMED = {
  'hands on the promise': (create) => create,
  'hands on the stream': (create) => async (request) => await create(request),
  'makes a stream of its own': (create) => async (request) => through(await create(request)),
  'asks when its stream is read': (create) => (request) => through(create(request)),
};

/** The client of whose method another one takes the place, and that method. */
const FROM = {
  'the wrapped client': (wrapped) => wrapped,
  'the client itself': (_, client) => client,
};

for (const [from, pick] of Object.entries(FROM)) {
  for (const [request, replacements] of [
    [chat, REPLACEMENTS],
    [streamed, STREAMED],
  ]) {
    for (const [what, replace] of Object.entries(replacements)) {
      const customerId = `cus ${from} ${what} ${request.stream}`;
      test(`billed once: a method of ${from} is replaced by one that ${what}${request.stream ? ', piece by piece' : ''}`, async () => {
        const client = openai();
        const wrapped = tracker.wrap({ client, customerId });
        const { completions } = pick(wrapped, client).chat;
        wrapped.chat.completions.create = replace(completions.create.bind(completions));
        const answer = wrapped.chat.completions.create(request);
        await (request.stream ? drained(answer) : answer);
        assert.deepEqual(await billed(customerId), [120]);
      });
    }
  }
}

test('a method that is replaced twice, and asks twice, is billed for what it asked', async () => {
  const wrapped = tracker.wrap({ client: openai(), customerId: 'cus_twice' });
  for (let count = 0; count < 2; count += 1) {
    const { completions } = wrapped.chat;
    const create = completions.create.bind(completions);
    completions.create = async (request) => {
      await create(request);
      return create(request);
    };
  }
  await wrapped.chat.completions.create(chat);
  assert.deepEqual(await billed('cus_twice'), [120, 120, 120, 120]);
});

test('a service that holds a wrapped client, wrapped itself, is billed to the inner customer', async () => {
  class Service {
    #client = tracker.wrap({ client: openai(), customerId: 'cus_inner' });
    async ask() {
      const { choices, usage } = await this.#client.chat.completions.create(chat);
      return { choices, usage };
    }
    async *stream() {
      yield* await this.#client.chat.completions.create(streamed);
    }
  }
  const service = tracker.wrap({ client: new Service(), customerId: 'cus_outer' });
  await service.ask();
  await drained(service.stream());
  assert.deepEqual(await billed('cus_inner'), [120, 120]);
  assert.deepEqual(await billed('cus_outer'), []);
});

test('a client that refuses to be asked for what it has not', async () => {
  const chat = { send: async () => ({ usage: { prompt_tokens: 1, completion_tokens: 2 } }) };
  const get = (holder, name) => {
    assert.ok(typeof name === 'symbol' || name in holder, `there is no ${String(name)}`);
    return holder[name];
  };
  const client = { chat: new Proxy(chat, { get }) };
  await tracker.wrap({ client, customerId: 'cus_strict' }).chat.send();
  assert.deepEqual(await billed('cus_strict'), [3]);
});

test('an answer that is the same object each time is billed each time', async () => {
  const answer = { model: 'm', usage: { prompt_tokens: 1, completion_tokens: 2 } };
  const client = { create: async () => answer };
  const wrapped = tracker.wrap({ client, customerId: 'cus_constant' });
  const { create } = wrapped;
  wrapped.create = () => create();
  await Promise.all([wrapped.create(), wrapped.create()]);
  await wrapped.create();
  assert.deepEqual(await billed('cus_constant'), [3, 3, 3]);
});

test('of calls that each begin the next one, those that are over are not kept', async () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc');
  const models = [];
  const kept = await new Promise((over) => {
    const client = {
      create() {
        setImmediate(models.length < 50 ? ask : async () => over(await count()));
      },
    };
    const wrapped = tracker.wrap({ client, customerId: 'cus_rounds' });
    function ask() {
      const modelId = { name: 'm' };
      models.push(new WeakRef(modelId));
      wrapped.create({ modelId });
    }
    async function count() {
      for (let turns = 0; turns < 20; turns += 1) {
        await turn();
        collect();
      }
      return models.filter((each) => each.deref()).length;
    }
    ask();
  });
  assert.ok(kept <= 1, `${kept} of ${models.length} calls are kept`);
});

test('a model that is asked by the tool of another is billed beside it', async () => {
  const wrapped = tracker.wrap({ client: openai(), customerId: 'cus_tool' });
  const run = async () => {
    await wrapped.chat.completions.create(chat);
    return '3';
  };
  const parameters = { type: 'object', properties: {} };
  const add = { name: 'add', parameters, parse: JSON.parse, function: run };
  const tools = [{ type: 'function', function: add }];
  await wrapped.chat.completions.runTools({ ...chat, tools }).finalContent();
  assert.deepEqual(await billed('cus_tool'), [120, 120, 120]);
});
