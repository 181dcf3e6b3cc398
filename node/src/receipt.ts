import { refusal } from './errors';
import { native } from './load';
import type { Handle } from './native';
import { type WaitOptions, wait } from './wait';

/**
 * The answer to one call. As a promise it is already settled: resolved when the call was accepted,
 * rejected when it was not. The rejection counts as handled, so a receipt may be dropped.
 */
export class Receipt extends Promise<void> {
  #client: Handle<'Ingestion'> | undefined;
  #ticket = '';

  /** What `then` returns is an ordinary promise. */
  static override get [Symbol.species](): PromiseConstructor {
    return Promise;
  }

  /** @internal */
  static of(client: Handle<'Ingestion'>, accept: () => string): Receipt {
    try {
      const ticket = accept();
      const receipt = new Receipt((resolve) => resolve());
      receipt.#client = client;
      receipt.#ticket = ticket;
      return receipt;
    } catch (thrown) {
      return Receipt.refused(thrown);
    }
  }

  /** @internal */
  static refused(thrown: unknown): Receipt {
    const receipt = new Receipt((_, reject) => reject(refusal(thrown)));
    receipt.catch(() => {});
    return receipt;
  }

  /** The call's idempotency key; `undefined` when the call was not accepted. */
  get eventId(): string | undefined {
    return this.#client && native.eventId(this.#client, this.#ticket);
  }

  /** Resolves when the billing API has acknowledged the call; rejects with why it never will. */
  async delivered(options?: WaitOptions): Promise<void> {
    await this;
    const client = this.#client;
    if (client !== undefined) {
      const start = (timeout: number | undefined, wake: () => void) =>
        native.delivered(client, this.#ticket, timeout, wake);
      await wait(start, options);
    }
  }
}
