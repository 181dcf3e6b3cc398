import { Ingestion } from 'dodo-ingestion';
import { meter } from 'dodo-ingestion/next';

const ingestion = new Ingestion({ environment: 'test_mode' });

export const withMeter = meter(ingestion, { customer: 'x-customer-id' });
