/** The errors: one class for each kind, all of them an {@link IngestionError}. */

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

/** What went wrong, by kind. */
export abstract class IngestionError extends Error {
  /** The kind, the same in every language. */
  abstract readonly kind: ErrorKind;
  /** The option or the part of the event that is to blame, such as `metadata.endpoint`. */
  readonly field: string | undefined;
  /** The billing API's HTTP status, if it answered. */
  readonly statusCode: number | undefined;
  /** Whether the call may be billed in spite of the error. */
  readonly mayBeBilled: boolean;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message);
    this.name = new.target.name;
    this.field = details.field;
    this.statusCode = details.statusCode;
    this.mayBeBilled = details.mayBeBilled ?? false;
  }
}

/** An option is unknown, missing or out of range, or contradicts another. */
export class ConfigurationError extends IngestionError {
  readonly kind = 'configuration';
}

/** The event breaks a limit of the billing API and was not accepted. */
export class ValidationError extends IngestionError {
  readonly kind = 'validation';
}

/** The billing API's own answer is the reason. */
export abstract class APIError extends IngestionError {}

/** The billing API does not take the key. */
export class AuthenticationError extends APIError {
  readonly kind = 'authentication';
}

/** The billing API refused the call. */
export class RejectedError extends APIError {
  readonly kind = 'rejected';
}

/** The call alone is larger than the billing API takes. */
export class TooLargeError extends APIError {
  readonly kind = 'too_large';
}

/** The spool is full, and the call was not accepted. */
export class OverflowError extends IngestionError {
  readonly kind = 'overflow';
}

/** The spool could not be written. */
export class StorageError extends IngestionError {
  readonly kind = 'storage';
}

/** The time given was not enough. What was accepted stays spooled. */
export class TimeoutError extends IngestionError {
  readonly kind = 'timeout';
}

/** The billing API could not be reached. */
export class NetworkError extends IngestionError {
  readonly kind = 'network';
}

/** The client or the batch has been closed. */
export class ClosedError extends IngestionError {
  readonly kind = 'closed';
}

const BY_KIND: Record<ErrorKind, new (message: string, details?: ErrorDetails) => IngestionError> =
  {
    configuration: ConfigurationError,
    validation: ValidationError,
    authentication: AuthenticationError,
    rejected: RejectedError,
    too_large: TooLargeError,
    overflow: OverflowError,
    storage: StorageError,
    timeout: TimeoutError,
    network: NetworkError,
    closed: ClosedError,
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

/**
 * The error that the addon means by what it threw.
 *
 * @internal
 */
export function fromNative(thrown: unknown): unknown {
  if (!(thrown instanceof Error) || (thrown as NodeJS.ErrnoException).code !== CODE) {
    return thrown;
  }
  const { kind, message, field, status, mayBeBilled } = JSON.parse(thrown.message) as Thrown;
  const details = { field: field ?? undefined, statusCode: status ?? undefined, mayBeBilled };
  return new BY_KIND[kind](message, details);
}
