/** Where `dodometer` is: the local meter that tests bill to. */

import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';

const EXECUTABLE = process.platform === 'win32' ? 'dodometer.exe' : 'dodometer';

/**
 * The program that `DODOMETER_BIN` names, or that of the package `dodometer`, or that of `PATH`.
 *
 * @internal
 */
export function findDodometer(): string {
  const found = process.env.DODOMETER_BIN || installed() || onPath();
  if (!found) {
    throw new Error(
      'dodometer is not installed: `npm install dodometer`, or set DODOMETER_BIN to the program',
    );
  }
  return found;
}

/** The package may be the application's and not this one's neighbour. */
function installed(): string | undefined {
  let launcher: string;
  try {
    launcher = require.resolve('dodometer', { paths: [process.cwd(), __dirname] });
  } catch {
    return undefined;
  }
  return (require(launcher) as { binaryPath(): string }).binaryPath();
}

function onPath(): string | undefined {
  const directories = (process.env.PATH ?? '').split(delimiter).filter(Boolean);
  return directories.map((directory) => join(directory, EXECUTABLE)).find(existsSync);
}
