/** Watches a connection that leaves HTTP, such as a WebSocket: one event when it closes. */

import { AsyncResource } from 'node:async_hooks';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Meter, Metered } from './meter';

const SWITCHING = 101;

/** The beginning of what is written is an answer of HTTP, or the connection has left HTTP before. */
const STATUS = /^HTTP\/\d\.\d (\d{3})/;

export function watchUpgrade<Request>(
  meter: Meter<Request>,
  metered: Metered<Request> & { readonly incoming: IncomingMessage },
  connection: Duplex,
): void {
  const socket = connection as Socket;
  const began = performance.now();
  const before = socket.bytesWritten ?? 0;
  let head: { statusCode: number; after: number; bytes: number } | undefined;
  // It closes where nothing of the call is stored.
  let scope = new AsyncResource('dodo-ingestion');

  const { write, end } = socket;
  const begins = (chunk: unknown) => {
    // Who has wrapped it meanwhile comes by here each time.
    if (head !== undefined) {
      return;
    }
    if (typeof chunk !== 'string' && !(chunk instanceof Uint8Array)) {
      return;
    }
    const text = typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString('latin1', 0, 16);
    const status = STATUS.exec(text)?.[1];
    head = {
      statusCode: status === undefined ? SWITCHING : Number(status),
      after: performance.now() - began,
      bytes: status === undefined ? 0 : headLength(chunk),
    };
    scope = new AsyncResource('dodo-ingestion');
    if (socket.write === firstWrite) {
      socket.write = write;
    }
    if (socket.end === firstEnd) {
      socket.end = end;
    }
  };
  const firstWrite = function (this: Socket, ...args: unknown[]) {
    begins(args[0]);
    return write.apply(this, args as Parameters<typeof write>);
  } as typeof write;
  const firstEnd = function (this: Socket, ...args: unknown[]) {
    begins(args[0]);
    return end.apply(this, args as Parameters<typeof end>);
  } as typeof end;
  socket.write = firstWrite;
  socket.end = firstEnd;

  const closes = (failed: boolean) =>
    meter.end(metered, {
      method: metered.incoming.method ?? '',
      statusCode: head?.statusCode,
      aborted: head === undefined || failed === true,
      responseTimeMs: performance.now() - began,
      ttfbMs: head?.after,
      responseBytes: head && Math.max(0, (socket.bytesWritten ?? 0) - before - head.bytes),
    });
  socket.once('close', (failed: boolean) => scope.runInAsyncScope(closes, undefined, failed));
}

/** The bytes up to the empty line that ends a head. */
function headLength(chunk: string | Uint8Array): number {
  const bytes = typeof chunk === 'string' ? Buffer.from(chunk, 'latin1') : Buffer.from(chunk);
  const end = bytes.indexOf('\r\n\r\n');
  return end < 0 ? bytes.length : end + 4;
}
