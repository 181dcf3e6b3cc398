/**
 * The tokens of an answer, read from its shape: OpenAI's (chat, responses, embeddings, and the many that
 * speak like it), Anthropic's, Gemini's, Bedrock's, Cohere's, Ollama's, LangChain's and the AI SDK's.
 */

import { camelOf } from '../names';

const LONGEST_MODEL = 500;

/** The tokens of one answer. */
export interface TokenUsage {
  /** What the model read: of OpenAI and Gemini with what was cached, of Anthropic without. */
  readonly inputTokens: number;
  /** What it wrote, thinking included. */
  readonly outputTokens: number;
  /** The provider's total, else the sum of the two. */
  readonly totalTokens: number;
  /** As in the answer, else as in the request. */
  readonly model?: string | undefined;
  readonly provider?: string | undefined;
  readonly cachedInputTokens?: number | undefined;
  readonly cacheCreationInputTokens?: number | undefined;
  readonly reasoningTokens?: number | undefined;
}

const COUNTS = [
  'prompt_tokens',
  'completion_tokens',
  'total_tokens',
  'input_tokens',
  'output_tokens',
  'cache_read_input_tokens',
  'cache_creation_input_tokens',
  'cache_write_input_tokens',
  'prompt_token_count',
  'candidates_token_count',
  'thoughts_token_count',
  'tool_use_prompt_token_count',
  'cached_content_token_count',
  'total_token_count',
  'cached_input_tokens',
  'reasoning_tokens',
  'prompt_eval_count',
  'eval_count',
] as const;
/** The names of Gemini's interactions, and those that its other answers have for the same. */
const INTERACTIONS = [
  ['total_input_tokens', 'prompt_token_count'],
  ['total_output_tokens', 'candidates_token_count'],
  ['total_thought_tokens', 'thoughts_token_count'],
  ['total_tool_use_tokens', 'tool_use_prompt_token_count'],
  ['total_cached_tokens', 'cached_content_token_count'],
] as const;
/** Names that mean tokens only where it says that they are usage. */
const GENERIC = ['input', 'output', 'total'] as const;
/** A count within another object of the usage, and the count that it is. */
const DETAILS = [
  ['prompt_tokens_details', 'cached_tokens', 'cached_tokens'],
  ['input_tokens_details', 'cached_tokens', 'cached_tokens'],
  ['prompt_tokens_details', 'cache_write_tokens', 'cache_write_input_tokens'],
  ['input_tokens_details', 'cache_write_tokens', 'cache_write_input_tokens'],
  ['completion_tokens_details', 'reasoning_tokens', 'reasoning_tokens'],
  ['output_tokens_details', 'reasoning_tokens', 'reasoning_tokens'],
  ['output_tokens_details', 'thinking_tokens', 'reasoning_tokens'],
  ['input_token_details', 'cache_read_tokens', 'cached_tokens'],
  ['input_token_details', 'cache_write_tokens', 'cache_write_input_tokens'],
  ['output_token_details', 'reasoning_tokens', 'reasoning_tokens'],
  ['input_token_details', 'cache_read', 'cached_tokens'],
  ['input_token_details', 'cache_creation', 'cache_write_input_tokens'],
  ['output_token_details', 'reasoning', 'reasoning_tokens'],
] as const;
/** Those of Anthropic's compaction, which are beside those of its answer. */
const COMPACTION = [
  'input_tokens',
  'output_tokens',
  'cache_read_input_tokens',
  'cache_creation_input_tokens',
] as const;
/** Where a piece of an answer, or an event of a stream, has its response or its usage. */
const WITHIN = [
  'message',
  'response',
  'chunk',
  'data',
  'delta',
  'metadata',
  'interaction',
  'x_groq',
];
/** As OpenAI spells them, and those that speak like it. */
const OPENAI = ['prompt_tokens', 'completion_tokens', 'input_tokens', 'output_tokens'];

type Name = (typeof COUNTS)[number] | (typeof GENERIC)[number] | 'cached_tokens';
type Counted = Partial<Record<Name, number>>;

/** Of what is summed the counts that some models repeat with every piece, though they were read once. */
const REPEATED: ReadonlySet<string> = new Set<Name>(['cached_tokens', 'cache_write_input_tokens']);

/** Who asked. */
interface Asking {
  readonly model: unknown;
  readonly provider: unknown;
  /** Takes a usage for its own. False where it is one that is only handed on. */
  claims(usage: object): boolean;
}

