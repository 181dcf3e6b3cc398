/**
 * The tokens of an answer, read from its shape: OpenAI's (chat, responses, embeddings, and the many that
 * speak like it), Anthropic's, Gemini's, Bedrock's and the AI SDK's.
 */

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
] as const;
const DETAILS = {
  prompt_tokens_details: 'cached_tokens',
  input_tokens_details: 'cached_tokens',
  completion_tokens_details: 'reasoning_tokens',
  output_tokens_details: 'reasoning_tokens',
} as const;

type Name = (typeof COUNTS)[number] | (typeof DETAILS)[keyof typeof DETAILS];

/** What has been seen of an answer that comes at once or in pieces. */
export class Reading {
  readonly #counts: Partial<Record<Name, number>> = {};
  #model: string | undefined;
  readonly #provider: string | undefined;
  #anthropic = false;

  constructor(model?: unknown, provider?: string) {
    this.#model = text(model);
    this.#provider = provider;
  }

  /** Takes what a response or an event of a stream tells. A later count replaces an earlier. */
  add(piece: unknown): void {
    // An event of a stream has its response within.
    for (const name of ['message', 'response', 'chunk']) {
      const within = get(piece, name);
      if (typeof within === 'object' && within !== null) {
        this.#add(within, get(within, 'usage') ?? get(within, 'usageMetadata'));
      }
    }
    const usage =
      get(piece, 'usage') ?? get(piece, 'usage_metadata') ?? get(piece, 'usageMetadata');
    // Somebody may hand over the usage alone.
    this.#add(piece, usage ?? piece);
  }

  #add(response: unknown, usage: unknown): void {
    for (const name of ['model', 'modelId', 'model_version', 'modelVersion']) {
      this.#model = text(get(response, name)) ?? this.#model;
    }
    const type = get(response, 'type');
    this.#anthropic ||= type === 'message' || type === 'message_start' || type === 'message_delta';
    for (const name of COUNTS) {
      const count = number(get(usage, name)) ?? number(get(usage, camel(name)));
      if (count !== undefined) {
        this.#counts[name] = count;
      }
    }
    for (const [details, name] of Object.entries(DETAILS)) {
      const count = number(get(get(usage, details), name));
      if (count !== undefined) {
        this.#counts[name] = count;
      }
    }
  }

  /** What has been told so far; `undefined` if nothing was. */
  usage(): TokenUsage | undefined {
    const counts = this.#counts;
    if (counts.prompt_token_count !== undefined || counts.total_token_count !== undefined) {
      return this.#made('google', {
        read: (counts.prompt_token_count ?? 0) + (counts.tool_use_prompt_token_count ?? 0),
        written: (counts.candidates_token_count ?? 0) + (counts.thoughts_token_count ?? 0),
        total: counts.total_token_count,
        cached: counts.cached_content_token_count,
        thought: counts.thoughts_token_count,
      });
    }
    const read = counts.prompt_tokens ?? counts.input_tokens;
    if (read === undefined) {
      return undefined;
    }
    const anthropic = this.#anthropic || counts.cache_creation_input_tokens !== undefined;
    return this.#made(anthropic ? 'anthropic' : 'openai', {
      read,
      written: counts.completion_tokens ?? counts.output_tokens ?? 0,
      total: counts.total_tokens,
      cached: counts.cached_tokens ?? counts.cached_input_tokens ?? counts.cache_read_input_tokens,
      thought: counts.reasoning_tokens,
    });
  }

  #made(provider: string, counts: Counts): TokenUsage {
    const { read, written, total, cached, thought } = counts;
    const created =
      this.#counts.cache_creation_input_tokens ?? this.#counts.cache_write_input_tokens;
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

function get(holder: unknown, name: string): unknown {
  return typeof holder === 'object' && holder !== null
    ? (holder as Record<string, unknown>)[name]
    : undefined;
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

function number(value: unknown): number | undefined {
  return Number.isSafeInteger(value) && (value as number) >= 0 ? (value as number) : undefined;
}

function camel(name: string): string {
  return name.replace(/_[a-z]/g, (pair) => pair.slice(1).toUpperCase());
}
