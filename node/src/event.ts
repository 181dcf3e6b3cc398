/**
 * Events as the JSON that crosses to the core. Nothing is judged here: what JSON has no form for is
 * named beside the text, so that the core refuses it in its own words.
 */

import { isDate } from 'node:util/types';
import { ValidationError, wordsOf } from './errors';
import { native } from './load';
import type { Handle } from './native';

/** A metadata value. `undefined` and `null` are left out; a `Date` becomes ISO 8601 text. */
export type MetadataValue = string | number | bigint | boolean | Date | null | undefined;

/**
 * Metadata pairs, each with a {@link MetadataValue}: what is none is refused. Their type does not say so, as programs
 * hand over what has other types. They are read at the call: what becomes of the object later changes nothing.
 */
// biome-ignore lint/suspicious/noExplicitAny: as above
export type Metadata = Record<string, any>;

/** One billable call. */
export interface Event {
  /** The customer to bill. */
  customerId: string;
  /** What the customer's meters filter and sum. */
  metadata?: Metadata | null | undefined;
  /** The caller's own idempotency key. */
  eventId?: string | undefined;
  /** Another event name than the client's. */
  eventName?: string | undefined;
  /** When it happened; now, if absent. */
  timestamp?: Date | string | undefined;
}

/** @internal */
export interface Encoded {
  text: string;
  unsupportedKey?: string;
  unsupportedType?: string;
}

/**
 * An event's JSON for a client, which counts and tells what has none.
 *
 * @internal
 */
export function encodeFor(client: Handle<'Ingestion'>, event: Event): Encoded {
  try {
    return encode(event);
  } catch (thrown) {
    native.refuse(client, wordsOf(thrown));
    throw thrown;
  }
}

/** @internal */
export function encode(event: Event): Encoded {
  const { customerId, eventId, eventName, timestamp, metadata, ...others } = event;
  // All of one form, which costs half of what it costs to let each grow into it.
  const fields: Record<string, unknown> = {
    customer_id: written('customerId', customerId),
    event_id: written('eventId', eventId),
    event_name: written('eventName', eventName),
    timestamp: written('timestamp', timestamp),
    metadata,
  };
  // A name that is not ours crosses as it is, for the core to refuse.
  for (const [name, value] of Object.entries(others)) {
    // One of the core's own names would take the place of ours, as of a row that is spread into the call.
    if (Object.hasOwn(fields, name)) {
      throw new ValidationError(`${name}: is no field of an event; write it in camelCase`, {
        field: name,
      });
    }
    fields[name] = written(name, value);
  }
  if (typeof timestamp === 'object' && isDate(timestamp) && Number.isNaN(timestamp.getTime())) {
    fields.timestamp = 'Invalid Date';
  }
  if (metadata === undefined || metadata === null) {
    return { text: JSON.stringify(fields) };
  }
  const why = notRecord(metadata);
  if (why !== undefined) {
    throw new ValidationError(`metadata: ${why}`, { field: 'metadata' });
  }
  // One who inherits `toJSON` would be written as something else than what is looked at here.
  if (!('toJSON' in metadata) && areAllPlain(metadata)) {
    return { text: JSON.stringify(fields) };
  }
  const pairs: string[] = [];
  const encoded: Encoded = { text: '' };
  for (const [key, value] of Object.entries(metadata)) {
    const literal = isPlain(value) ? JSON.stringify(value) : special(value);
    if (literal !== undefined) {
      pairs.push(`${JSON.stringify(key)}:${literal}`);
    } else if (value !== undefined) {
      encoded.unsupportedKey = key;
      encoded.unsupportedType = describe(value);
    }
  }
  delete fields.metadata;
  const front = JSON.stringify(fields).slice(0, -1);
  encoded.text = `${front}${front === '{' ? '' : ','}"metadata":{${pairs.join()}}}`;
  return encoded;
}

/** What JSON writes of a field. No field is a number, and the core refuses one; others would be left out. */
function written(name: string, field: unknown): unknown {
  switch (typeof field) {
    case 'bigint':
      return Number(field);
    case 'function':
    case 'symbol':
      throw new ValidationError(`${name}: is a ${typeof field}, not text`, { field: name });
    default:
      return field;
  }
}

function areAllPlain(metadata: Metadata): boolean {
  // Without an array of them: this is what each call costs. One that is inherited is not written.
  for (const key in metadata) {
    if (!isPlain(metadata[key])) {
      return false;
    }
  }
  return true;
}

/** Whether `JSON.stringify` writes exactly what is meant. */
function isPlain(value: unknown): boolean {
  switch (typeof value) {
    case 'string':
      return value.isWellFormed();
    case 'number':
      // JavaScript writes whole numbers without a point, and the core would read an integer.
      return Number.isSafeInteger(value) || (Number.isFinite(value) && !Number.isInteger(value));
    case 'boolean':
    case 'undefined':
      return true;
    default:
      return value === null;
  }
}

/** The JSON of a value that `JSON.stringify` does not write as it is meant. */
function special(value: unknown): string | undefined {
  if (typeof value === 'bigint') {
    return BigInt.asIntN(64, value) === value ? value.toString() : undefined;
  }
  if (typeof value === 'number' && Number.isFinite(value)) {
    return value.toExponential();
  }
  if (isDate(value) && !Number.isNaN(value.getTime())) {
    return `"${value.toISOString()}"`;
  }
  return undefined;
}

function describe(value: unknown): string {
  switch (typeof value) {
    case 'string':
      return 'string with a lone surrogate';
    case 'number':
      return String(value);
    case 'bigint':
      return 'bigint of more than 64 bits';
    case 'object':
      return isDate(value) ? 'Invalid Date' : Array.isArray(value) ? 'array' : 'object';
    default:
      return typeof value;
  }
}

/**
 * Why something is no metadata: its pairs are to be its own properties, as they are not in a `Map` or in `Headers`.
 *
 * @internal
 */
export function notRecord(metadata: unknown): string | undefined {
  if (typeof metadata !== 'object' || metadata === null) {
    return `is a ${typeof metadata}, not an object`;
  }
  if (Array.isArray(metadata)) {
    return 'is an array, not an object';
  }
  const prototype: unknown = Object.getPrototypeOf(metadata);
  // The last prototype is that of object literals, of whichever realm.
  const plain = prototype === null || Object.getPrototypeOf(prototype) === null;
  if (Symbol.iterator in metadata || !(plain || Object.keys(metadata).length > 0)) {
    const name = (prototype as object | null)?.constructor?.name ?? 'object';
    return `is a ${name}, whose pairs are not its own properties; use Object.fromEntries`;
  }
  return undefined;
}
