/**
 * An API call's fields in the one piece of memory that the addon reads: `bindings/napi/src/api_call.rs` says what stands
 * where, and why it crosses so.
 */

import type { Call } from './metering/options';

const NUMBERS = 9;
/** More than the text of any call that fits the limits. What has more goes the way of any event. */
const TEXT_BYTES = 2048;

const bytes = new Uint8Array(NUMBERS * Float64Array.BYTES_PER_ELEMENT + TEXT_BYTES);
const numbers = new Float64Array(bytes.buffer, 0, NUMBERS);
let end = 0;

/** The record of a call, until the next is made; `undefined` where it has text that is not ASCII, or much of it. */
export function recordOf(
  customerId: string,
  eventName: string | undefined,
  call: Call,
  ttfbMs: number | undefined,
): Uint8Array | undefined {
  end = numbers.byteLength;
  numbers[0] = call.responseTimeMs;
  numbers[1] = ttfbMs ?? Number.NaN;
  numbers[2] = call.responseBytes ?? Number.NaN;
  numbers[3] = call.statusCode ?? Number.NaN;
  numbers[4] = call.aborted ? 1 : Number.NaN;
  const fits =
    puts(5, customerId) && puts(6, eventName) && puts(7, call.endpoint) && puts(8, call.method);
  return fits ? bytes : undefined;
}

/** Puts text behind that before, and its length among the numbers. */
function puts(at: number, text: string | undefined): boolean {
  if (text === undefined) {
    numbers[at] = Number.NaN;
    return true;
  }
  const { length } = text;
  if (end + length > bytes.length) {
    return false;
  }
  for (let index = 0; index < length; index += 1) {
    const code = text.charCodeAt(index);
    if (code > 0x7f) {
      return false;
    }
    bytes[end + index] = code;
  }
  numbers[at] = length;
  end += length;
  return true;
}
