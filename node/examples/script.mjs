// Bills what a job did: no web app, and an end. node script.mjs

import { createBatch, Ingestion } from 'dodo-ingestion';

const PAGES = 3;

const ingestion = new Ingestion({ eventName: 'api_call' }); // the key: DODO_PAYMENTS_API_KEY
const batch = createBatch(ingestion, { maxSize: 100 });
for (let page = 1; page <= PAGES; page += 1) {
  // An id of your own makes it harmless to run the job again.
  const eventId = `import-2026-11-page-${page}`;
  batch.add({ customerId: 'cus_1', eventId, metadata: { endpoint: '/import', page } });
}
await batch.cleanup();
await ingestion.close();

// Neither fails for a call that was refused.
const stats = ingestion.stats();
if (stats.billed === PAGES) {
  console.log('billed');
} else {
  console.error('not all of it is billed:', stats);
  process.exitCode = 1;
}
