/** Streams that are looked at while somebody else reads them, and only as far as they are read. */

export type Any = Record<PropertyKey, unknown>;
export type Method = (...args: unknown[]) => unknown;

export function isObject(value: unknown): value is object {
  return (typeof value === 'object' && value !== null) || typeof value === 'function';
}

export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return isObject(value) && typeof (value as Any).then === 'function';
}

/** Lets a stream tell what it gives, and that it has ended. */
export function observed(stream: Any, see: (piece: unknown) => void, end: () => void): void {
  if (typeof stream.next === 'function') {
    observe(stream as Any & AsyncIterator<unknown>, see, end);
    return;
  }
  // OpenAI's and Anthropic's hold their iterator's maker, by which they also split themselves.
  const name = typeof stream.iterator === 'function' ? 'iterator' : Symbol.asyncIterator;
  const make = stream[name] as Method;
  stream[name] = (...args: unknown[]) =>
    observe(make.apply(stream, args) as Any & AsyncIterator<unknown>, see, end);
}

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
