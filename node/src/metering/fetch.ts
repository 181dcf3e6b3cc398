/** Watches a `Response` of the fetch interface. Its body is handed on as it is asked for. */

import { AsyncResource } from 'node:async_hooks';
import { isAnyArrayBuffer } from 'node:util/types';
import { whenAborted } from '../wait';
import type { Meter, Metered } from './meter';

export class FetchObservation<Request> {
  readonly #began = performance.now();
  readonly #meter: Meter<Request>;
  readonly #metered: Metered<Request>;
  readonly #method: string;
  #statusCode: number | undefined;
  #firstByte: number | undefined;
  #bytes = 0;
  #ended = false;
  readonly #leave: (() => void) | undefined;
  /** Where the handler was called: a callback may ask for its request by what is stored there, as `headers()` does. */
  readonly #scope = new AsyncResource('dodo-ingestion');

  constructor(
    meter: Meter<Request>,
    metered: Metered<Request>,
    method: string,
    signal: AbortSignal | undefined,
  ) {
    this.#meter = meter;
    this.#metered = metered;
    this.#method = method;
    if (signal?.aborted) {
      // It tells nobody any more. What the handler says at once is heard first.
      queueMicrotask(() => this.end(true));
    } else {
      this.#leave = signal && whenAborted(signal, () => this.end(true));
    }
  }

  /** The handler failed: the framework answers in its place. */
  fail(statusCode: number): void {
    this.#statusCode = statusCode;
    this.end(false);
  }

  /** The response with a body that is watched; itself, where it has none, or none that can be. */
  wrap(response: Response): Response {
    if (!isResponse(response)) {
      // Whoever gives none has failed, and the framework says so.
      this.fail(500);
      return response;
    }
    const { status, body } = response;
    this.#statusCode = status;
    // A response that switches protocols cannot be made anew, nor one whose body another has in hand.
    const watchable = body !== null && !body.locked && status >= 200 && this.#method !== 'HEAD';
    if (this.#ended || !watchable) {
      this.end(false);
      return response;
    }
    const declared = Number(response.headers.get('content-length') ?? Number.NaN);
    return alike(response, this.#watched(body, declared));
  }

  /** `declared` is the length that it is to have, or `NaN`. */
  #watched(body: ReadableStream<Uint8Array>, declared: number): ReadableStream<Uint8Array> {
    const reader = body.getReader();
    return new ReadableStream<Uint8Array>(
      {
        pull: async (controller) => {
          try {
            const { done, value } = await reader.read();
            if (done) {
              this.end(false);
              controller.close();
              return;
            }
            this.#firstByte ??= performance.now();
            this.#bytes += lengthOf(value);
            if (this.#bytes >= declared) {
              // A client has the whole before the end.
              this.end(false);
            }
            controller.enqueue(value);
          } catch (error) {
            this.end(true);
            controller.error(error);
          }
        },
        cancel: (reason) => {
          this.end(true);
          return reader.cancel(reason);
        },
      },
      { highWaterMark: 0 },
    );
  }

  /** The response has ended. The first word counts. */
  end(aborted: boolean): void {
    if (this.#ended) {
      return;
    }
    this.#ended = true;
    this.#leave?.();
    const now = performance.now();
    const begun = this.#statusCode !== undefined;
    this.#scope.runInAsyncScope(() =>
      this.#meter.end(this.#metered, {
        method: this.#method,
        statusCode: this.#statusCode,
        aborted,
        responseTimeMs: now - this.#began,
        ttfbMs: begun ? (this.#firstByte ?? now) - this.#began : undefined,
        responseBytes: begun ? this.#bytes : undefined,
      }),
    );
  }
}

/** The same response with another body. One of Next.js has `cookies` for whoever has wrapped the handler once more. */
function alike(response: Response, body: ReadableStream<Uint8Array>): Response {
  const Class = 'cookies' in response ? (response.constructor as typeof Response) : Response;
  return new Class(body, response);
}

/** Whether it is a response that can be sent: the status of `Response.error()` is 0. */
function isResponse(response: Response | undefined): response is Response {
  return typeof response?.status === 'number' && response.status >= 100;
}

/** The bytes of a chunk. A stream may give what no body is made of: that fails where it is sent. */
function lengthOf(chunk: unknown): number {
  if (typeof chunk === 'string') {
    return Buffer.byteLength(chunk);
  }
  return ArrayBuffer.isView(chunk) || isAnyArrayBuffer(chunk) ? chunk.byteLength : 0;
}

/** The path of an address, without its query. */
export function pathOf(url: string): string {
  return URL.canParse(url) ? new URL(url).pathname : '';
}
