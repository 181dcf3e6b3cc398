/** Makes metadata fit: an event that is refused is a call that is not billed. */

import { isDate } from 'node:util/types';
import { type MetadataValue, notRecord } from '../event';
import { METADATA } from '../options';
import { reason } from '../warn';

/** The keys that a middleware writes itself. Nobody else's value goes under one of them. */
const OWN_KEYS: ReadonlySet<string> = new Set([
  'endpoint',
  'method',
  'status_code',
  'response_time_ms',
  'ttfb_ms',
  'response_bytes',
  'aborted',
  'units',
  'grpc_status',
]);

/** Text of at most the length that a metadata value may have, in whole characters. */
export function cut(text: string, characters = METADATA.valueCharacters): string {
  if (text.length > characters) {
    let length = 0;
    let counted = 0;
    for (const character of text) {
      counted += 1;
      if (counted > characters) {
        return text.slice(0, length).toWellFormed();
      }
      length += character.length;
    }
  }
  return text.isWellFormed() ? text : text.toWellFormed();
}

/** The pairs of what is said to be metadata, or why it has none. Reading it runs what its owner wrote. */
export function read(said: object): { pairs: object } | { why: string } {
  try {
    const why = notRecord(said);
    return why === undefined ? { pairs: { ...said } } : { why };
  } catch (error) {
    return { why: `cannot be read: ${reason(error)}` };
  }
}

/** Adds the user's pairs, and tells of those that are not as they were. */
export function add(
  metadata: Record<string, MetadataValue>,
  pairs: object,
  alters: (key: string, why: string) => void,
): void {
  let count = OWN_KEYS.size;
  for (const [key, value] of Object.entries(pairs) as [string, unknown][]) {
    if (value === undefined || value === null) {
      continue;
    }
    const fits = fitting(key, value);
    if ('why' in fits) {
      alters(key, fits.why);
    } else if (count === METADATA.pairs) {
      alters(key, `left out: an event has at most ${METADATA.pairs} pairs`);
    } else {
      count += 1;
      metadata[key] = fits.value;
      if (fits.value !== value) {
        alters(key, `cut to ${METADATA.valueCharacters} characters`);
      }
    }
  }
}

function fitting(key: string, value: unknown): { value: MetadataValue } | { why: string } {
  if (OWN_KEYS.has(key)) {
    return { why: 'left out: the middleware writes this key itself' };
  }
  if (key === '' || key !== cut(key, METADATA.keyCharacters)) {
    return { why: `left out: a key has 1 to ${METADATA.keyCharacters} characters` };
  }
  switch (typeof value) {
    case 'string':
      return { value: cut(value) };
    case 'boolean':
      return { value };
    case 'number':
      return Number.isFinite(value) ? { value } : { why: 'left out: no number' };
    case 'bigint':
      return BigInt.asIntN(64, value) === value
        ? { value }
        : { why: 'left out: an integer has 64 bits' };
    default:
      return isDate(value) && !Number.isNaN(value.getTime())
        ? { value }
        : { why: 'left out: a value is text, a number or a boolean' };
  }
}
