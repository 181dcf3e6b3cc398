import { createBatch, DodoClient, Ingestion, type WaitOptions } from 'dodo-ingestion';

export async function bill(signal: AbortSignal): Promise<void> {
  const told: string[] = [];
  const onAlarm = (kind: string, message: string) => told.push(`${kind}: ${message}`);
  await using ingestion = new Ingestion({ eventName: 'api_call', onAlarm });
  await using batch = createBatch(ingestion);
  using other = createBatch(ingestion);
  await using client = new DodoClient({});
  const wait: WaitOptions = { signal, timeout: 500 };
  await Promise.all([ingestion.flush(wait), batch.flush(wait), other.cleanup({ signal })]);
  await client.close(wait);
}
