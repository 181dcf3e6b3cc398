/**
 * What is there once in a process, however many copies of this package it has, or how often it loads its code anew:
 * pnpm installs a copy for each set of peers. The name has another number for each form of it.
 *
 * @internal
 */
export function shared<T>(name: string, make: () => T): T {
  const key = Symbol.for(`dodo-ingestion.${name}`);
  const all = process as unknown as Record<symbol, T>;
  const found = all[key] ?? make();
  all[key] = found;
  return found;
}
