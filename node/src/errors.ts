/** The errors: one class for each kind, all of them an {@link IngestionError}. */

import { camelOf, snakeOf } from './names';
import { OPTION_NAMES } from './options';

/** The kinds of error, the same in every language. */
export type ErrorKind =
  | 'configuration'
  | 'validation'
  | 'authentication'
  | 'rejected'
  | 'too_large'
  | 'overflow'
  | 'storage'
  | 'timeout'
  | 'network'
  | 'closed';

/** What is known of an error besides its message. */
export interface ErrorDetails {
  /** The option or the part of the event that is to blame, such as `metadata.endpoint`. */
  field?: string | undefined;
  /** The billing API's HTTP status, if it answered. */
  statusCode?: number | undefined;
  /** Whether the call may be billed in spite of the error. */
  mayBeBilled?: boolean;
}

/** What went wrong. */
export class DodoIngestionError extends Error {
  /** The class of the error, such as `VALIDATION_ERROR`. */
  code: string;
  /** The billing API's HTTP status; 400 of what is not valid, 500 of what is set up wrongly. */
  statusCode?: number | undefined;
  /** What is known besides. */
  // biome-ignore lint/suspicious/noExplicitAny: programs look into it without a check
  details?: any;

  constructor(message: string, code: string, statusCode?: number, details?: unknown) {
    super(message);
    this.name = new.target.name;
    this.code = code;
    this.statusCode = statusCode;
    this.details = details;
  }
}

/** What went wrong, by kind. */
export abstract class IngestionError extends DodoIngestionError {
  /** The kind, the same in every language. */
  abstract readonly kind: ErrorKind;
  /** The option or the part of the event that is to blame, such as `metadata.endpoint`. */
  readonly field: string | undefined;
  /** Whether the call may be billed in spite of the error. */
  readonly mayBeBilled: boolean;

  constructor(message: string, code: string, statusCode?: number, details?: unknown) {
    super(message, code, statusCode, details);
    const { field, mayBeBilled } = Object(details) as ErrorDetails;
    this.field = field;
    this.mayBeBilled = mayBeBilled ?? false;
  }
}

/** An option is unknown, missing or out of range, or contradicts another. */
export class ConfigurationError extends IngestionError {
  readonly kind = 'configuration';

  constructor(message: string, details?: unknown) {
    super(message, 'CONFIGURATION_ERROR', 500, details);
  }
}

/** The event breaks a limit of the billing API and was not accepted. */
export class ValidationError extends IngestionError {
  readonly kind = 'validation';

  constructor(message: string, details?: unknown) {
    super(message, 'VALIDATION_ERROR', 400, details);
  }
}

/** A provider of language models is to blame. Nothing here throws it; programs do. */
export class ProviderError extends DodoIngestionError {
  constructor(message: string, details?: unknown) {
    super(message, 'PROVIDER_ERROR', 500, details);
  }
}

/** The billing API's own answer is the reason. */
export class APIError extends IngestionError {
  readonly kind: 'authentication' | 'rejected' | 'too_large' = 'rejected';

  constructor(message: string, statusCode?: number, details?: unknown) {
    super(message, 'API_ERROR', statusCode, details);
  }
}

/** The billing API does not take the key. */
export class AuthenticationError extends APIError {
  override readonly kind = 'authentication';
}

/** The billing API refused the call. */
export class RejectedError extends APIError {
  override readonly kind = 'rejected';
}

/** The call alone is larger than the billing API takes. */
export class TooLargeError extends APIError {
  override readonly kind = 'too_large';
}

/** The spool is full, and the call was not accepted. */
export class OverflowError extends IngestionError {
  readonly kind = 'overflow';

  constructor(message: string, details?: ErrorDetails) {
    super(message, 'OVERFLOW_ERROR', details?.statusCode, details);
  }
}

/** The spool could not be written. */
export class StorageError extends IngestionError {
  readonly kind = 'storage';

