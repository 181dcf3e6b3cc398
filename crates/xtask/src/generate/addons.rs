//! `node/src/addons.ts`: where the addon of each platform lies. Each name is there literally: what deploys only the files
//! that it has traced a program to need reads no other.

use std::fmt::Write as _;

use anyhow::Result;

use crate::package::platform::PLATFORMS;
use crate::workspace::Workspace;

const HEAD: &str = "\
/** Where the addon is. Written by `cargo xtask gen`, from the platforms that there are packages for. */

/**
 * The path of a platform's addon; absent where there is none. Throws where its package is not installed. Each name is
 * literal, for those that deploy only the files that they have traced a program to need.
 *
 * @internal
 */
export function addonOf(platform: string): string | undefined {
  switch (platform) {
";

const TAIL: &str = r"    default:
      return undefined;
  }
}
";

pub(super) fn resolved(_: &Workspace) -> Result<String> {
    let mut text = HEAD.to_owned();
    for platform in PLATFORMS {
        let package = platform.package("dodo-ingestion");
        writeln!(text, "    case '{}':", platform.name)?;
        writeln!(text, "      return require.resolve('{package}/dodo_ingestion.node');")?;
    }
    Ok(text + TAIL)
}
