import { Ingestion } from 'dodo-ingestion';

export const ingestion = new Ingestion({ eventName: 'api_call' });
