import { trackAPICall } from 'dodo-ingestion';

export function serve(ingestion, customerId) {
  return trackAPICall(ingestion, { customerId, metadata: { endpoint: '/', at: new Date(0) } });
}
