// A server that answers as providers of language models do, in the forms that they publish.

import { once } from 'node:events';
import { createServer } from 'node:http';
import { after } from 'node:test';

const CHAT = {
  id: 'chatcmpl-1',
  object: 'chat.completion',
  created: 1,
  model: 'gpt-test',
  choices: [{ index: 0, finish_reason: 'stop', message: { role: 'assistant', content: 'Hello.' } }],
  usage: {
    prompt_tokens: 100,
    completion_tokens: 20,
    total_tokens: 120,
    prompt_tokens_details: { cached_tokens: 64 },
    completion_tokens_details: { reasoning_tokens: 8 },
  },
};
const chunk = (fields) => ({
  id: 'chatcmpl-1',
  object: 'chat.completion.chunk',
  created: 1,
  model: 'gpt-test',
  choices: [],
  ...fields,
});
const CHUNKS = [
  chunk({ choices: [{ index: 0, delta: { role: 'assistant', content: 'Hello.' } }] }),
  chunk({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] }),
];

const RESPONSE = {
  id: 'resp_1',
  object: 'response',
  created_at: 1,
  status: 'completed',
  model: 'gpt-test',
  output: [
    {
      id: 'msg_1',
      type: 'message',
      role: 'assistant',
      status: 'completed',
      content: [{ type: 'output_text', text: 'Hello.', annotations: [] }],
    },
  ],
  usage: {
    input_tokens: 200,
    output_tokens: 30,
    total_tokens: 230,
    input_tokens_details: { cached_tokens: 0 },
    output_tokens_details: { reasoning_tokens: 10 },
  },
};

const MESSAGE = {
  id: 'msg_1',
  type: 'message',
  role: 'assistant',
  model: 'claude-test',
  content: [{ type: 'text', text: 'Hello.' }],
  stop_reason: 'end_turn',
  stop_sequence: null,
  usage: {
    input_tokens: 10,
    cache_creation_input_tokens: 5,
    cache_read_input_tokens: 40,
    output_tokens: 7,
  },
};
const MESSAGE_EVENTS = [
  {
    type: 'message_start',
    message: { ...MESSAGE, content: [], usage: { ...MESSAGE.usage, output_tokens: 1 } },
  },
  { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } },
  { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 'Hello.' } },
  { type: 'content_block_stop', index: 0 },
  {
    type: 'message_delta',
    delta: { stop_reason: 'end_turn', stop_sequence: null },
    usage: { output_tokens: 7 },
  },
  { type: 'message_stop' },
];

const CONTENT = {
  candidates: [{ content: { role: 'model', parts: [{ text: 'Hello.' }] }, finishReason: 'STOP' }],
  modelVersion: 'gemini-test',
  usageMetadata: {
    promptTokenCount: 30,
    candidatesTokenCount: 4,
    thoughtsTokenCount: 6,
    totalTokenCount: 40,
  },
};

const INTERACTION = {
  id: 'interaction_1',
  status: 'completed',
  created: '2026-01-01T00:00:00Z',
  updated: '2026-01-01T00:00:00Z',
  model: 'gemini-test',
  steps: [{ type: 'model_output', content: [{ type: 'text', text: 'Hello.' }] }],
  usage: { total_input_tokens: 500, total_output_tokens: 60, total_tokens: 560 },
};
const INTERACTION_EVENTS = [
  {
    event_type: 'interaction.created',
    interaction: { ...INTERACTION, status: 'in_progress', usage: undefined },
  },
  { event_type: 'interaction.completed', interaction: INTERACTION },
];

/** A round of a conversation in which Gemini's library calls a function by itself. */
function round({ contents }) {
  const called = contents.length > 1;
  const part = called ? { text: 'Rain.' } : { functionCall: { name: 'weather', args: {} } };
  return {
    ...CONTENT,
    responseId: called ? 'second' : 'first',
    candidates: [{ content: { role: 'model', parts: [part] }, finishReason: 'STOP' }],
    usageMetadata: called
      ? { promptTokenCount: 130, candidatesTokenCount: 5, totalTokenCount: 135 }
      : { promptTokenCount: 100, candidatesTokenCount: 10, totalTokenCount: 110 },
  };
}

const LLAMA = {
  model: 'llama-test',
  message: { role: 'assistant', content: 'Hello.' },
  done: true,
  prompt_eval_count: 26,
  eval_count: 9,
};

