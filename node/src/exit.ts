/**
 * The natural end of the program. Clients that are still open then are flushed; what the program has made of them
 * meanwhile, in a `beforeExit` listener of its own, is billed when they are closed at the next `beforeExit`, which
 * Node emits when what kept it alive is over.
 */

import { ClosedError } from './errors';
import { native } from './load';
import type { Handle } from './native';
import { wait } from './wait';
import { warn } from './warn';

const OPEN = Symbol.for('dodo-ingestion.open');
const shared = process as { [OPEN]?: Set<() => void> };
shared[OPEN] ??= atExit();

/**
 * What is to be done for each open client. There is one set, however many copies of this module a program has, or
 * how often it loads its code anew.
 */
const open = shared[OPEN];

function atExit(): Set<() => void> {
  const open = new Set<() => void>();
  process.on('beforeExit', () => {
    for (const end of open) {
      end();
    }
  });
  return open;
}

/** Clients that nobody has any more have no end. What waits in their spool is for whoever opens it next. */
const dropped = new FinalizationRegistry<() => void>((end) => open.delete(end));

/**
 * Has a client closed at the end of the program; gives what takes that back.
 *
 * @internal
 */
export function closeAtExit(client: Handle<'Ingestion'>): () => void {
  const reference = new WeakRef(client);
  let flushed = false;
  const end = () => {
    const handle = reference.deref();
    if (handle === undefined) {
      open.delete(end);
    } else if (flushed) {
      open.delete(end);
      wait((_, wake) => native.closeAtExit(handle, wake)).catch(tell);
    } else {
      flushed = true;
      // What did not get through in time stays spooled: it is not tried once more for as long.
      wait((_, wake) => native.flushAtExit(handle, wake)).catch((error: unknown) => {
        open.delete(end);
        tell(error);
      });
    }
  };
  open.add(end);
  dropped.register(client, end, end);
  return () => {
    open.delete(end);
    dropped.unregister(end);
  };
}

function tell(error: unknown): void {
  // A signal may end a `close` when the client is closed already.
  if (!(error instanceof ClosedError)) {
    warn('exit', String(error));
  }
}
