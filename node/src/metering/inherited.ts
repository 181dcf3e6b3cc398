/**
 * Has the responses of Express tell what passes by a prototype of theirs.
 *
 * Express gives each request and response another prototype, and from then on V8 makes a new shape for each property
 * that is added to one: to give a response methods of its own costs more than all the rest of a call.
 */

import { ServerResponse } from 'node:http';
import { shared } from '../shared';

/** Hears what passes to a response. */
export interface Watcher {
  /** `writeHead` was called with this, and did not throw. */
  hasHead(args: readonly unknown[]): void;
  /** `write` is about to be called with this. */
  writes(chunk: unknown, encoding: unknown): void;
  /** `end` is about to be called with this. */
  ends(chunk: unknown, encoding: unknown): void;
  /** `end` threw: the response goes on. */
  goesOn(): void;
}

const { watchers, telling } = shared('responses.1', () => ({
  watchers: new WeakMap<object, Watcher>(),
  /** Whether what inherits from a prototype tells. */
  telling: new WeakMap<object, boolean>(),
}));

/** Whether a response has somebody who watches it by its prototype. */
export function isWatched(outgoing: ServerResponse): boolean {
  return watchers.has(outgoing);
}

/** Ends the watch. An entry of what ended long ago would keep all that it leads to alive through a collection or two. */
export function unwatch(outgoing: ServerResponse): void {
  watchers.delete(outgoing);
}

/** Whether a response inherits what tells. If not, those after it will. */
export function tells(outgoing: ServerResponse): boolean {
  const prototype = Object.getPrototypeOf(outgoing) as object;
  const known = telling.get(prototype);
  if (known === undefined) {
    prepare(prototype);
  }
  return known === true;
}

/** Has a response watched, unless it cannot be so: what has wrapped its methods before is not to be gone around. */
export function watchInherited(outgoing: ServerResponse, watcher: Watcher): boolean {
  const prototype = Object.getPrototypeOf(outgoing) as object;
  const known = telling.get(prototype);
  const inherits =
    (known ?? prepare(prototype)) &&
    !Object.hasOwn(outgoing, 'write') &&
    !Object.hasOwn(outgoing, 'end') &&
    // What wraps this calls what it found, which told already if the prototype was known.
    (known === true || !Object.hasOwn(outgoing, 'writeHead'));
  if (inherits) {
    watchers.set(outgoing, watcher);
  }
  return inherits;
}

/** Has what inherits from a prototype tell; false where it is one of Node's. */
function prepare(prototype: object): boolean {
  const framework = prototypeOfFramework(prototype);
  if (framework !== undefined && !telling.has(framework)) {
    wrap(framework, 'write', (method, response, args) => {
      watchers.get(response)?.writes(args[0], args[1]);
      return method.apply(response, args);
    });
    wrap(framework, 'end', (method, response, args) => {
      const watcher = watchers.get(response);
      watcher?.ends(args[0], args[1]);
      try {
        return method.apply(response, args);
      } catch (error) {
        watcher?.goesOn();
        throw error;
      }
    });
    wrap(framework, 'writeHead', (method, response, args) => {
      const returned = method.apply(response, args);
      watchers.get(response)?.hasHead(args);
      return returned;
    });
    telling.set(framework, true);
  }
  telling.set(prototype, framework !== undefined);
  return framework !== undefined;
}

/** What all responses of a framework inherit from, right before Node's own; absent where there is nothing between. */
function prototypeOfFramework(prototype: object): object | undefined {
  let framework: object | undefined;
  let each: object | null = prototype;
  while (each !== null && each !== ServerResponse.prototype) {
    framework = each;
    each = Object.getPrototypeOf(each) as object | null;
  }
  return each === null ? undefined : framework;
}

type Method = (this: ServerResponse, ...args: unknown[]) => unknown;

function wrap(
  framework: object,
  name: 'write' | 'end' | 'writeHead',
  call: (method: Method, response: ServerResponse, args: unknown[]) => unknown,
): void {
  const own = Object.getOwnPropertyDescriptor(framework, name)?.value as Method | undefined;
  const inherited = Object.getPrototypeOf(framework) as Record<typeof name, Method>;
  const value: Method = function (...args) {
    return call(own ?? inherited[name], this, args);
  };
  Object.defineProperty(framework, name, { configurable: true, writable: true, value });
}
