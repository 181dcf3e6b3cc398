import { EventEmitter } from 'node:events';
import { createServer } from 'node:http';
import { createBatch, Ingestion, type IngestionOptions, type Stats } from 'dodo-ingestion';

const options: IngestionOptions = {
  eventName: 'api_call',
  durability: 'disk',
  late: 'dead_letter',
  linger: 500,
  allowHttp: false,
  onAlarm: (kind, message) => console.warn(kind, message),
};
const ingestion = new Ingestion(options);
new Ingestion();
const stats: Stats = ingestion.stats();
stats.deadLettered satisfies number;

// @ts-expect-error: a misspelt option
new Ingestion({ durabilty: 'disk' });
// @ts-expect-error: an option of another type
new Ingestion({ durability: 5 });
// @ts-expect-error: a word that is none of the option's
new Ingestion({ late: 'never' });
// @ts-expect-error: the core's name
new Ingestion({ spool_dir: '/var/lib/app' });
// @ts-expect-error: no listener
new Ingestion({ onAlarm: 'log' });
// @ts-expect-error: no count
stats.lost;

const batch = createBatch(ingestion);
process.on('SIGTERM', batch.cleanup);
process.on('SIGTERM', ingestion.close);
process.on('beforeExit', batch.flush);
new EventEmitter().on('end', batch.flush);
createServer().close(batch.cleanup).on('close', ingestion.close);
setInterval(batch.flush, 60_000);
void batch.flush({ timeout: 5_000 });
// @ts-expect-error: a number alone
void batch.flush(5_000);
// @ts-expect-error: a misspelt option
void batch.flush({ timout: 5_000 });
