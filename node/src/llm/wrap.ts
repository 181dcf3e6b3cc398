/**
 * Clients of language models that have their answers looked at.
 *
 * A proxy stands in front of the client, and of each part of it that is reached through it. It hands on
 * everything, and looks at what the methods that ask a model return. This module knows no provider and no
 * shape of usage: `read` makes a reading of an answer, `bill` bills one.
 */

import { warn } from '../warn';

/** What has been seen of an answer. */
export interface Reading {
  /** Takes what a piece of it tells. */
  add(piece: unknown): void;
}

/** Takes the model that was asked. */
export type Read<R> = (model: unknown) => R;
/** Says whether there was usage. */
export type Bill<R> = (reading: R) => boolean;

const ASKING: ReadonlySet<PropertyKey> = new Set([
  'create',
  'embedContent',
  'generate',
  'generateContent',
  'generateContentStream',
  'generateObject',
  'generateText',
  'parse',
  'sendMessage',
  'sendMessageStream',
  'stream',
]);
const COPYING: ReadonlySet<PropertyKey> = new Set(['withOptions']);
/** What the helpers of OpenAI's and Anthropic's streams tell of. */
const PIECES = ['chunk', 'event', 'streamEvent'];

type Any = Record<PropertyKey, unknown>;
type Method = (...args: unknown[]) => unknown;

/** Wraps a client. */
export function wrapped<T, R extends Reading>(client: T, read: Read<R>, bill: Bill<R>): T {
  return new Meter(read, bill).client(client);
}

class Meter<R extends Reading> {
  readonly #read: Read<R>;
  readonly #bill: Bill<R>;
  readonly #parts = new WeakMap<object, unknown>();

  constructor(read: Read<R>, bill: Bill<R>) {
    this.#read = read;
    this.#bill = bill;
  }

  /** A client, or a part of one. */
  client<T>(target: T): T {
    if ((typeof target !== 'object' && typeof target !== 'function') || target === null) {
      return target;
    }
    const known = this.#parts.get(target);
    if (known !== undefined) {
      return known as T;
    }
    // Of an object of somebody's own making every method may ask; those of a library's classes have names.
    const plain = isPlain(target);
    const proxy: unknown = new Proxy(target as Any, {
      get: (holder, name) => {
        const value = Reflect.get(holder, name);
        if (typeof name === 'symbol' || name.startsWith('_') || fixed(holder, name)) {
          return value;
        }
        if (typeof value === 'function') {
          return name === 'constructor' ? value : this.#method(holder, name, value, plain);
        }
        return Array.isArray(value) ? value : this.client(value);
      },
      // A client may be a function itself.
      apply: (holder, self, args) =>
        this.#answered(Reflect.apply(holder as unknown as Method, self, args), modelOf(args)),
    });
    this.#parts.set(target, proxy);
    return proxy as T;
  }

  /** A method is called on what it belongs to, which may have private fields. */
  #method(holder: Any, name: string, method: unknown, plain: boolean): unknown {
    return new Proxy(method as Method, {
      apply: (target, _, args) => {
        const answer = Reflect.apply(target, holder, args);
        if (COPYING.has(name)) {
          return this.client(answer);
        }
        return plain || ASKING.has(name) ? this.#answered(answer, modelOf(args)) : answer;
      },
    });
  }

  #answered(answer: unknown, model: unknown): unknown {
    if (typeof answer !== 'object' || answer === null) {
      return answer;
    }
    if (typeof (answer as PromiseLike<unknown>).then === 'function') {
      return this.#promised(answer as Promise<unknown>, model);
    }
    const holder = answer as Any;
    if (Symbol.asyncIterator in holder) {
      this.#safely(() => this.#watch(holder, model));
      return answer;
    }
    const reading = this.#read(model);
    if (this.#safely(() => reading.add(answer)) && this.#billed(reading)) {
      return answer;
    }
    const leads = !isPlain(answer) && [...ASKING].some((name) => name in holder);
    return leads ? this.client(answer) : answer;
  }

  /** A promise, whose class may have methods of its own. */
  #promised(promise: Promise<unknown>, model: unknown): unknown {
    let looked: Promise<unknown> | undefined;
    // Only when it is asked for: to ask is what makes OpenAI's read the body.
    const look = () => {
      looked ??= promise.then((answer) => this.#answered(answer, model));
      return looked;
    };
    return new Proxy(promise, {
      get: (target, name) => {
        const value: unknown = Reflect.get(target, name);
        if (name === 'then' || name === 'catch' || name === 'finally') {
          return (...args: never[]) => (look()[name] as Method)(...args);
        }
        if (name === 'withResponse' && typeof value === 'function') {
          return async () => ({ ...(await value.call(target)), data: await look() });
        }
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  }

  /** Has a stream looked at while somebody reads it, and billed at its end. */
  #watch(stream: Any, model: unknown): void {
    const reading = this.#read(model);
    let over = false;
    const see = (piece: unknown) => this.#safely(() => reading.add(piece));
    const end = () => {
      if (!over && !this.#billed(reading)) {
        warn(
          'llm',
          'a stream of a language model has ended without token usage and is not billed; ' +
            'of OpenAI’s chat ask for it with stream_options: { include_usage: true }',
        );
      }
      over = true;
    };
    if (typeof stream.on === 'function') {
      for (const piece of PIECES) {
        stream.on(piece, see);
      }
      stream.on('end', end);
    } else if (typeof stream.next === 'function') {
      observe(stream as Any & AsyncIterator<unknown>, see, end);
    } else {
      // OpenAI's and Anthropic's hold their iterator's maker, by which they also split themselves.
      const name = typeof stream.iterator === 'function' ? 'iterator' : Symbol.asyncIterator;
      const make = stream[name] as Method;
      stream[name] = () => observe(make.call(stream) as Any & AsyncIterator<unknown>, see, end);
    }
  }

  #billed(reading: R): boolean {
    try {
      return this.#bill(reading);
    } catch (error) {
      warn('llm', `an answer of a language model is not billed: ${error}`);
      return true;
    }
  }

  /** The caller's own answer goes before the bill. */
  #safely(look: () => void): boolean {
    try {
      look();
      return true;
    } catch (error) {
      warn('llm', `an answer of a language model cannot be read: ${error}`);
      return false;
    }
  }
}

/** Lets an iterator tell what it gives, and that it has ended. */
function observe(
  iterator: Any & AsyncIterator<unknown>,
  see: (piece: unknown) => void,
  end: () => void,
): AsyncIterator<unknown> {
  for (const name of ['next', 'return', 'throw'] as const) {
    const step = iterator[name] as
      | ((...args: unknown[]) => Promise<IteratorResult<unknown>>)
      | undefined;
    if (step === undefined) {
      continue;
    }
    iterator[name] = async (...args: unknown[]) => {
      let result: IteratorResult<unknown>;
      try {
        result = await step.apply(iterator, args);
      } catch (error) {
        end();
        throw error;
      }
      if (result.done) {
        end();
      } else {
        see(result.value);
      }
      return result;
    };
  }
  return iterator;
}

function modelOf([request]: unknown[]): unknown {
  return typeof request === 'object' && request !== null ? (request as Any).model : undefined;
}

function isPlain(value: unknown): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/** Whether a proxy may give nothing else. */
function fixed(holder: Any, name: string): boolean {
  const property = Reflect.getOwnPropertyDescriptor(holder, name);
  return property?.configurable === false && property.writable === false;
}
