/**
 * Clients of language models that have their answers looked at.
 *
 * A proxy stands in front of the client, and of each part of it that is reached through it. It hands on
 * everything, and looks at what methods return, but for those that fetch or count. A method is called on
 * the real object, so that what a client calls of itself is seen once; `parse` is not, since it may refuse what the
 * model has answered. A usage that a method hands on from another one that is wrapped belongs to that one's call.
 * Of a call that fails what its error tells is billed. This module knows no provider and no shape of usage: `read` makes
 * a reading of an answer, `bill` bills one.
 */

import { AsyncLocalStorage } from 'node:async_hooks';
import { warn } from '../warn';
import { fetches, heard, isAgent, isModel, modelOf, naming, providerOf } from './requests';
import { type Any, isObject, isThenable, type Method, observed } from './streams';

/** What has been seen of an answer. */
export interface Reading {
  /** Takes what a piece of it tells. */
  add(piece: unknown): void;
  /** Begins another answer, whose usage is added. */
  next(): void;
  /** Whether something looks like what a model writes, with usage or without. */
  isAnswer(given: object): boolean;
}

/** Takes the call that asked. */
export type Read<R> = (call: Call) => R;
/** Says whether there was usage, be it of another call. */
export type Bill<R> = (reading: R) => boolean;
/** Says why an answer is not billed, for each of them. */
export type Tell = (message: string) => void;

/**
 * What fetches, counts or keeps things, by the names that clients have for it: no model is asked. Nor by what
 * converts messages of the AI SDK, which may carry the usage of old answers.
 */
const NOT_ASKING =
  /^(?:archive|batches|cachedContents|caches|cancel|compute\w*|content|convert\w*|count\w*|del|delete|get|list\w*|modify|parse[A-Z]\w*|poll|prune\w*|results|retrieve|search|sessions|simulate\w*|update|\w*UIMessage\w*)$/;
/** What an object of a library's class has, if a model can be asked by it. */
const ASKING = [
  'chat',
  'complete',
  'create',
  'generate',
  'generateContent',
  'generateText',
  'invoke',
  'sendMessage',
  'toolRunner',
];
const COPYING: ReadonlySet<string> = new Set(['withOptions']);
/** Of LangChain's models, and called on the proxy: what they make asks it, and may hide what it answers. */
const CHAINING: ReadonlySet<string> = new Set(['assign', 'pick', 'pipe']);
/** Of promises: what gives the answer beside the response that it came in. */
const BESIDE: ReadonlySet<string> = new Set(['withRawResponse', 'withResponse']);
/** Of OpenAI's and Anthropic's, and called on the proxy: what it asks itself is looked at before it is parsed. */
const PARSING = 'parse';
/** By which a part of them asks. */
const ROOT = '_client';
/** By which they parse an answer when it comes. */
const UNWRAPPING = '_thenUnwrap';
/** Of the AI SDK. What they answer is read when it is looked at, so they are asked to tell of its end. */
const TELLING: ReadonlySet<string> = new Set([
  'experimental_streamTextLowMemory',
  'streamObject',
  'streamText',
]);
/** Of the AI SDK too. They are asked to tell of each step, which is paid for even if a later one fails. */
const STEPPING: ReadonlySet<string> = new Set([
  'experimental_streamTextLowMemory',
  'generateText',
  'streamText',
]);
/**
 * Their listeners. The older name is known to all versions; where both are, only the newer one is called. After
 * an error the end is told of too, with the steps that were over.
 */
const STEP = ['onStepFinish', 'onStepEnd'] as const;
const END = ['onFinish', 'onEnd'] as const;
const ABORT = ['onAbort'] as const;
/** What the helpers of OpenAI's and Anthropic's streams tell of. */
const PIECES = ['chunk', 'event', 'streamEvent'];
/** What is told of a model of the AI SDK, whose own answers have usages of another form. */
const MODEL =
  'a model of the AI SDK is not billed by itself: wrap what has generateText and streamText';
/** Where an answer that is still to come has its usage. One is enough. */
const PROMISED = ['totalUsage', 'usage', 'response'];

/** The call within which others are made: by a tool, or by a method that somebody has put in the place of another. */
const calls = new AsyncLocalStorage<Call>();

/** A call of a method that is looked at. */
export class Call {
  /** The model that its request names. */
  readonly model: unknown;
  /** Whose model it is, if the request tells. */
  readonly provider: unknown;
  /** What the AI SDK has told of its steps. */
  readonly steps = new Set<unknown>();
  /** Weak: what asks again and again from within its own calls would keep them all. */
  readonly #outer: WeakRef<Call> | undefined;
  readonly #handedOn = new WeakSet<object>();

  constructor(args: unknown[]) {
    this.model = modelOf(args);
    this.provider = providerOf(args);
    const outer = calls.getStore();
    this.#outer = outer && new WeakRef(outer);
  }

  /** Takes a usage for this call's. False where a call within this one has taken it already. */
  claims(usage: object): boolean {
    const outer = this.#outer?.deref();
    if (outer !== undefined) {
      outer.#handedOn.add(usage);
    }
    return !this.#handedOn.has(usage);
  }

