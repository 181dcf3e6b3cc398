/** What is billed besides calls: bytes and time, as events with a pair of their own. */

import { ValidationError, wordsOf } from './errors';
import { type Event, type MetadataValue, notRecord } from './event';
import type { Ingestion } from './ingestion';
import type { Receipt } from './receipt';

/** Bytes that were stored. */
export interface ObjectStorage extends Event {
  /** A whole number, at least 0. */
  bytes?: number | bigint | undefined;
}

/** Bytes that were streamed. */
export interface StreamBytes extends Event {
  /** A whole number, at least 0. */
  bytes?: number | bigint | undefined;
}

/** A length of time. Give the one by which the meter counts; none is made from another. */
export interface TimeRange extends Event {
  /** Milliseconds: a finite number, at least 0. */
  durationMs?: number | undefined;
  /** Seconds, likewise. */
  durationSeconds?: number | undefined;
  /** Minutes, likewise. */
  durationMinutes?: number | undefined;
}

/** Accepts bytes that were stored, as `bytes` in the metadata. */
export function trackObjectStorage(ingestion: Ingestion, options: ObjectStorage): Receipt {
  return measured(ingestion, options, { bytes: whole });
}

/** Accepts bytes that were streamed, as `bytes` in the metadata. */
export function trackStreamBytes(ingestion: Ingestion, options: StreamBytes): Receipt {
  return measured(ingestion, options, { bytes: whole });
}

/** Accepts a length of time, as `durationMs`, `durationSeconds` or `durationMinutes` in the metadata. */
export function trackTimeRange(ingestion: Ingestion, options: TimeRange): Receipt {
  const lengths = { durationMs: length, durationSeconds: length, durationMinutes: length };
  return measured(ingestion, options, lengths);
}

/** Why a value is none, or nothing. */
type Check = (value: unknown) => string | undefined;

const whole: Check = (value) =>
  (typeof value === 'bigint' || Number.isSafeInteger(value)) && (value as number) >= 0
    ? undefined
    : 'is not a whole number, at least 0';

const length: Check = (value) =>
  Number.isFinite(value) && (value as number) >= 0
    ? undefined
    : 'is not a finite number, at least 0';

/** Moves the named options to the metadata. A pair that is there already goes before. */
function measured(
  ingestion: Ingestion,
  options: Event,
  measures: Readonly<Record<string, Check>>,
): Receipt {
  let event: Event;
  try {
    event = withMeasures(options, measures);
  } catch (thrown) {
    return ingestion.refuse(thrown);
  }
  return ingestion.track(event);
}

function withMeasures(options: Event, measures: Readonly<Record<string, Check>>): Event {
  const event: Record<string, unknown> = { ...options };
  const pairs: Record<string, MetadataValue> = {};
  for (const [name, check] of Object.entries(measures)) {
    const value = event[name];
    delete event[name];
    if (value === undefined || value === null) {
      continue;
    }
    const why = check(value);
    if (why !== undefined) {
      throw new ValidationError(`${name}: ${wordsOf(value)} ${why}`, { field: name });
    }
    pairs[name] = value as MetadataValue;
  }
  const metadata = event.metadata ?? {};
  // What is no metadata is refused with the event.
  event.metadata = notRecord(metadata) === undefined ? { ...pairs, ...metadata } : metadata;
  return event as unknown as Event;
}
