/** Bills the tokens that a language model took, as its provider counted them. */

import { ConfigurationError, ValidationError } from '../errors';
import type { Event, Metadata } from '../event';
import { Ingestion, type IngestionOptions } from '../ingestion';
import { checkNames } from '../nearest';
import type { Receipt } from '../receipt';
import { type Verb, verb } from '../wait';
import { warn } from '../warn';
import { Reading } from './usage';
import { type Call, wrapped } from './wrap';

/** A client's options; or a client, and the event name of the meter for tokens. */
export type TrackerOptions =
  | IngestionOptions
  | { readonly ingestion: Ingestion; readonly eventName?: string | undefined };

/** What else an event may have. */
export type TrackOptions = Pick<Event, 'eventId' | 'timestamp'>;

/** A client of a language model, and who pays for it. */
export interface WrapOptions<T> {
  /** An `OpenAI`, `Anthropic` or `GoogleGenAI`, or one of their form. It stays as it is. */
  client: T;
  /** The customer who is billed. */
  customerId: string;
  /** Further pairs of every call. One of the tracker's names goes before what the answer says. */
  metadata?: Metadata | undefined;
}

/** The same, with the tracker beside it. */
export interface WrapperConfig extends Omit<WrapOptions<unknown>, 'client'> {
  tracker: LLMTracker;
}

/** The classes of clients whose answers do not tell whose they are. */
const PROVIDERS: Readonly<Record<string, string>> = {
  Anthropic: 'anthropic',
  BaseAnthropic: 'anthropic',
  BedrockRuntimeClient: 'bedrock',
  CohereClient: 'cohere',
  CohereClientV2: 'cohere',
  GoogleGenAI: 'google',
  GoogleGenerativeAI: 'google',
  Groq: 'groq',
  Mistral: 'mistral',
  Ollama: 'ollama',
  OpenAI: 'openai',
  OpenRouter: 'openrouter',
};

/** Bills the usage of language models. Make one with `createLLMTracker`, for all customers. */
export class LLMTracker implements AsyncDisposable {
  readonly #ingestion: Ingestion;
  readonly #eventName: string | undefined;
  readonly #owns: boolean;
  readonly #told = new Set<string>();

  constructor(options: TrackerOptions) {
    // Not `instanceof`: it may be the client of another copy of the package.
    this.#owns =
      typeof (options as { ingestion?: Partial<Ingestion> }).ingestion?.track !== 'function';
    if (this.#owns) {
      this.#ingestion = new Ingestion(options as IngestionOptions);
    } else {
      checkNames(options, ['ingestion', 'eventName']);
      this.#ingestion = (options as { ingestion: Ingestion }).ingestion;
      this.#eventName = options.eventName;
    }
  }

  /**
   * Bills one answer of a provider, or its usage alone. One that tells no usage is refused: the receipt
   * rejects with a `ValidationError`.
   */
  readonly track = (
    response: unknown,
    customerId: string,
    metadata?: Metadata,
    options?: TrackOptions,
  ): Receipt => {
    const reading = new Reading();
    try {
      reading.add(response);
      if (reading.usage() === undefined) {
        reading.addUsage(response);
      }
      return this.#bill(reading, customerId, metadata, options);
    } catch (thrown) {
      return this.#ingestion.refuse(thrown);
    }
  };

  #bill(reading: Reading, customerId: string, metadata?: Metadata, options?: TrackOptions) {
    const usage = reading.usage();
    if (usage === undefined) {
      const why = 'response: it tells no token usage';
      return this.#ingestion.refuse(new ValidationError(why, { field: 'response' }));
    }
    return this.#ingestion.track({
      customerId,
      metadata: { ...usage, ...metadata },
      eventName: this.#eventName,
      ...options,
    });
  }

  /**
   * A client that is used as the given one is, and bills what it answers with a usage, at any depth. Not looked
   * at is what fetches, counts or keeps, by its name: `retrieve`, `get`, `list…`, `poll`, `cancel`, `count…`,
   * `update`, `archive`, what is in `sessions`, and what converts messages of the AI SDK: `…UIMessage…`, `convert…`,
   * `prune…`. A stream is handed on piece by piece, and billed at its end by what the provider has told until then.
   * OpenAI's chat tells it only with `stream_options: { include_usage: true }`; a stream or an answer without usage is
   * not billed, of which the first is warned of. Not billed is what goes by `asResponse()`. Where Gemini's library calls functions
   * by itself, an answer that is no stream tells the usage of the last round alone.
   *
   * A call that fails after its model has answered is billed as far as the usage is known: an answer that `parse`,
   * `generateObject` or `output` refuses, and the steps of `generateText` and `streamText` that were over.
   *
   * Nothing that goes wrong with the bill reaches the caller: it is a warning of the process.
   */
  readonly wrap = <T>(options: WrapOptions<T>): T => {
    checkNames(options, ['client', 'customerId', 'metadata']);
    const { client, customerId, metadata } = options ?? {};
    if ((client ?? undefined) === undefined) {
      throw new ConfigurationError('client: is missing', { field: 'client' });
    }
    const read = (call: Call) => new Reading(call, providerOf(client));
    const bill = (reading: Reading) => {
      if (reading.usage() === undefined) {
        return reading.handedOn;
      }
      this.#bill(reading, customerId, metadata).catch((error: unknown) => {
        warn('llm', `an answer of a language model is not billed: ${error}`);
      });
      return true;
    };
    const tell = (message: string) => {
      if (!this.#told.has(message)) {
        this.#told.add(message);
        warn('llm', `${message} (told once)`);
      }
    };
    return wrapped(client, read, bill, tell);
  };

  /** Whether the billing API answers and takes the key. */
  readonly healthCheck = (): Promise<boolean> => this.#ingestion.healthCheck();

  /** Makes everything accepted so far due and waits until it is settled. */
  readonly flush: Verb = verb(this, (options) => this.#ingestion.flush(options));

  /** Flushes, and closes the client that it has made; one that was handed over stays open. */
  readonly close: Verb = verb(this, (options) =>
    this.#owns ? this.#ingestion.close(options) : this.#ingestion.flush(options),
  );

  /** The same as `close()`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Makes a tracker of language models' usage. */
export function createLLMTracker(options: TrackerOptions): LLMTracker {
  return new LLMTracker(options);
}

/** The same as the tracker's own `wrap`. */
export function wrapLLMClient<T>(client: T, config: WrapperConfig): T {
  checkNames(config, ['tracker', 'customerId', 'metadata']);
  const { tracker, ...rest } = config;
  return tracker.wrap({ client, ...rest });
}

function providerOf(client: unknown): string | undefined {
  let prototype: unknown = client;
  while (typeof prototype === 'object' && prototype !== null) {
    const provider = PROVIDERS[prototype.constructor?.name];
    if (provider !== undefined) {
      return provider;
    }
    prototype = Object.getPrototypeOf(prototype);
  }
  return undefined;
}