  constructor(message: string, details?: ErrorDetails) {
    super(message, 'STORAGE_ERROR', details?.statusCode, details);
  }
}

/** The time given was not enough. What was accepted stays spooled. */
export class TimeoutError extends IngestionError {
  readonly kind = 'timeout';

  constructor(message: string, details?: ErrorDetails) {
    super(message, 'TIMEOUT_ERROR', details?.statusCode, details);
  }
}

/** The billing API could not be reached. */
export class NetworkError extends IngestionError {
  readonly kind = 'network';

  constructor(message: string, details?: ErrorDetails) {
    super(message, 'NETWORK_ERROR', details?.statusCode, details);
  }
}

/** The client has been closed. */
export class ClosedError extends IngestionError {
  readonly kind = 'closed';

  constructor(message: string, details?: ErrorDetails) {
    super(message, 'CLOSED_ERROR', details?.statusCode, details);
  }
}

type Made = (message: string, details: ErrorDetails) => IngestionError;

const BY_KIND: Record<ErrorKind, Made> = {
  configuration: (message, details) => new ConfigurationError(message, details),
  validation: (message, details) => new ValidationError(message, details),
  authentication: (message, details) =>
    new AuthenticationError(message, details.statusCode, details),
  rejected: (message, details) => new RejectedError(message, details.statusCode, details),
  too_large: (message, details) => new TooLargeError(message, details.statusCode, details),
  overflow: (message, details) => new OverflowError(message, details),
  storage: (message, details) => new StorageError(message, details),
  timeout: (message, details) => new TimeoutError(message, details),
  network: (message, details) => new NetworkError(message, details),
  closed: (message, details) => new ClosedError(message, details),
};

/** The code of the addon's errors, whose message is JSON. */
const CODE = 'DODO_INGESTION';

interface Thrown {
  kind: ErrorKind;
  message: string;
  field: string | null;
  status: number | null;
  mayBeBilled: boolean;
}

/** Names of the core, which are in camel case here. */
const CORE_NAMES = new Set(
  [...OPTION_NAMES, 'maxSize', 'flushInterval', 'customerId', 'eventId'].map((name) =>
    snakeOf(name),
  ),
);

/** Words in snake case. One behind a point is a metadata key of the caller's own. */
const WORDS = /(?<![.\w])[a-z]+(?:_[a-z]+)+\b/g;

function inCamelCase(text: string): string {
  return text.replace(WORDS, (word) => (CORE_NAMES.has(word) ? camelOf(word) : word));
}

/**
 * The error that the addon means by what it threw.
 *
 * @internal
 */
export function fromNative(thrown: unknown): unknown {
  // Not `instanceof Error`: a test runner may have loaded this file in another realm than the addon.
  const error = Object(thrown) as NodeJS.ErrnoException;
  if (error.code !== CODE) {
    return thrown;
  }
  const { kind, message, field, status, mayBeBilled } = JSON.parse(error.message) as Thrown;
  const details = { field: field ?? undefined, statusCode: status ?? undefined, mayBeBilled };
  // The billing API's own words stay as they are.
  if (kind === 'configuration' || kind === 'validation') {
    details.field &&= inCamelCase(details.field);
    return BY_KIND[kind](inCamelCase(message), details);
  }
  return BY_KIND[kind](message, details);
}

/**
 * Why a call was not accepted, whatever was thrown: a getter of the caller's may throw anything.
 *
 * @internal
 */
export function refusal(thrown: unknown): IngestionError {
  const error = fromNative(thrown);
  if (error instanceof IngestionError) {
    return error;
  }
  const refused = new ValidationError(`event: it cannot be read: ${wordsOf(thrown)}`, {
    field: 'event',
  });
  return Object.assign(refused, { cause: thrown });
}

/**
 * What something thrown says. Never throws itself.
 *
 * @internal
 */
export function wordsOf(thrown: unknown): string {
  try {
    const { message } = Object(thrown) as Error;
    return typeof message === 'string' ? message : String(thrown);
  } catch {
    return typeof thrown;
  }
}
