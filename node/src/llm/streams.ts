/** Streams that are looked at while somebody else reads them, and only as far as they are read. */

export type Any = Record<PropertyKey, unknown>;
export type Method = (...args: unknown[]) => unknown;

export function isObject(value: unknown): value is object {
  return (typeof value === 'object' && value !== null) || typeof value === 'function';
}

export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return isObject(value) && typeof (value as Any).then === 'function';
}

/** What asks a stream, and answers with what it gives. */
type Step = (...args: unknown[]) => Promise<IteratorResult<unknown> | undefined>;

/** Who looks at a stream. */
export interface Watcher {
  /** Runs each step of whoever reads it. */
  run<T>(step: () => T): T;
  /** Hears what it gives. A piece may be told of twice. */
  see(piece: unknown): void;
  /** Hears that it has ended. */
  end(): void;
}

const ITERATOR = ['next', 'return', 'throw'];
const READER = ['read', 'cancel'];
/** What a web stream does by a reader that nobody else sees. */
const HANDING_ON = ['pipeThrough', 'pipeTo', 'tee', 'values'] as const;

/** Has a stream watched. */
export function observed(stream: Any, watcher: Watcher): void {
  if (typeof stream.getReader === 'function') {
    observeReaders(stream as Any & ReadableStream<unknown>, watcher);
  }
  if (typeof stream.next === 'function') {
    observe(stream, ITERATOR, watcher);
    return;
  }
  // OpenAI's and Anthropic's hold their iterator's maker, by which they also split themselves.
  const name = typeof stream.iterator === 'function' ? 'iterator' : Symbol.asyncIterator;
  const make = stream[name] as Method;
  stream[name] = (...args: unknown[]) =>
    observe(watcher.run(() => make.apply(stream, args)) as Any, ITERATOR, watcher);
}

function observeReaders(stream: Any & ReadableStream<unknown>, watcher: Watcher): void {
  const getReader = stream.getReader as unknown as Method;
  Object.assign(stream, {
    getReader: (...args: unknown[]) =>
      observe(getReader.apply(stream, args) as Any, READER, watcher),
  });
  observe(stream, ['cancel'], watcher);
  for (const name of HANDING_ON) {
    Object.assign(stream, {
      [name]: (...args: unknown[]) => (again(stream)[name] as Method)(...args),
    });
  }
}

/** A stream of what another's reader gives, as it is asked for. */
function again(stream: ReadableStream<unknown>): Any {
  const reader = stream.getReader();
  const copy = new ReadableStream<unknown>(
    {
      pull: async (controller) => {
        const { done, value } = await reader.read();
        if (done) {
          controller.close();
        } else {
          controller.enqueue(value);
        }
      },
      cancel: (reason) => reader.cancel(reason),
    },
    { highWaterMark: 0 },
  );
  return copy as unknown as Any;
}

function observe(holder: Any, steps: readonly string[], watcher: Watcher): Any {
  for (const name of steps) {
    const step = holder[name] as Step | undefined;
    if (step === undefined) {
      continue;
    }
    holder[name] = async (...args: unknown[]) => {
      let result: IteratorResult<unknown> | undefined;
      try {
        result = await watcher.run(() => step.apply(holder, args));
      } catch (error) {
        watcher.end();
        throw error;
      }
      // What cancels gives nothing.
      if (result === undefined || result.done) {
        watcher.end();
      } else {
        watcher.see(result.value);
      }
      return result;
    };
  }
  return holder;
}
