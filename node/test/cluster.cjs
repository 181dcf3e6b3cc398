// Three workers of a cluster accept calls and tell their ids; one of them is killed, the others end.

const cluster = require('node:cluster');
const { Ingestion, trackAPICall } = require('dodo-ingestion');
const say = require('./say.cjs');

if (cluster.isPrimary) {
  const workers = [1, 2, 3].map(() => cluster.fork());
  let done = 0;
  cluster.on('message', () => {
    done += 1;
    if (done === workers.length) {
      workers[0].process.kill('SIGKILL');
      for (const worker of workers.slice(1)) {
        worker.disconnect();
      }
    }
  });
} else {
  const ingestion = new Ingestion({ ...JSON.parse(process.env.OPTIONS), onAlarm() {} });
  for (let n = 0; n < 200; n += 1) {
    const { eventId } = trackAPICall(ingestion, { customerId: 'cus_cluster', metadata: { n } });
    say(eventId);
  }
  process.send('done');
}
