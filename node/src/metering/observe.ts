/**
 * Watches a Node response (HTTP/1, or the compatibility API of HTTP/2) from its first byte to its end.
 *
 * `write` and `end` are wrapped with what they are given and what they give back unchanged, so that
 * backpressure, callbacks and errors are as they were. Bytes are counted as they pass: what a middleware
 * further in makes of them (it compresses them) is seen, what one further out makes of them is not.
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Meter, Metered } from './meter';
import { watchUpgrade } from './upgrade';

/**
 * Has a call metered, unless it is not to be, or another middleware has it. Never throws. `request` is what the
 * callbacks are given; `begin` gives what finds its template when the response has ended; `key` stands for the
 * request all along.
 */
export function watch<Request>(
  meter: Meter<Request>,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  request: Request,
  begin: (request: Request) => () => string | undefined,
  key: object = incoming,
): void {
  meter.attempt(() => {
    if (!meter.begin(incoming.method, key)) {
      return;
    }
    const metered = new NodeRequest(incoming, request, begin(request), key);
    if ((incoming as { upgrade?: boolean }).upgrade) {
      watchUpgrade(meter, metered, incoming.socket);
    } else {
      new Observation(meter, metered, outgoing);
    }
  });
}

/** A request of Node, with what the framework makes of it. */
export class NodeRequest<Request> implements Metered<Request> {
  readonly #url: string;

  constructor(
    readonly incoming: IncomingMessage,
    readonly request: Request,
    readonly template: () => string | undefined,
    readonly key: object = incoming,
  ) {
    // A framework that mounts takes the front away meanwhile, and keeps it here.
    this.#url = (incoming as { originalUrl?: string }).originalUrl ?? incoming.url ?? '';
  }

  path(): string {
    const end = this.#url.search(/[?#]/);
    return end < 0 ? this.#url : this.#url.slice(0, end);
  }

  header(name: string): string | undefined {
    const value = this.incoming.headers[name];
    return Array.isArray(value) ? value[0] : value;
  }
}

type Write = ServerResponse['write'];
type End = ServerResponse['end'];

class Observation<Request> {
  readonly #began = performance.now();
  readonly #meter: Meter<Request>;
  readonly #metered: Metered<Request>;
  readonly #outgoing: ServerResponse;
  readonly #method: string;
  #firstByte: number | undefined;
  #bytes = 0;
  #ending = false;
  #ended = false;
  #leave: (() => void) | undefined;

  constructor(meter: Meter<Request>, metered: NodeRequest<Request>, outgoing: ServerResponse) {
    const { incoming } = metered;
    this.#meter = meter;
    this.#metered = metered;
    this.#outgoing = outgoing;
    this.#method = incoming.method ?? '';
    this.#wrap();
    outgoing.on('finish', () => this.#end(wasReset(outgoing)));
    outgoing.on('close', () => this.#end(true));
    if (outgoing.socket === null) {
      // It waits in the pipeline, where Node does not tell it of the connection's end.
      const socket: Socket = incoming.socket;
      const gone = () => this.#end(true);
      socket.once('close', gone);
      this.#leave = () => socket.removeListener('close', gone);
    }
  }

  #wrap(): void {
    const outgoing = this.#outgoing;
    const { write, end, flushHeaders } = outgoing;
    const passes = (chunk: unknown, encoding: unknown) => this.#passes(chunk, encoding);
    const ends = (chunk: unknown, encoding: unknown) => {
      passes(chunk, encoding);
      // The compatibility API writes by the same `write` what it is given to end with.
      this.#ending = true;
    };
    outgoing.write = function (this: ServerResponse, ...args: unknown[]) {
      passes(args[0], args[1]);
      return write.apply(this, args as Parameters<Write>);
    } as Write;
    outgoing.end = function (this: ServerResponse, ...args: unknown[]) {
      ends(args[0], args[1]);
      return end.apply(this, args as Parameters<End>);
    } as End;
    outgoing.flushHeaders = function (this: ServerResponse) {
      passes(undefined, undefined);
      flushHeaders.call(this);
    };
  }

  #passes(chunk: unknown, encoding: unknown): void {
    if (this.#ending) {
      return;
    }
    this.#firstByte ??= performance.now();
    if (typeof chunk === 'string') {
      const known = typeof encoding === 'string' && Buffer.isEncoding(encoding);
      this.#bytes += Buffer.byteLength(chunk, known ? encoding : 'utf8');
    } else if (chunk instanceof Uint8Array) {
      this.#bytes += chunk.byteLength;
    }
  }

  #end(aborted: boolean): void {
    if (this.#ended) {
      return;
    }
    this.#ended = true;
    this.#leave?.();
    const { headersSent, statusCode } = this.#outgoing;
    const now = performance.now();
    this.#meter.end(this.#metered, {
      method: this.#method,
      statusCode: headersSent ? statusCode : undefined,
      aborted,
      responseTimeMs: now - this.#began,
      ttfbMs: headersSent ? (this.#firstByte ?? now) - this.#began : undefined,
      responseBytes: headersSent ? this.#length(statusCode) : undefined,
    });
  }

  /** What a response without a body is given to write is not sent. */
  #length(statusCode: number): number {
    const none = this.#method === 'HEAD' || statusCode === 204 || statusCode === 304;
    return none ? 0 : this.#bytes;
  }
}

/** HTTP/2 says that a response is finished also where its stream was reset. */
function wasReset(outgoing: ServerResponse): boolean {
  const { stream } = outgoing as { stream?: { aborted?: boolean; rstCode?: number } };
  return stream !== undefined && (stream.aborted === true || (stream.rstCode ?? 0) !== 0);
}