/** What has been seen of an answer that comes at once or in pieces. */
export class Reading {
  #counts: Counted = {};
  /** Those of Gemini's responses before, of which a stream has more than one if it calls functions by itself. */
  #earlier: Counted = {};
  #compacted: Counted = {};
  #responseId: string | undefined;
  #model: string | undefined;
  #provider: string | undefined;
  readonly #asking: Asking | undefined;
  #anthropic = false;
  #openai = false;
  #handedOn = false;
  /** What has been summed: a piece may be told of twice. */
  readonly #summed = new WeakSet<object>();

  constructor(asking?: Asking, provider?: string) {
    this.#asking = asking;
    this.#model = text(asking?.model);
    this.#provider = provider ?? text(asking?.provider);
  }

  /** Whether a usage was left to the call that it comes from. */
  get handedOn(): boolean {
    return this.#handedOn;
  }

  /**
   * Takes what a response or an event of a stream tells. Of counts that grow the last one counts; LangChain's
   * are summed, and so are those of Gemini's responses.
   */
  add(piece: unknown): void {
    // LangChain's events tell of each answer when it is whole, of which a chain may have more than one.
    if (get(piece, 'event') === 'on_chat_model_end') {
      this.next();
      this.#add(get(get(piece, 'data'), 'output'));
      return;
    }
    for (const name of WITHIN) {
      this.#add(get(piece, name));
    }
    this.#add(piece);
    // A run of OpenAI's that waits for outputs tells of all its steps again when it has them.
    if (get(piece, 'event') === 'thread.run.requires_action') {
      this.#counts = {};
      this.#handedOn = true;
    }
  }

  /** Whether it is a completion, a response, a message of Anthropic's, embeddings, or one of Gemini's. */
  isAnswer(given: object): boolean {
    if (get(given, 'type') === 'message' && get(given, 'role') === 'assistant') {
      return true;
    }
    const [first] = listOf(given, 'data');
    const written = ['choices', 'output', 'candidates'].some(
      (name) => listOf(given, name).length > 0,
    );
    return written || (get(first, 'embedding') ?? undefined) !== undefined;
  }

  /** Takes a usage by itself. */
  addUsage(usage: unknown): void {
    this.#openai ||= OPENAI.some((name) => get(usage, name) !== undefined);
    this.#take(usage);
  }

  /** Begins another answer, whose usage is added. */
  next(): void {
    this.#earlier = this.#all();
    this.#counts = {};
    this.#compacted = {};
  }

