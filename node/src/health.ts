/** Whether the billing API is there. The core has no verb for it: it learns by sending. */

const WITHIN = 10_000;
/** How long an answer is given again: the key's budget of requests is not this one's, and each process asks. */
const HOLDS = 60_000;

const answers = new Map<string, Promise<boolean>>();

/** @internal */
export function healthy(baseUrl: string, key: string | undefined): Promise<boolean> {
  const asked = `${key} ${baseUrl}`;
  let answer = answers.get(asked);
  if (answer === undefined) {
    answer = ask(baseUrl, key);
    answers.set(asked, answer);
    answer.then(() => setTimeout(() => answers.delete(asked), HOLDS).unref());
  }
  return answer;
}

async function ask(baseUrl: string, key: string | undefined): Promise<boolean> {
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
