/** What the addon exports. Written by `cargo xtask gen`, from the functions of `bindings/napi`. */

declare const brand: unique symbol;

/** A value that only the addon can look into. */
export interface Handle<Name extends string> {
  readonly [brand]: Name;
}

export interface Native {
  /**
   * A function that accepts the API call of a record, of which nobody wants a receipt. It is one of this client's own,
   * as a client that is an argument costs more to look into than all the rest of it.
   */
  acceptor(client: Handle<'Ingestion'>): (record: Uint8Array) => void;
  /**
   * A function that accepts one call of the batch. Its last two arguments name a metadata value that JSON has no form
   * for. It is the batch's own, as a batch that is an argument would be looked into each time.
   */
  adder(batch: Handle<'Batch'>): (text: string, unsupportedKey?: string, unsupportedType?: string) => void;
  /** Where a client's billing API is, without a slash at the end. */
  baseUrl(client: Handle<'Ingestion'>): string;
  /** Gives a wait up. What was waited for goes on without it. */
  cancel(pending: Handle<'Pending'>): void;
  /** Flushes and ends the batch. What is left stays spooled. */
  cleanupBatch(batch: Handle<'Batch'>, timeout: number | undefined | null, wake: () => void): Handle<'Pending'>;
  /** Flushes and lets go. What is left stays spooled. */
  close(client: Handle<'Ingestion'>, timeout: number | undefined | null, wake: () => void): Handle<'Pending'>;
  /** Closes a client at the end of the program, for as long as its options allow. */
  closeAtExit(client: Handle<'Ingestion'>, wake: () => void): Handle<'Pending'>;
  /** Waits until the billing API has acknowledged the call. */
  delivered(client: Handle<'Ingestion'>, ticket: string, timeout: number | undefined | null, wake: () => void): Handle<'Pending'>;
  /** Which of the provider's two environments a client bills. */
  environment(client: Handle<'Ingestion'>): string;
  /** The kinds that the core may report, in its order. */
  errorKinds(): Array<string>;
  /** The idempotency key of an accepted call. */
  eventId(client: Handle<'Ingestion'>, ticket: string): string;
  /** Makes everything accepted so far due and waits until it is settled. */
  flush(client: Handle<'Ingestion'>, timeout: number | undefined | null, wake: () => void): Handle<'Pending'>;
  /** Flushes a client at the end of the program, for as long as its options allow. */
  flushAtExit(client: Handle<'Ingestion'>, wake: () => void): Handle<'Pending'>;
  /** Makes everything accepted so far due and waits until it is settled. */
  flushBatch(batch: Handle<'Batch'>, timeout: number | undefined | null, wake: () => void): Handle<'Pending'>;
  /**
   * Opens a client. The first text is an object of options by the core's names, with lengths of time in
   * milliseconds, the second one of environment variables: a worker has its own. The listener does not keep the
   * process from exiting.
   */
  open(options: string, variables: string, onAlarm: (kind: string, message: string) => void): Handle<'Ingestion'>;
  /** Opens a batch. */
  openBatch(client: Handle<'Ingestion'>, maxSize?: number | undefined | null, flushInterval?: number | undefined | null): Handle<'Batch'>;
  /** Whether a wait is over; throws what it failed with, once. */
  poll(pending: Handle<'Pending'>): boolean;
  /** Counts and tells a call that could not be turned into text. */
  refuse(client: Handle<'Ingestion'>, reason: string): void;
  /** What has happened so far: a JSON object of counts. */
  stats(client: Handle<'Ingestion'>): string;
  /**
   * Accepts one call and returns its receipt's ticket, as an object would have to be finalized. The
   * last two name a metadata value that JSON has no form for.
   */
  track(client: Handle<'Ingestion'>, text: string, unsupportedKey?: string | undefined | null, unsupportedType?: string | undefined | null): string;
}
