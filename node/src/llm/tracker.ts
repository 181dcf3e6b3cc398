/** Bills the tokens that a language model took, as its provider counted them. */

import { ValidationError } from '../errors';
import type { Event, Metadata } from '../event';
import { Ingestion, type IngestionOptions } from '../ingestion';
import { Receipt } from '../receipt';
import { warn } from '../warn';
import { Reading } from './usage';
import { wrapped } from './wrap';

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
  GoogleGenAI: 'google',
  GoogleGenerativeAI: 'google',
  Groq: 'groq',
  Mistral: 'mistral',
  OpenAI: 'openai',
};

/** Bills the usage of language models. Make one with `createLLMTracker`, for all customers. */
export class LLMTracker implements AsyncDisposable {
  readonly #ingestion: Ingestion;
  readonly #eventName: string | undefined;

  constructor(options: TrackerOptions) {
    if ('ingestion' in options && options.ingestion instanceof Ingestion) {
      this.#ingestion = options.ingestion;
      this.#eventName = options.eventName;
    } else {
      this.#ingestion = new Ingestion(options as IngestionOptions);
      this.#eventName = undefined;
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
    reading.add(response);
    return this.#bill(reading, customerId, metadata, options);
  };

  #bill(reading: Reading, customerId: string, metadata?: Metadata, options?: TrackOptions) {
    const usage = reading.usage();
    if (usage === undefined) {
      const why = 'response: it tells no token usage';
      return Receipt.refused(new ValidationError(why, { field: 'response' }));
    }
    return this.#ingestion.track({
      customerId,
      metadata: { ...usage, ...metadata },
      eventName: this.#eventName,
      ...options,
    });
  }

  /**
   * A client that is used as the given one is, and bills what it answers: what `create`, `parse`, `stream`,
   * `generate…`, `embedContent` and `sendMessage…` return, at any depth. A stream is handed on piece by piece,
   * and billed at its end by what the provider has told until then. OpenAI's chat tells it only with
   * `stream_options: { include_usage: true }`; a stream without usage is warned of and not billed. Not billed
   * is what goes by `asResponse()`.
   *
   * Nothing that goes wrong with the bill reaches the caller: it is a warning of the process.
   */
  readonly wrap = <T>({ client, customerId, metadata }: WrapOptions<T>): T => {
    const read = (model: unknown) => new Reading(model, providerOf(client));
    const bill = (reading: Reading) => {
      if (reading.usage() === undefined) {
        return false;
      }
      this.#bill(reading, customerId, metadata).catch((error: unknown) => {
        warn('llm', `an answer of a language model is not billed: ${error}`);
      });
      return true;
    };
    return wrapped(client, read, bill);
  };

  /** Whether the billing API answers and takes the key. */
  readonly healthCheck = (): Promise<boolean> => this.#ingestion.healthCheck();

  /** Closes the client, also one that was handed over. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#ingestion.close();
  }
}

/** Makes a tracker of language models' usage. */
export function createLLMTracker(options: TrackerOptions): LLMTracker {
  return new LLMTracker(options);
}

/** The same as the tracker's own `wrap`. */
export function wrapLLMClient<T>(client: T, { tracker, ...rest }: WrapperConfig): T {
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
