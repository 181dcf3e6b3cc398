/**
 * Watches a Node response (HTTP/1, or the compatibility API of HTTP/2) from its first byte to its end.
 *
 * `writeHead`, `write` and `end`, its own or those that it inherits (`inherited.ts`), are wrapped with what they are
 * given and what they give back unchanged, so that backpressure, callbacks and errors are as they were. Bytes are
 * counted as they pass: what a middleware further in makes of them (it compresses them) is seen, what one further out
 * makes of them is not.
 *
 * The call is metered before `end` hands the last of the response on, so that what a client has received whole is
 * billed even if this process is killed. Until the head is made, its status may change, and making it may throw: where
 * that is left to `write` or `end`, the call is metered when they have made it, before they send it.
 */

import { AsyncResource } from 'node:async_hooks';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { isWatched, tells, unwatch, type Watcher, watchInherited } from './inherited';
import type { Meter, Metered } from './meter';
import { toldOf } from './told';
import { watchUpgrade } from './upgrade';

/**
 * Has a call metered, unless it is not to be, or another middleware has it. Never throws. `request` is what the
 * callbacks are given; `begin` gives what finds its template when the response has ended; `inherits` says that
 * responses are given prototypes of the framework's own.
 */
export function watch<Request>(
  meter: Meter<Request>,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  request: Request,
  begin: (request: Request) => () => string | undefined,
  inherits = false,
): void {
  meter.attempt(() => {
    if (Object.hasOwn(outgoing, OBSERVATION) || isWatched(outgoing)) {
      return;
    }
    if (leavesHttp(incoming)) {
      takeConnection(meter, new NodeRequest(incoming, request, begin(request)));
    } else if (meter.begin(incoming.method, incoming)) {
      const metered = new NodeRequest(incoming, request, begin(request));
      new Observation(meter, metered, outgoing, inherits);
    }
  });
}

/** Whether its connection is to be upgraded, and somebody listens for that. */
export function leavesHttp(incoming: IncomingMessage): boolean {
  return (incoming as { upgrade?: boolean }).upgrade === true;
}

/**
 * Has a connection that leaves HTTP metered. One that is in hand already, because Node's own `upgrade` was told of
 * it first, learns its route here.
 */
export function takeConnection<Request>(
  meter: Meter<Request>,
  metered: NodeRequest<Request>,
  connection: Duplex = metered.incoming.socket,
): void {
  if (meter.begin(metered.incoming.method, metered.key)) {
    watchUpgrade(meter, metered, connection);
  } else {
    toldOf(metered.key).template ??= metered.template;
  }
}

/** A request of Node, with what the framework makes of it. */
export class NodeRequest<Request> implements Metered<Request> {
  readonly #url: string;

  constructor(
    readonly incoming: IncomingMessage,
    readonly request: Request,
    readonly template: () => string | undefined,
  ) {
    // A framework that mounts takes the front away meanwhile, and keeps it here.
    this.#url = (incoming as { originalUrl?: string }).originalUrl ?? incoming.url ?? '';
  }

  get key(): object {
    return this.incoming;
  }

  path(): string {
    const end = this.#url.search(/[?#]/);
    return end < 0 ? this.#url : this.#url.slice(0, end);
  }

  header(name: string): string | undefined {
    const value = this.incoming.headers[name];
    return Array.isArray(value) ? value.join(', ') : value;
  }
}

type WriteHead = ServerResponse['writeHead'];
type Write = ServerResponse['write'];
type End = ServerResponse['end'];

/** Where a response keeps who watches it, of whichever copy of this package. */
const OBSERVATION: unique symbol = Symbol.for('dodo-ingestion.observation.1');

/** Who watches a response, and the methods that it had. */
interface Wrapper extends Watcher {
  readonly writeHead: WriteHead | undefined;
  readonly write: Write | undefined;
  readonly end: End | undefined;
}

interface Watched {
  [OBSERVATION]: Wrapper;
}

interface Observed extends Watched {
  writeHead: typeof writeHead;
  write: typeof write;
  end: typeof end;
}

// One function for all responses: a closure for each would give each a shape of its own.
function writeHead(this: ServerResponse & Watched, ...args: unknown[]): ServerResponse {
  const observation = this[OBSERVATION];
  const response = (observation.writeHead as WriteHead).apply(this, args as Parameters<WriteHead>);
  observation.hasHead(args);
  return response;
}

function write(this: ServerResponse & Watched, ...args: unknown[]): boolean {
  const observation = this[OBSERVATION];
  observation.writes(args[0], args[1]);
  return (observation.write as Write).apply(this, args as Parameters<Write>);
}

