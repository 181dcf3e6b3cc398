/** Loads the addon. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Native } from './native';

const path = join(__dirname, '..', 'native', 'dodo_ingestion.node');

function load(): Native {
  try {
    return require(path) as Native;
  } catch (cause) {
    const platform = `${process.platform}-${process.arch}`;
    const reason = existsSync(path)
      ? `${path} cannot be loaded on ${platform} with Node ${process.version}`
      : `${path} is missing: this package has no addon for ${platform}, or it has not been built`;
    throw new Error(`dodo-ingestion: ${reason}`, { cause });
  }
}

/** @internal */
export const native: Native = load();
