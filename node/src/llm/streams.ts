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

const ITERATOR = ['next', 'return', 'throw'];
const READER = ['read', 'cancel'];
/** What a web stream does by a reader that nobody else sees. */
const HANDING_ON = ['pipeThrough', 'pipeTo', 'tee', 'values'] as const;

/** Lets a stream tell what it gives, and that it has ended. It may tell of a piece twice. */
export function observed(stream: Any, see: (piece: unknown) => void, end: () => void): void {
  if (typeof stream.getReader === 'function') {
    observeReaders(stream as Any & ReadableStream<unknown>, see, end);
  }
  if (typeof stream.next === 'function') {
    observe(stream, ITERATOR, see, end);
    return;
  }
  // OpenAI's and Anthropic's hold their iterator's maker, by which they also split themselves.
  const name = typeof stream.iterator === 'function' ? 'iterator' : Symbol.asyncIterator;
  const make = stream[name] as Method;
  stream[name] = (...args: unknown[]) =>
    observe(make.apply(stream, args) as Any, ITERATOR, see, end);
}

function observeReaders(
  stream: Any & ReadableStream<unknown>,
  see: (piece: unknown) => void,
  end: () => void,
): void {
  const getReader = stream.getReader as unknown as Method;
  Object.assign(stream, {
    getReader: (...args: unknown[]) =>
      observe(getReader.apply(stream, args) as Any, READER, see, end),
  });
  observe(stream, ['cancel'], see, end);
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

function observe(
  holder: Any,
  steps: readonly string[],
  see: (piece: unknown) => void,
  end: () => void,
): Any {
  for (const name of steps) {
    const step = holder[name] as Step | undefined;
    if (step === undefined) {
      continue;
    }
    holder[name] = async (...args: unknown[]) => {
      let result: IteratorResult<unknown> | undefined;
      try {
        result = await step.apply(holder, args);
      } catch (error) {
        end();
        throw error;
      }
      // What cancels gives nothing.
      if (result === undefined || result.done) {
        end();
      } else {
        see(result.value);
      }
      return result;
    };
  }
  return holder;
}
