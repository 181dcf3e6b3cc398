/** Watches a `Response` of the fetch interface. Its body is handed on as it is asked for. */

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

  constructor(
    meter: Meter<Request>,
    metered: Metered<Request>,
    method: string,
    signal: AbortSignal | undefined,
  ) {
    this.#meter = meter;
    this.#metered = metered;
    this.#method = method;
    signal?.addEventListener('abort', () => this.end(true), { once: true });
  }

  /** The handler failed: the framework answers in its place. */
  fail(statusCode: number): void {
    this.#statusCode = statusCode;
    this.end(false);
  }

  /** The response with a body that is watched; itself, where it has none, or none that can be. */
  wrap(response: Response): Response {
    const { status, body } = response;
    this.#statusCode = status;
    // A response that switches protocols cannot be made anew, nor one whose body another has in hand.
    const watchable = body !== null && !body.locked && status >= 200 && this.#method !== 'HEAD';
    if (this.#ended || !watchable) {
      this.end(false);
      return response;
    }
    return new Response(this.#watched(body), response);
  }

  #watched(body: ReadableStream<Uint8Array>): ReadableStream<Uint8Array> {
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
            this.#bytes += value.byteLength;
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
    const now = performance.now();
    const begun = this.#statusCode !== undefined;
    this.#meter.end(this.#metered, {
      method: this.#method,
      statusCode: this.#statusCode,
      aborted,
      responseTimeMs: now - this.#began,
      ttfbMs: begun ? (this.#firstByte ?? now) - this.#began : undefined,
      responseBytes: begun ? this.#bytes : undefined,
    });
  }
}

/** The path of an address, without its query. */
export function pathOf(url: string): string {
  return URL.canParse(url) ? new URL(url).pathname : '';
}
