// The call that is measured: the same as that of the Rust benches.

import { randomUUID } from 'node:crypto';

export const EVENT_NAME = 'api_call';
const CUSTOMERS = Array.from(
  { length: 64 },
  (_, number) => `cus_9VuW4K7O3GHwasENg${String(number).padStart(3, '0')}`,
);

/** Whose call the one with this number is. */
export function customer(number) {
  return CUSTOMERS[number % CUSTOMERS.length];
}

/** What is known of the call with this number. */
export function metadata(number) {
  return {
    endpoint: '/v1/customers/{id}/documents/{document}',
    method: 'GET',
    status_code: 200,
    response_time_ms: (100_000 + (number % 50_000)) / 1000,
    response_bytes: 18_432,
  };
}

/** The call, as a batch takes it. */
export function call(number) {
  return { customerId: customer(number), metadata: metadata(number) };
}

/** The event, as the billing API takes it. */
export function event(number) {
  return {
    event_id: randomUUID(),
    customer_id: customer(number),
    event_name: EVENT_NAME,
    timestamp: new Date().toISOString(),
    metadata: metadata(number),
  };
}

/** The call, as PostHog takes it. */
export function capture(number) {
  return { distinctId: customer(number), event: EVENT_NAME, properties: metadata(number) };
}
