/** Written by `cargo xtask gen` from the table of options, the counts and the limits in crates/dodo-ingestion. */

/** Options that the core defines. One that is absent comes from its environment variable. */
export interface Options {
  /**
   * The billing API's secret key. Required. Never stored, logged or shown.
   */
  apiKey?: string | undefined;
  /**
   * Which of the provider's two environments is billed. Nothing is charged in test_mode.
   */
  environment?: 'test_mode' | 'live_mode' | undefined;
  /**
   * Where the billing API is; overrides the environment's own address. https only, except http to this machine itself, or to a named host with allowHttp.
   */
  baseUrl?: string | undefined;
  /**
   * The event name of calls without one of their own. Required. Must equal the meter's event name exactly, case included.
   */
  eventName?: string | undefined;
  /**
   * A name for the business that is billed: 1 to 40 letters, digits, - or _. By default derived from the API key; naming it lets calls spooled under an old key be delivered with a new one.
   */
  account?: string | undefined;
  /**
   * The directory under which accepted calls are kept until they are billed. By default the platform's directory for state.
   */
  spoolDir?: string | undefined;
  /**
   * File systems that spoolDir may be on although they are on another machine or in a container's layer, such as nfs or overlay, separated by commas. Only one machine at a time may use a spoolDir.
   */
  allowFilesystem?: string | undefined;
  /**
   * What an accepted call survives. process: the death of this process. disk: also a crash of the machine (each call waits for a sync). memory: neither (for hosts without a disk; at most 16 MiB).
   */
  durability?: 'process' | 'disk' | 'memory' | undefined;
  /**
   * How long a single call may wait for others to share its request.
   *
   * Milliseconds, 0 to 300000.
   */
  linger?: number | undefined;
  /**
   * How much disk the calls of one account may take. Beyond it the newest calls are refused with overflow.
   *
   * Bytes, 1048576 to 1099511627776.
   */
  maxSpoolBytes?: number | undefined;
  /**
   * Whether baseUrl may be plain http to another host than this machine. Never in live_mode.
   */
  allowHttp?: boolean | undefined;
  /**
   * At most this many requests start in any 60 seconds. The provider allows 100 a key.
   *
   * 1 to 1000000.
   */
  requestsPerMinute?: number | undefined;
  /**
   * At most this many requests start in any second. The provider allows 10 a key.
   *
   * 1 to 100000.
   */
  requestsPerSecond?: number | undefined;
  /**
   * How long one request may take, answer included, before it is tried again.
   *
   * Milliseconds, 100 to 300000.
   */
  requestTimeout?: number | undefined;
  /**
   * What happens to a call older than 55 minutes: the billing API accepts an hour, of which five minutes are left for the way. restamp: it is billed with the oldest time accepted, and keeps its own as original_timestamp. dead_letter: it is dead-lettered.
   */
  late?: 'restamp' | 'dead_letter' | undefined;
  /**
   * How long the natural end of the host program may wait for calls to be billed (a program in Rust calls close instead). What is left stays spooled.
   *
   * Milliseconds, 0 to 300000.
   */
  exitTimeout?: number | undefined;
}

/** Counts of what has happened so far. */
export interface Stats {
  /** Calls accepted. */
  readonly accepted: number;
  /** Calls that the billing API acknowledged. */
  readonly billed: number;
  /** Calls that the billing API refused for good. */
  readonly deadLettered: number;
  /** Calls that wait; also those that another process may have delivered, since the host closed the files of the spool. */
  readonly spooled: number;
  /** Calls refused here, because they break a limit. */
  readonly invalid: number;
  /** Calls refused here, because the spool was full, or the disk did not take them. */
  readonly overflowed: number;
  /** Requests started. */
  readonly requests: number;
  /** Requests that have to be made again. */
  readonly retries: number;
  /** Calls billed with a later time than their own, because they were too old. */
  readonly restamped: number;
  /** Calls lost to damage of the disk; what could be read of them lies in quarantine. */
  readonly quarantined: number;
  /** Alarms raised, repetitions included. */
  readonly alarms: number;
}

/**
 * The names of the options.
 *
 * @internal
 */
export const OPTION_NAMES: readonly string[] = [
  'apiKey',
  'environment',
  'baseUrl',
  'eventName',
  'account',
  'spoolDir',
  'allowFilesystem',
  'durability',
  'linger',
  'maxSpoolBytes',
  'allowHttp',
  'requestsPerMinute',
  'requestsPerSecond',
  'requestTimeout',
  'late',
  'exitTimeout',
];

/**
 * Milliseconds for which the core waits where nobody says how long.
 *
 * @internal
 */
export const DEFAULT_TIMEOUT = 30000;

/**
 * The most characters of an event's name and of a customer's id.
 *
 * @internal
 */
export const IDENTIFIER_CHARACTERS = 255;

/**
 * The billing API's limits of an event's metadata.
 *
 * @internal
 */
export const METADATA = { keyCharacters: 100, pairs: 50, valueCharacters: 500 };
