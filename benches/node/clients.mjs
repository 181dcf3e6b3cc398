// The clients that are compared. Each is loaded only by the process that is its contender.

import { EVENT_NAME } from './event.mjs';

const API_KEY = 'sk_test_benchmark';
/** How long a flush may take, in milliseconds. */
export const PATIENCE = { timeout: 300_000 };

/** Ours, with the pace of requests out of the way, as nobody paces the others. */
export async function ours({ baseUrl, dir }) {
  const { Ingestion } = await import('../../node/dist/index.mjs');
  return new Ingestion({
    apiKey: API_KEY,
    baseUrl,
    eventName: EVENT_NAME,
    spoolDir: dir,
    requestsPerMinute: 1_000_000,
    requestsPerSecond: 100_000,
  });
}

/** The batch of the package that users have today. Its hosts are its own, so they are rewritten. */
export async function blueprints({ baseUrl }, options) {
  const { redirect } = await import('../../tests/strangers/node/redirect.mjs');
  redirect('test.dodopayments.com', baseUrl);
  const { createBatch, Ingestion } = await import('@dodopayments/ingestion-blueprints');
  const environment = 'test_mode';
  return createBatch(
    new Ingestion({ apiKey: API_KEY, environment, eventName: EVENT_NAME }),
    options,
  );
}

/** The official SDK. */
export async function sdk({ baseUrl }) {
  const { DodoPayments } = await import('dodopayments');
  return new DodoPayments({ bearerToken: API_KEY, baseURL: baseUrl });
}

/** PostHog's, uncompressed, so that the server can count. */
export async function posthog({ baseUrl }) {
  const { PostHog } = await import('posthog-node');
  const client = new PostHog(API_KEY, { host: baseUrl, disableCompression: true });
  client.on('error', (error) => {
    throw error;
  });
  return client;
}
