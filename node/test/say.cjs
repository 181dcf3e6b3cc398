// Prints a line, also where the pipe is full: Node makes it one that does not block.

const { writeSync } = require('node:fs');

module.exports = function say(line) {
  for (;;) {
    try {
      return writeSync(1, `${line}\n`);
    } catch (error) {
      if (error.code !== 'EAGAIN') {
        throw error;
      }
    }
  }
};
