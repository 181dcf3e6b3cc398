const { setImmediate: turn } = require('node:timers/promises');

/** Tells what would keep Jest from ending when its tests are over. */
module.exports = class Open {
  async onRunComplete() {
    // What is closed is there until the loop has turned.
    await turn();
    await turn();
    process.stdout.write(`open: ${process.getActiveResourcesInfo().join(' ')}\n`);
  }
};
