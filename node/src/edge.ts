/** What is loaded where there is no Node: it says so, and a bundle is made all the same. */

export {};

throw new Error(
  'dodo-ingestion runs in Node, by a native addon, and not in a browser or at the edge: import it on the server ' +
    "only (Next.js: `export const runtime = 'nodejs'`; jsdom: `customExportConditions: ['node']`)",
);
