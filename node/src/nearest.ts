/** What a name that is not known was most likely meant to be. */

import { ConfigurationError } from './errors';

function nearest(name: string, known: readonly string[]): string {
  const distances = known.map((each) => distance(name.toLowerCase(), each.toLowerCase()));
  return known[distances.indexOf(Math.min(...distances))] as string;
}

/**
 * Refuses options of other names than these.
 *
 * @internal
 */
export function checkNames(options: object | null | undefined, known: readonly string[]): void {
  if (typeof (options ?? {}) !== 'object' || Array.isArray(options)) {
    const given = Array.isArray(options) ? 'an array' : `a ${typeof options}`;
    const why = `options: ${given} is none; give them by their names, as in { ${known[0]} }`;
    throw new ConfigurationError(why, { field: 'options' });
  }
  for (const option of Object.keys(options ?? {})) {
    if (!known.includes(option)) {
      const meant = nearest(option, known);
      throw new ConfigurationError(`${option}: is no option; the nearest is ${meant}`, {
        field: option,
      });
    }
  }
}

/** The edit distance of two words. */
function distance(one: string, other: string): number {
  let row = Array.from({ length: other.length + 1 }, (_, column) => column);
  for (const letter of one) {
    const last = row;
    row = [(last[0] as number) + 1];
    for (let column = 1; column <= other.length; column += 1) {
      row[column] = Math.min(
        (last[column] as number) + 1,
        (row[column - 1] as number) + 1,
        (last[column - 1] as number) + (letter === other[column - 1] ? 0 : 1),
      );
    }
  }
  return row[other.length] as number;
}
