// What every contender is started with, and how it tells what it measured.
//
// A contender is a process of its own, fresh in each round. The first argument says which one it is;
// what it measured it prints as one line of JSON.

import { parseArgs } from 'node:util';

/** Is the contender that the command line names. */
export async function run(contenders) {
  const text = { type: 'string' };
  const { values, positionals } = parseArgs({
    options: { 'base-url': text, dir: text, calls: text, cpu: { type: 'boolean' } },
    allowPositionals: true,
  });
  const [name] = positionals;
  if (!Object.hasOwn(contenders, name)) {
    throw new Error(`no contender is called ${name}`);
  }
  const { 'base-url': baseUrl, dir, calls } = values;
  tell(await contenders[name]({ baseUrl, dir, calls: Number(calls) }));
}

export function tell(what) {
  console.log(JSON.stringify(what));
}

/** One turn of the event loop, with all that is due in it. */
export function turn() {
  return new Promise((resolve) => setImmediate(resolve));
}
