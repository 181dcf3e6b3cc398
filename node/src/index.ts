/**
 * Usage metering for API gateways and web apps, billed with Dodo Payments.
 *
 * A track verb returns in microseconds, when the call is safe from a crash of this process.
 * Delivery happens in the background; the receipt that a track verb returns can wait for it.
 *
 * @packageDocumentation
 */

// The same types by the names that programs written for the existing package import.
export type { BatchOptions as CreateBatchOptions } from './batch';
export { Batch, type BatchOptions } from './batch';
export { DodoClient, type DodoEvent, type IngestResponse } from './client';
export {
  APIError,
  AuthenticationError,
  ClosedError,
  ConfigurationError,
  DodoIngestionError,
  type ErrorDetails,
  type ErrorKind,
  IngestionError,
  NetworkError,
  OverflowError,
  ProviderError,
  RejectedError,
  StorageError,
  TimeoutError,
  TooLargeError,
  ValidationError,
} from './errors';
export type { Event, Event as TrackAPICallOptions, Metadata, MetadataValue } from './event';
export {
  createBatch,
  createLLMTracker,
  type DodoConfig,
  type IngestionConfig,
  type IngestionConfig as TrackingConfig,
  type TokenUsage,
} from './existing';
export {
  type AlarmListener,
  Ingestion,
  type IngestionOptions,
  type Stats,
  trackAPICall,
} from './ingestion';
export type { WrapperConfig } from './llm/tracker';
export {
  LLMTracker,
  type TrackerOptions,
  type TrackOptions,
  type WrapOptions,
  wrapLLMClient,
} from './llm/tracker';
export { Receipt } from './receipt';
export type {
  ObjectStorage as TrackObjectStorageOptions,
  StreamBytes as TrackStreamBytesOptions,
  TimeRange as TrackTimeRangeOptions,
} from './siblings';
export {
  type ObjectStorage,
  type StreamBytes,
  type TimeRange,
  trackObjectStorage,
  trackStreamBytes,
  trackTimeRange,
} from './siblings';
export type { Verb, WaitOptions } from './wait';