  /** Has what `run` calls be within this one. */
  readonly run = <T>(run: () => T): T => calls.run(this, run);
}

/** What a proxy stands for. */
const targets = new WeakMap<object, object>();

/** Wraps a client. One that is wrapped already is wrapped for the new customer alone. */
export function wrapped<T, R extends Reading>(
  client: T,
  read: Read<R>,
  bill: Bill<R>,
  tell: Tell,
): T {
  const target = isObject(client) ? (targets.get(client) as T | undefined) : undefined;
  if (isObject(client) && isModel(client as Any)) {
    tell(MODEL);
  }
  return new Wrapper(read, bill, tell).client(target ?? client);
}

class Wrapper<R extends Reading> {
  readonly #read: Read<R>;
  readonly #bill: Bill<R>;
  readonly #tell: Tell;
  readonly #parts = new WeakMap<object, unknown>();

  constructor(read: Read<R>, bill: Bill<R>, tell: Tell) {
    this.#read = read;
    this.#bill = bill;
    this.#tell = tell;
  }

  /** A client, or a part of one. */
  client<T>(target: T): T {
    if (!isObject(target)) {
      return target;
    }
    const known = this.#parts.get(target);
    if (known !== undefined) {
      return known as T;
    }
    const proxy: object = new Proxy(target as Any, {
      get: (holder, name) => {
        const value = Reflect.get(holder, name);
        if (typeof name === 'symbol' || fixed(holder, name)) {
          return value;
        }
        if (name.startsWith('_') && name !== ROOT) {
          return value;
        }
        if (typeof value === 'function') {
          return name === 'constructor' ? value : this.#method(holder, name, value as Method);
        }
        return Array.isArray(value) || NOT_ASKING.test(name) ? value : this.client(value);
      },
      // A setter may need the private fields of what it belongs to.
      set: (holder, name, value) => Reflect.set(holder, name, value),
      // A client may be a function itself.
      apply: (holder, self, args) => {
        const call = new Call(args);
        return this.#answered(
          call.run(() => Reflect.apply(holder as unknown as Method, self, args)),
          call,
        );
      },
    });
    this.#parts.set(target, proxy);
    targets.set(proxy, target);
    return proxy as T;
  }

  /** A method is called on what it belongs to, which may have private fields. */
  #method(holder: Any, name: string, method: Method): unknown {
    const proxy: Method = new Proxy(method, {
      apply: (target, _, args) => {
        if (CHAINING.has(name) && holder.lc_runnable === true) {
          return Reflect.apply(target, this.client(holder), args);
        }
        if (COPYING.has(name)) {
          return this.client(Reflect.apply(target, holder, args));
        }
        if (NOT_ASKING.test(name) || fetches(args)) {
          return Reflect.apply(target, holder, args);
        }
        const call = new Call(naming(holder, args));
        const asker = name === PARSING && ROOT in holder ? this.client(holder) : holder;
        const steps = isAgent(holder) && name === 'stream';
        const asked = steps ? this.#stepping(args, call) : this.#telling(name, args, call, holder);
        const answer = call.run(() => Reflect.apply(target, asker, asked));
        return steps || TELLING.has(name) ? answer : this.#answered(answer, call);
      },
      construct: (target, args, made) => {
        // A class of the caller's own may have private fields, which a proxy has not.
        return made === proxy
          ? this.#led(Reflect.construct(target, args))
          : Reflect.construct(target, args, made);
      },
    });
    return proxy;
  }

  /** What a method has given: a client too, if a model can be asked by it. */
  #led(given: object): object {
    const asks = (name: string) => typeof (given as Any)[name] === 'function';
    let leads = false;
    this.#safely(() => {
      if (isModel(given as Any)) {
        this.#tell(MODEL);
      }
      leads = !isPlain(given) && ASKING.some(asks);
    });
    return leads ? this.client(given) : given;
  }

  #answered(answer: unknown, call: Call): unknown {
    if (!isObject(answer)) {
      return answer;
    }
    if (Array.isArray(answer)) {
      for (const each of answer) {
        this.#answered(each, call);
      }
      return answer;
    }
    const holder = answer as Any;
    const iterable = Symbol.asyncIterator in holder;
    if (isThenable(answer)) {
      if (!iterable) {
        return this.#promised(answer as Promise<unknown>, call);
      }
      // What can be awaited and gone through goes on asking, and gives answer by answer.
      const item = (each: unknown) => void this.#answered(each, call);
      this.#safely(() => observed(holder, { run: call.run, see: item, end: () => {} }));
      return answer;
    }
    if (iterable || emits(holder)) {
      this.#safely(() => this.#watch(holder, call));
      return answer;
    }
    const promised = PROMISED.map((name) => own(holder, name)).find(isThenable);
    if (promised !== undefined) {
      this.#later(promised, call);
      return answer;
    }
    const stream = own(holder, 'stream');
    if (isObject(stream) && Symbol.asyncIterator in stream) {
      this.#safely(() => this.#watch(stream as Any, call));
      return answer;
    }
    if ('textStream' in holder) {
      this.#tell('a stream of the AI SDK is not billed: wrap what has streamText itself');
      return answer;
    }
    if ('getTextStream' in holder) {
      this.#tell('what OpenRouter’s callModel gives is not billed: ask by chat.send');
      return answer;
    }
    const reading = this.#read(call);
    if (this.#safely(() => reading.add(answer)) && this.#billed(reading)) {
      return answer;
    }
    const led = this.#led(answer);
    this.#safely(() => {
      if (led === answer && reading.isAnswer(answer)) {
        this.#tell('an answer of a language model has no token usage and is not billed');
      }
    });
    return led;
  }

  /** A promise, whose class may have methods of its own. */
  #promised(promise: Promise<unknown>, call: Call): unknown {
    let looked: Promise<unknown> | undefined;
    // Only when it is asked for: to ask is what makes OpenAI's read the body.
    const look = () => {
      looked ??= promise.then(
        (answer) => this.#answered(answer, call),
        (error: unknown) => {
          this.#failed(error, call);
          throw error;
        },
      );
      return looked;
    };
    if (Object.getPrototypeOf(promise) === Promise.prototype) {
      return look();
    }
    return new Proxy(promise, {
      get: (target, name) => {
        const value: unknown = Reflect.get(target, name);
        if (name === 'then' || name === 'catch' || name === 'finally') {
          return (...args: never[]) => (look()[name] as Method)(...args);
        }
        if (BESIDE.has(name as string) && typeof value === 'function') {
          return async () => ({ ...(await value.call(target)), data: await look() });
        }
        if (name === UNWRAPPING && typeof value === 'function') {
          return (parse: Method) =>
            value.call(target, (answer: unknown, ...rest: unknown[]) =>
              parse(this.#answered(answer, call), ...rest),
            );
        }
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  }

  /** Bills what was paid for before a call failed: the steps that were over, or what the failure itself tells. */
  #failed(failure: unknown, call: Call): void {
    const reading = this.#read(call);
    for (const told of call.steps.size > 0 ? call.steps : [failure]) {
      reading.next();
      this.#safely(() => reading.add(told));
    }
    this.#billed(reading);
  }

  /** The usage of an answer, or the whole of it, that comes by itself. Its failure is the caller's matter. */
  #later(promised: PromiseLike<unknown>, call: Call): void {
    const come = (value: unknown) => {
      const reading = this.#read(call);
      // It may be the usage alone.
      this.#safely(() => reading.add({ usage: value }));
      this.#safely(() => reading.add(value));
      this.#billed(reading);
    };
    promised.then(come, () => {});
  }

  /** The arguments of a method, with a request that tells of its steps, and of the end of its stream. */
  #telling(name: string, args: unknown[], call: Call, holder: Any): unknown[] {
    const [request, ...rest] = args;
    if (!isObject(request)) {
      return args;
    }
    let telling: object = request;
    if (STEPPING.has(name) || (isAgent(holder) && name === 'generate')) {
      telling = heard(telling, STEP, (step) => call.steps.add(step));
    }
    if (TELLING.has(name)) {
      let over = false;
      const end = (event: unknown) => {
        if (!over) {
          over = true;
          this.#ended(event, call);
        }
      };
      telling = heard(heard(telling, END, end), ABORT, end);
    }
    return [telling, ...rest];
  }

  /** The arguments of an agent's stream, whose steps are billed one by one: its own listeners of its end stay. */
  #stepping([request, ...rest]: unknown[], call: Call): unknown[] {
    const step = (told: unknown) => {
      if (!call.steps.has(told)) {
        call.steps.add(told);
        this.#ended(told, call);
      }
    };
    return [isObject(request) ? heard(request, STEP, step) : request, ...rest];
  }

  /** Bills a stream, or a step of one, by what it tells at its end. Nobody reads it for that. */
  #ended(event: unknown, call: Call): void {
    const reading = this.#read(call);
    this.#safely(() => reading.add(event));
    if (!this.#billed(reading)) {
      this.#failed(event, call);
    }
  }

  /** Has a stream looked at while somebody reads it, and billed at its end. */
  #watch(stream: Any, call: Call): void {
    let reading = this.#read(call);
    let billed = false;
    let over = false;
    const see = (piece: unknown) => this.#safely(() => reading.add(piece));
    const end = () => {
      if (!over && !this.#billed(reading) && !billed) {
        this.#tell(
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
      // Tools may have it ask several times.
      stream.on('chatCompletion', (answer: unknown) => {
        see(answer);
        billed = this.#billed(reading) || billed;
        reading = this.#read(call);
      });
      stream.on('end', end);
    } else {
      observed(stream, { run: call.run, see, end });
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

/** Whether it tells of answers as they come, as OpenAI's runner of tools does. */
function emits(holder: Any): boolean {
  return typeof holder.on === 'function' && typeof holder.finalChatCompletion === 'function';
}

/** The value of a property that is no getter: to ask a getter may be what makes it begin. */
function own(holder: Any, name: string): unknown {
  return Reflect.getOwnPropertyDescriptor(holder, name)?.value;
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
