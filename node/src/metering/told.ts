/** What handlers and other middleware say of a call that is under way. The last word wins. */

import { IncomingMessage } from 'node:http';
import { isPromise } from 'node:util/types';
import { shared } from '../shared';
import { read } from './metadata';
import type { Metadata } from './options';

export interface Told {
  customer?: string;
  units?: number;
  endpoint?: string | undefined;
  metadata?: Metadata;
  /** Why what was said to be metadata is none. */
  noMetadata?: string[];
  /** Finds the route of a connection that was taken in hand before a framework saw it. */
  template?: () => string | undefined;
  skip?: boolean;
  /** A middleware has it in hand: a second one lets it through. */
  metered?: boolean;
  /** What the framework's file keeps of it. */
  kept?: unknown;
}

/** By the object that stands for the request all along. */
const calls = shared('calls.1', () => new WeakMap<object, Told>());

/** Where a request of Node keeps it: in a weak map it costs V8 more than all the rest of taking a request in hand. */
const TOLD: unique symbol = Symbol.for('dodo-ingestion.told.1');

interface Kept {
  [TOLD]?: Told | undefined;
}

/** What was said of a request, if anything was. */
export function knownOf(key: object): Told | undefined {
  return calls.get(key) ?? (key as Kept)[TOLD];
}

export function toldOf(key: object): Told {
  let told = knownOf(key);
  if (told === undefined) {
    told = {};
    keep(key, told);
  }
  return told;
}

/** Has another object stand for a call, too, with what was said of it so far. */
export function join(key: object, told: Told): void {
  keep(key, Object.assign(told, knownOf(key)));
}

/** Has a request of `fetch` stand for no call. */
export function forget(key: object): void {
  calls.delete(key);
}

function keep(key: object, told: Told): void {
  // One that a framework gave a prototype of its own has a shape of its own, which one property more has to copy.
  if (Object.getPrototypeOf(key) === IncomingMessage.prototype) {
    (key as Kept)[TOLD] = told;
  } else {
    calls.set(key, told);
  }
}

/** How handlers speak of a call, with the framework's request in their hands. */
export interface Tellers<Request> {
  /** Says whose call it is. Wins over the option `customer`. */
  setCustomer(request: Request, customerId: string): void;
  /** Says how much the call counts: `units` in its metadata, which a meter can sum. */
  setUnits(request: Request, units: number): void;
  /** Adds metadata pairs. They win over those of the option `metadata`. */
  setMetadata(request: Request, metadata: Metadata): void;
  /** Gives the route's template where the framework cannot know it. */
  setEndpoint(request: Request, template: string): void;
  /** Leaves the call out: no event at all. */
  skipMetering(request: Request): void;
}

/** The same for a framework, given which object stands for its request all along. */
export function tellers<Request>(keyOf: (request: Request) => object): Tellers<Request> {
  return {
    setCustomer: (request, customerId) => {
      toldOf(keyOf(request)).customer = heard(customerId);
    },
    setUnits: (request, units) => {
      toldOf(keyOf(request)).units = heard(units);
    },
    setMetadata: (request, metadata) => {
      const told = toldOf(keyOf(request));
      const found = metadata ? read(heard(metadata)) : { pairs: {} };
      if ('pairs' in found) {
        told.metadata = { ...told.metadata, ...found.pairs };
      } else {
        told.noMetadata = [...(told.noMetadata ?? []), found.why];
      }
    },
    setEndpoint: (request, template) => {
      toldOf(keyOf(request)).endpoint = heard(template);
    },
    skipMetering: (request) => {
      toldOf(keyOf(request)).skip = true;
    },
  };
}

/** What was said. A promise is of no use, and if it rejects, that must not end the process. */
function heard<T>(said: T): T {
  if (typeof said === 'object' && isPromise(said)) {
    said.then(undefined, () => {});
  }
  return said;
}