  #take(usage: unknown): void {
    if (!this.#claims(usage)) {
      return;
    }
    for (const counts of [usage, pick(usage, 'billed_units') ?? get(usage, 'tokens')]) {
      this.#count(counts, COUNTS);
    }
    for (const [name, count] of INTERACTIONS) {
      this.#set(count, pick(usage, name));
    }
    this.#count(usage, GENERIC);
    // Of the AI SDK's embeddings.
    this.#set('input_tokens', get(usage, 'tokens'));
    for (const [details, name, count] of DETAILS) {
      this.#set(count, pick(pick(usage, details), name));
    }
    const iterations = get(usage, 'iterations');
    if (Array.isArray(iterations)) {
      this.#compacted = compacted(iterations);
    }
  }

  #add(response: unknown): void {
    if (typeof response !== 'object' || response === null) {
      return;
    }
    for (const name of ['model', 'modelId', 'model_version', 'modelVersion']) {
      this.#model = text(get(response, name)) ?? this.#model;
    }
    const metadata = get(response, 'response_metadata');
    this.#model = text(get(metadata, 'model_name') ?? get(metadata, 'model')) ?? this.#model;
    this.#provider = text(get(metadata, 'model_provider')) ?? this.#provider;
    this.#begin(text(pick(response, 'response_id')));
    const type = get(response, 'type');
    this.#anthropic ||= type === 'message' || type === 'message_start' || type === 'message_delta';
    // The AI SDK's usage is that of the last step. To look at it once more may be what makes it begin.
    const usage = get(response, 'totalUsage') ?? get(response, 'usage');
    const increment = incrementOf(response);
    if (increment !== undefined) {
      this.#sum(increment);
    } else if ((usage ?? undefined) !== undefined) {
      this.addUsage(usage);
    } else {
      // LangChain's is spelt like OpenAI's, whatever the model.
      this.#take(pick(response, 'usage_metadata') ?? get(response, 'meta'));
    }
    // Ollama's are beside the rest.
    if (this.#claims(response)) {
      this.#count(response, ['prompt_eval_count', 'eval_count']);
    }
  }

  #begin(responseId: string | undefined): void {
    if (responseId === undefined || responseId === this.#responseId) {
      return;
    }
    if (this.#responseId !== undefined) {
      this.next();
    }
    this.#responseId = responseId;
  }

  #all(): Counted {
    const all = { ...this.#earlier };
    for (const [name, count] of [...entries(this.#counts), ...entries(this.#compacted)]) {
      all[name] = (all[name] ?? 0) + count;
    }
    return all;
  }

  #claims(usage: unknown): boolean {
    const isObject = typeof usage === 'object' && usage !== null;
    const claimed = !isObject || this.#asking?.claims(usage) !== false;
    this.#handedOn ||= !claimed;
    return claimed;
  }

  #sum(increment: object): void {
    if (this.#summed.has(increment) || !this.#claims(increment)) {
      return;
    }
    this.#summed.add(increment);
    const piece = new Reading();
    piece.addUsage(increment);
    for (const [name, count] of entries(piece.#counts)) {
      this.#set(name, REPEATED.has(name) ? count : (this.#counts[name] ?? 0) + count);
    }
  }

  #count(holder: unknown, names: readonly Name[]): void {
    for (const name of names) {
      this.#set(name, pick(holder, name));
    }
  }

  #set(name: Name, value: unknown): void {
    if (Number.isSafeInteger(value) && (value as number) >= (this.#counts[name] ?? 0)) {
      this.#counts[name] = value as number;
    }
  }

  /** What has been told so far; `undefined` if nothing was. */
  usage(): TokenUsage | undefined {
    const counts = this.#all();
    if (counts.prompt_token_count !== undefined || counts.total_token_count !== undefined) {
      return this.#made('google', counts, {
        read: (counts.prompt_token_count ?? 0) + (counts.tool_use_prompt_token_count ?? 0),
        written: (counts.candidates_token_count ?? 0) + (counts.thoughts_token_count ?? 0),
        total: counts.total_token_count ?? counts.total_tokens,
        cached: counts.cached_content_token_count,
        thought: counts.thoughts_token_count,
      });
    }
    const read =
      counts.prompt_tokens ?? counts.input_tokens ?? counts.prompt_eval_count ?? counts.input;
    const written =
      counts.completion_tokens ?? counts.output_tokens ?? counts.eval_count ?? counts.output;
    if (read === undefined && written === undefined) {
      return undefined;
    }
    const anthropic = this.#anthropic || counts.cache_creation_input_tokens !== undefined;
    const speaker = this.#openai ? 'openai' : undefined;
    return this.#made(anthropic ? 'anthropic' : speaker, counts, {
      read: read ?? 0,
      written: written ?? 0,
      total: counts.total_tokens ?? counts.total,
      cached: counts.cached_tokens ?? counts.cached_input_tokens ?? counts.cache_read_input_tokens,
      thought: counts.reasoning_tokens,
    });
  }

  #made(provider: string | undefined, counted: Counted, counts: Counts): TokenUsage {
    const { read, written, total, cached, thought } = counts;
    const created = counted.cache_creation_input_tokens ?? counted.cache_write_input_tokens;
    return {
      inputTokens: read,
      outputTokens: written,
      totalTokens: total ?? read + written,
      model: this.#model?.slice(0, LONGEST_MODEL),
      provider: this.#provider ?? provider,
      cachedInputTokens: cached || undefined,
      cacheCreationInputTokens: created || undefined,
      reasoningTokens: thought || undefined,
    };
  }
}

interface Counts {
  read: number;
  written: number;
  total: number | undefined;
  cached: number | undefined;
  thought: number | undefined;
}

/** What Anthropic's compaction took, which the counts beside it leave out. */
function compacted(iterations: readonly unknown[]): Counted {
  const counts: Counted = {};
  for (const each of iterations) {
    for (const name of get(each, 'type') === 'compaction' ? COMPACTION : []) {
      const count = get(each, name);
      if (Number.isSafeInteger(count) && (count as number) > 0) {
        counts[name] = (counts[name] ?? 0) + (count as number);
      }
    }
  }
  return counts;
}

function entries(counts: Counted): [Name, number][] {
  return Object.entries(counts) as [Name, number][];
}

function get(holder: unknown, name: string): unknown {
  return typeof holder === 'object' && holder !== null
    ? (holder as Record<string, unknown>)[name]
    : undefined;
}

function listOf(holder: unknown, name: string): unknown[] {
  const list = get(holder, name);
  return Array.isArray(list) ? list : [];
}

/** The usage of a piece of LangChain's, which `concat` adds to that of the pieces before. */
function incrementOf(piece: object): object | undefined {
  const usage = get(piece, 'usage_metadata');
  const sums = typeof get(piece, 'concat') === 'function';
  return sums && typeof usage === 'object' && usage !== null ? usage : undefined;
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

/** A property in snake case or in camel case. */
function pick(holder: unknown, name: string): unknown {
  return get(holder, name) ?? get(holder, camelOf(name));
}
