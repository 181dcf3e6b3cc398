/**
 * Usage metering for API gateways and web apps, billed with Dodo Payments.
 *
 * A track verb returns in microseconds, when the call is safe from a crash of this process.
 * Delivery happens in the background; the receipt that a track verb returns can wait for it.
 *
 * @packageDocumentation
 */

export { Batch, type BatchOptions } from './batch';
export {
  APIError,
  AuthenticationError,
  ClosedError,
  ConfigurationError,
  type ErrorDetails,
  type ErrorKind,
  IngestionError,
  NetworkError,
  OverflowError,
  RejectedError,
  StorageError,
  TimeoutError,
  TooLargeError,
  ValidationError,
} from './errors';
export type { Event, MetadataValue } from './event';
export {
  type AlarmListener,
  createBatch,
  Ingestion,
  type IngestionOptions,
  type OptionValue,
  type Stats,
  trackAPICall,
} from './ingestion';
export { Receipt } from './receipt';
export type { WaitOptions } from './wait';