const CALLED = {
  ...CHAT,
  choices: [
    {
      index: 0,
      finish_reason: 'tool_calls',
      message: {
        role: 'assistant',
        content: null,
        tool_calls: [
          { id: 'call_1', type: 'function', function: { name: 'add', arguments: '{}' } },
        ],
      },
    },
  ],
};
const USED = {
  ...MESSAGE,
  content: [{ type: 'tool_use', id: 'toolu_1', name: 'add', input: {} }],
  stop_reason: 'tool_use',
};
const USED_EVENTS = [
  MESSAGE_EVENTS[0],
  { type: 'content_block_start', index: 0, content_block: { ...USED.content[0] } },
  {
    type: 'content_block_delta',
    index: 0,
    delta: { type: 'input_json_delta', partial_json: '{}' },
  },
  { type: 'content_block_stop', index: 0 },
  {
    type: 'message_delta',
    delta: { stop_reason: 'tool_use', stop_sequence: null },
    usage: { output_tokens: 7 },
  },
  { type: 'message_stop' },
];

/** Whether a model would call its tool now: it has one, and has not been told of its answer. */
function calls({ tools, messages = [] }) {
  return tools?.length > 0 && messages.length < 2;
}

const events = (named, list) =>
  list.map((each) => {
    const name = named ? `event: ${each.type}\n` : '';
    return `${name}data: ${JSON.stringify(each)}\n\n`;
  });

/** What answers a path. */
function answer(path, request) {
  if (path.endsWith('/chat/completions')) {
    const { usage } = CHAT;
    if (calls(request)) {
      const [{ message, ...choice }] = CALLED.choices;
      const delta = { ...message, tool_calls: [{ index: 0, ...message.tool_calls[0] }] };
      const called = [chunk({ choices: [{ ...choice, delta }] }), chunk({ usage })];
      return request.stream ? [...events(false, called), 'data: [DONE]\n\n'] : CALLED;
    }
    if (request.max_completion_tokens === 1) {
      return { ...CHAT, choices: [{ ...CHAT.choices[0], finish_reason: 'length' }] };
    }
    const last = request.stream_options?.include_usage ? [chunk({ usage })] : [];
    return request.stream ? [...events(false, [...CHUNKS, ...last]), 'data: [DONE]\n\n'] : CHAT;
  }
  if (path.endsWith('/responses')) {
    const stream = [
      { type: 'response.created', sequence_number: 0, response: { ...RESPONSE, usage: null } },
      { type: 'response.completed', sequence_number: 1, response: RESPONSE },
    ];
    return request.stream ? events(true, stream) : RESPONSE;
  }
  if (path.endsWith('/embeddings')) {
    const usage = { prompt_tokens: 9, total_tokens: 9 };
    const data = [{ object: 'embedding', index: 0, embedding: [0.5] }];
    return { object: 'list', model: 'embedding-test', data, usage };
  }
  if (path.endsWith('/api/chat')) {
    const begun = { model: LLAMA.model, message: LLAMA.message, done: false };
    return request.stream ? [begun, LLAMA].map((each) => `${JSON.stringify(each)}\n`) : LLAMA;
  }
  if (path.endsWith('/messages') && calls(request)) {
    return request.stream ? events(true, USED_EVENTS) : USED;
  }
  if (path.endsWith('/messages')) {
    return request.stream ? events(true, MESSAGE_EVENTS) : MESSAGE;
  }
  if (path.endsWith('/interactions')) {
    return request.stream ? events(false, INTERACTION_EVENTS) : INTERACTION;
  }
  if (path.endsWith(':streamGenerateContent') && request.tools) {
    return events(false, [round(request)]);
  }
  if (path.endsWith(':streamGenerateContent')) {
    const first = { ...CONTENT, usageMetadata: { promptTokenCount: 30, totalTokenCount: 30 } };
    return events(false, [first, CONTENT]);
  }
  return path.endsWith(':generateContent') ? CONTENT : undefined;
}

/** The metadata of what Google's model answers. */
export const GEMINI = {
  inputTokens: 30,
  outputTokens: 10,
  totalTokens: 40,
  model: 'gemini-test',
  provider: 'google',
  reasoningTokens: 6,
};

/** Starts it. It ends with the tests of this file. */
export async function startModels() {
  const server = createServer(async (req, res) => {
    let body = '';
    for await (const part of req) {
      body += part;
    }
    const said = answer(new URL(req.url, 'http://localhost').pathname, JSON.parse(body || '{}'));
    if (Array.isArray(said)) {
      res.setHeader('content-type', 'text/event-stream').end(said.join(''));
    } else {
      res.statusCode = said ? 200 : 404;
      res.setHeader('content-type', 'application/json').end(JSON.stringify(said ?? {}));
    }
  }).listen(0, '127.0.0.1');
  after(() => server.closeAllConnections() ?? server.close());
  await once(server, 'listening');
  return `http://127.0.0.1:${server.address().port}`;
}
