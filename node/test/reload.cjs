// A cluster whose workers are replaced as a process manager does it: the next one is ready before the last is told to
// end, and one that does not end is killed.

const cluster = require('node:cluster');
const { once } = require('node:events');
const { Ingestion, trackAPICall } = require('dodo-ingestion');
const say = require('./say.cjs');

const [, , rounds] = process.argv;

async function started(env) {
  const worker = cluster.fork(env);
  await once(worker, 'message');
  return worker;
}

async function primary() {
  let workers = await Promise.all([started({}), started({ STUBBORN: 'yes' })]);
  for (let round = 0; round < Number(rounds); round += 1) {
    const next = await Promise.all([started({}), started({ STUBBORN: 'yes' })]);
    await Promise.all(workers.map(end));
    workers = next;
  }
  await Promise.all(workers.map(end));
}

async function end(worker) {
  const ended = once(worker, 'exit');
  worker.process.kill('SIGINT');
  const [stubborn] = await once(worker, 'message');
  if (stubborn) {
    worker.process.kill('SIGKILL');
    say('killed');
  }
  await ended;
}

function work() {
  const ingestion = new Ingestion({ ...JSON.parse(process.env.OPTIONS), onAlarm() {} });
  const stubborn = process.env.STUBBORN === 'yes';
  let timer;
  let calls = 0;
  const more = () => {
    const { eventId } = trackAPICall(ingestion, {
      customerId: 'cus_reloaded',
      metadata: { calls },
    });
    say(eventId);
    calls += 1;
    if (calls === 20) process.send('ready');
    timer = setTimeout(more, 1);
  };
  more();
  process.on('SIGINT', async () => {
    process.send(stubborn);
    if (!stubborn) {
      clearTimeout(timer);
      await ingestion.close();
      process.exit(0);
    }
  });
}

if (cluster.isPrimary) {
  primary();
} else {
  work();
}
