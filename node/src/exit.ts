/**
 * The natural end of the program. Clients that are still open then are flushed; what the program has made of them
 * meanwhile, in a `beforeExit` listener of its own, is billed when they are closed at the next `beforeExit`, which
 * Node emits when what kept it alive is over.
 */

import { ClosedError } from './errors';
import { native } from './load';
import type { Handle } from './native';
import { shared } from './shared';
import { wait } from './wait';
import { warn } from './warn';

/** What is to be done for each open client. */
const open = shared('open.1', () => {
  const open = new Set<() => void>();
  process.on('beforeExit', () => {
    for (const end of open) {
      end();
    }
  });
  return open;
});

/** A client that nobody has any more is not to be closed. What it was told may be in memory alone, and is flushed. */
const dropped = new FinalizationRegistry<() => void>((drop) => drop());

/**
 * Has a client closed at the end of the program, or flushed when its owner is gone; gives what takes that back.
 *
 * @internal
 */
export function closeAtExit(owner: object, client: Handle<'Ingestion'>): () => void {
  let flushed = false;
  const flush = () => wait((_, wake) => native.flushAtExit(client, wake));
  const end = () => {
    if (flushed) {
      open.delete(end);
      wait((_, wake) => native.closeAtExit(client, wake)).catch(tell);
    } else {
      flushed = true;
      // What did not get through in time stays spooled: it is not tried once more for as long.
      flush().catch((error: unknown) => {
        open.delete(end);
        tell(error);
      });
    }
  };
  const drop = () => {
    open.delete(end);
    flush().catch(tell);
  };
  open.add(end);
  dropped.register(owner, drop, end);
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
