/** What the addon exports. See `bindings/napi`. */

declare const brand: unique symbol;

/** A value that only the addon can look into. */
interface Opaque<Name extends string> {
  readonly [brand]: Name;
}

export type Client = Opaque<'client'>;
export type BatchHandle = Opaque<'batch'>;
export type ReceiptHandle = Opaque<'receipt'>;
export type Pending = Opaque<'pending'>;

/** Starts a wait: `wake` is called whenever it is worth polling. Times are milliseconds. */
type Start<Handle> = (handle: Handle, timeout: number | undefined, wake: () => void) => Pending;

/** Accepts an event; the last two name a metadata value that JSON has no form for. */
type Accept<Handle, Result> = (
  handle: Handle,
  event: string,
  unsupportedKey?: string,
  unsupportedType?: string,
) => Result;

export interface Native {
  errorKinds(): string[];
  optionsInSeconds(): string[];
  open(options: string, onAlarm: (kind: string, message: string) => void): Client;
  track: Accept<Client, ReceiptHandle>;
  flush: Start<Client>;
  close: Start<Client>;
  closeAtExit(client: Client, wake: () => void): Pending;
  stats(client: Client): string;
  eventId(receipt: ReceiptHandle): string;
  delivered: Start<ReceiptHandle>;
  openBatch(client: Client, maxSize?: number, flushInterval?: number): BatchHandle;
  add: Accept<BatchHandle, void>;
  refuse(batch: BatchHandle, reason: string): void;
  flushBatch: Start<BatchHandle>;
  cleanupBatch: Start<BatchHandle>;
  poll(pending: Pending): boolean;
}
