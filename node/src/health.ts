/** Whether the billing API is there. The core has no verb for it: it learns by sending. */

const WITHIN = 10_000;

/** @internal */
export async function healthy(baseUrl: string, key: string | undefined): Promise<boolean> {
  try {
    const response = await fetch(`${baseUrl}/events?page_size=1`, {
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
