/** Whether the billing API is there. The core has no verb for it: it learns by sending. */

import type { IngestionOptions } from './ingestion';

const HOSTS = {
  test_mode: 'https://test.dodopayments.com',
  live_mode: 'https://live.dodopayments.com',
};
const WITHIN = 10_000;

/** @internal */
export function environmentOf(options: IngestionOptions): keyof typeof HOSTS {
  const named = options.environment || process.env.DODO_PAYMENTS_ENVIRONMENT;
  return named === 'live_mode' ? 'live_mode' : 'test_mode';
}

/** @internal */
export async function healthy(options: IngestionOptions): Promise<boolean> {
  const base =
    options.baseUrl || process.env.DODO_PAYMENTS_BASE_URL || HOSTS[environmentOf(options)];
  const key = options.apiKey || process.env.DODO_PAYMENTS_API_KEY;
  try {
    const response = await fetch(`${String(base).replace(/\/+$/, '')}/events?page_size=1`, {
      headers: { authorization: `Bearer ${key}` },
      redirect: 'error',
      signal: AbortSignal.timeout(WITHIN),
    });
    await response.body?.cancel();
    return response.ok;
  } catch {
    return false;
  }
}
