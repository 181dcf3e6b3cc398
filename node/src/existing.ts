/** What programs that were written for `@dodopayments/ingestion-blueprints` need to compile. */

import type { Batch, BatchOptions } from './batch';
import type { Event, Metadata } from './event';
import { type Ingestion, type IngestionOptions, createBatch as openBatch } from './ingestion';
import {
  type LLMTracker,
  createLLMTracker as openTracker,
  type TrackerOptions,
} from './llm/tracker';

/** The options of a client that has its key and its event name from the program. */
export interface IngestionConfig extends IngestionOptions {
  apiKey: string;
  eventName: string;
}

/** The options of a client that needs no event name: each event has its own. */
export interface DodoConfig extends IngestionOptions {
  apiKey: string;
}

/** The tokens of one answer. Nothing takes or gives one. */
export interface TokenUsage {
  inputTokens: number;
  outputTokens: number;
  totalTokens: number;
  model: string;
}

/** Opens a batch. `ReturnType` gives the last form, which a program's own tests may stand in for. */
export const createBatch: {
  (ingestion: Ingestion, options?: BatchOptions): Batch;
  (
    ingestion: Ingestion,
    options?: BatchOptions,
  ): {
    add: (event: Event) => void;
    flush: () => Promise<void>;
    cleanup: () => Promise<void>;
  };
} = openBatch;

/** Makes a tracker of language models' usage. `ReturnType` gives the last form, as above. */
export const createLLMTracker: {
  (options: TrackerOptions): LLMTracker;
  (
    options: TrackerOptions,
  ): {
    wrap: LLMTracker['wrap'];
    track: (response: unknown, customerId: string, metadata?: Metadata) => Promise<void>;
    healthCheck: () => Promise<boolean>;
  };
} = openTracker;
