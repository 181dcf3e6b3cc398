/** Where the addon is. Written by `cargo xtask gen`, from the platforms that there are packages for. */

/**
 * The path of a platform's addon; absent where there is none. Throws where its package is not installed. Each name is
 * literal, for those that deploy only the files that they have traced a program to need.
 *
 * @internal
 */
export function addonOf(platform: string): string | undefined {
  switch (platform) {
    case 'linux-x64-gnu':
      return require.resolve('@dodo-ingestion/linux-x64-gnu/dodo_ingestion.node');
    case 'linux-x64-musl':
      return require.resolve('@dodo-ingestion/linux-x64-musl/dodo_ingestion.node');
    case 'linux-arm64-gnu':
      return require.resolve('@dodo-ingestion/linux-arm64-gnu/dodo_ingestion.node');
    case 'linux-arm64-musl':
      return require.resolve('@dodo-ingestion/linux-arm64-musl/dodo_ingestion.node');
    case 'darwin-x64':
      return require.resolve('@dodo-ingestion/darwin-x64/dodo_ingestion.node');
    case 'darwin-arm64':
      return require.resolve('@dodo-ingestion/darwin-arm64/dodo_ingestion.node');
    case 'win32-x64-msvc':
      return require.resolve('@dodo-ingestion/win32-x64-msvc/dodo_ingestion.node');
    default:
      return undefined;
  }
}