function end(this: ServerResponse & Watched, ...args: unknown[]): ServerResponse {
  const observation = this[OBSERVATION];
  observation.ends(args[0], args[1]);
  try {
    return (observation.end as End).apply(this, args as Parameters<End>);
  } catch (error) {
    observation.goesOn();
    throw error;
  }
}

/** What ends with a connection, with one listener for all of it: Node warns where there are many. */
const ends = new WeakMap<Socket, Set<() => void>>();

function whenClosed(socket: Socket, gone: () => void): () => void {
  let all = ends.get(socket);
  if (all === undefined) {
    all = new Set();
    ends.set(socket, all);
    socket.once('close', endAll);
  }
  all.add(gone);
  return () => all.delete(gone);
}

function endAll(this: Socket): void {
  for (const gone of ends.get(this) ?? []) {
    gone();
  }
}

class Observation<Request> implements Wrapper {
  readonly writeHead: WriteHead | undefined;
  readonly write: Write | undefined;
  readonly end: End | undefined;
  readonly #began = performance.now();
  readonly #meter: Meter<Request>;
  readonly #metered: Metered<Request>;
  readonly #outgoing: ServerResponse;
  readonly #method: string;
  readonly #inherits: boolean;
  #ending = false;
  #firstByte: number | undefined;
  #bytes = 0;
  /** What `writeHead` was given. */
  #head: readonly unknown[] = [];
  /** The status that `writeHead` made: what is set after it, nobody is sent. */
  #statusSent: number | undefined;
  /** The length that the response is to have; `NaN` where it says none. */
  #declared: number | undefined;
  #ended = false;
  #leave: (() => void) | undefined;
  /** Where the response was begun, if it was not ended there: Node tells of its end where nothing of the call is stored. */
  #scope: AsyncResource | undefined;

  constructor(
    meter: Meter<Request>,
    metered: NodeRequest<Request>,
    outgoing: ServerResponse,
    inherits: boolean,
  ) {
    const { incoming } = metered;
    this.#meter = meter;
    this.#metered = metered;
    this.#outgoing = outgoing;
    this.#method = incoming.method ?? '';
    this.#inherits = inherits && watchInherited(outgoing, this);
    if (!this.#inherits) {
      this.writeHead = outgoing.writeHead;
      this.write = outgoing.write;
      this.end = outgoing.end;
      const observed = outgoing as unknown as Observed;
      observed[OBSERVATION] = this;
      observed.writeHead = writeHead;
      observed.write = write;
      observed.end = end;
    }
    // Adapters of servers without a connection, such as those for Lambda, tell of no `close`.
    outgoing.on('finish', () => this.#finishes());
    outgoing.on('close', () => this.#closes());
    if (outgoing.socket === null) {
      // It waits in the pipeline, where Node does not tell it of the connection's end.
      this.#leave = whenClosed(incoming.socket, () => this.#closes());
    }
  }

  hasHead(args: readonly unknown[]): void {
    this.#meter.attempt(() => {
      this.#head = args;
      this.#statusSent = this.#outgoing.statusCode;
      this.#overIfWhole();
      this.#goesOnHere();
    });
  }

