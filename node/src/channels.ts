import { channel } from 'node:diagnostics_channel';

/**
 * Where every alarm is told as well.
 *
 * @internal
 */
export const ALARMS = channel('dodo-ingestion:alarm');

/**
 * Where every call is told, accepted or refused: with the receipt of a track verb, or of a batch with the
 * error that it swallows.
 *
 * @internal
 */
export const TRACKED = channel('dodo-ingestion:track');