  writes(chunk: unknown, encoding: unknown): void {
    this.#meter.attempt(() => {
      this.#passes(chunk, encoding);
      this.#overIfWhole(chunk);
      this.#goesOnHere();
    });
  }

  ends(chunk: unknown, encoding: unknown): void {
    this.#meter.attempt(() => {
      this.#passes(chunk, encoding);
      // The compatibility API writes by `write` what it is given to end with.
      this.#ending = true;
      this.#overIfWhole(chunk);
    });
  }

  goesOn(): void {
    this.#ending = false;
  }

  #goesOnHere(): void {
    if (!this.#ended) {
      this.#scope ??= new AsyncResource('dodo-ingestion');
    }
  }

  #finishes(): void {
    if (!this.#ended) {
      const outgoing = this.#outgoing;
      this.#overElsewhere(!this.#inherits && wasReset(outgoing), this.#hasHead());
    }
  }

  #closes(): void {
    if (!this.#ended) {
      this.#overElsewhere(true, hasBegun(this.#outgoing));
    }
    if (this.#inherits) {
      unwatch(this.#outgoing);
    }
  }

  /** The call is over if the client is about to have the whole response, and its head is made. */
  #overIfWhole(chunk?: unknown): void {
    if (this.#ended || (this.#firstByte === undefined && !this.#ending)) {
      return;
    }
    const outgoing = this.#outgoing;
    if ((this.#hasHead() || isHttp2(outgoing)) && this.#isWhole() && willEnd(outgoing, chunk)) {
      this.#over(false, true);
    }
  }

  /** Whether its head is made. What `@fastify/express` has put in the place of `headersSent` says that it is not. */
  #hasHead(): boolean {
    return this.#statusSent !== undefined || this.#outgoing.headersSent;
  }

  #isWhole(): boolean {
    if (this.#ending) {
      return true;
    }
    // Of what has a length, a client has the whole before the end.
    this.#declared ??= lengthIn(this.#head) ?? Number(this.#outgoing.getHeader('content-length'));
    return this.#bytes >= this.#declared;
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

  #overElsewhere(aborted: boolean, begun: boolean): void {
    const over = () => this.#over(aborted, begun);
    if (this.#scope === undefined) {
      over();
    } else {
      this.#scope.runInAsyncScope(over);
    }
  }

  #over(aborted: boolean, begun: boolean): void {
    this.#ended = true;
    this.#leave?.();
    const statusCode = this.#statusSent ?? statusOf(this.#outgoing);
    const now = performance.now();
    const isSeen = begun && this.#isSeen();
    this.#meter.end(this.#metered, {
      method: this.#method,
      statusCode: begun ? statusCode : undefined,
      aborted,
      responseTimeMs: now - this.#began,
      ttfbMs: isSeen ? (this.#firstByte ?? now) - this.#began : undefined,
      responseBytes: isSeen ? this.#length(statusCode) : undefined,
    });
  }

  /** Another copy of the framework that was handed the response has made it inherit from what tells nothing. */
  #isSeen(): boolean {
    return !this.#inherits || this.#firstByte !== undefined || tells(this.#outgoing);
  }

  /** What a response without a body is given to write is not sent. */
  #length(statusCode: number): number {
    const none = this.#method === 'HEAD' || statusCode === 204 || statusCode === 304;
    return none ? 0 : this.#bytes;
  }
}

/**
 * Whether a response that is ended with this goes out: it is its turn on a connection that lives, and `end` will not
 * throw. If not, its `finish` or its `close` is waited for.
 */
function willEnd({ socket }: ServerResponse, chunk: unknown): boolean {
  const fits = chunk === undefined || chunk === null || typeof chunk === 'function';
  return (
    socket?.destroyed === false &&
    (fits || typeof chunk === 'string' || chunk instanceof Uint8Array)
  );
}

/** The `content-length` among what `writeHead` is given, of which Node tells nobody. */
function lengthIn(args: readonly unknown[]): number | undefined {
  const headers = args.find((arg) => typeof arg === 'object' && arg !== null) ?? {};
  const list = (Array.isArray(headers) ? headers : Object.entries(headers)).flat();
  const at = list.findIndex(
    (name, index) => index % 2 === 0 && String(name).toLowerCase() === 'content-length',
  );
  return at < 0 ? undefined : Number(list[at + 1]);
}

/**
 * Whether anything of a response has gone out. Over HTTP/1 `headersSent` says that its head was made: it goes with the
 * first bytes of the body, and all waits for its turn in the pipeline. What the connection has written may be another
 * response, or early hints, so that only a field of Node's own tells. Without it, made counts as sent.
 */
function hasBegun(outgoing: ServerResponse): boolean {
  if (isHttp2(outgoing)) {
    return outgoing.headersSent;
  }
  const { _headerSent: isSent = outgoing.headersSent } = outgoing as { _headerSent?: boolean };
  return isSent && outgoing.socket !== null;
}

interface Http2 {
  stream?: {
    aborted?: boolean;
    rstCode?: number;
    sentHeaders?: { ':status'?: number } | undefined;
  };
}

/** The status of a response whose head was not made by `writeHead`: a stream of HTTP/2 knows what it was sent. */
function statusOf(outgoing: ServerResponse): number {
  return (outgoing as Http2).stream?.sentHeaders?.[':status'] ?? outgoing.statusCode;
}

/** The compatibility API of HTTP/2, whose `end` does not make its head by `writeHead`. */
function isHttp2(outgoing: ServerResponse): boolean {
  return (outgoing as Http2).stream !== undefined;
}

/** HTTP/2 says that a response is finished also where its stream was reset. */
function wasReset(outgoing: ServerResponse): boolean {
  const { stream } = outgoing as Http2;
  return stream !== undefined && (stream.aborted === true || (stream.rstCode ?? 0) !== 0);
}
