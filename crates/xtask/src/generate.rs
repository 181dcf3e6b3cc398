//! `gen`: committed files that a program writes. To add one, add a line to [`GENERATORS`].

mod addon;
mod addons;
mod stubs;

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::workspace::{BUILD, Workspace};

/// A committed file and what writes it.
struct Generator {
    /// Its path in the checkout.
    path: &'static str,
    /// Makes its content. The programs and libraries of the `debug` profile are built by then.
    content: fn(&Workspace) -> Result<String>,
}

const GENERATORS: &[Generator] = &[
    Generator {
        path: "docs/configuration.md",
        content: |workspace| describe(workspace, "configuration"),
    },
    Generator { path: "node/src/addons.ts", content: addons::resolved },
    Generator { path: "node/src/native.d.ts", content: addon::declarations },
    Generator {
        path: "node/src/options.ts",
        content: |workspace| describe(workspace, "node-options"),
    },
    Generator { path: stubs::PATH, content: stubs::documented },
];

/// Lines of a difference that are shown.
const SHOWN: usize = 10;

pub(crate) fn run(workspace: &Workspace, check: bool) -> Result<ExitCode> {
    let mut build = workspace.cargo(BUILD);
    if !build.status().with_context(|| process::describe(&build))?.success() {
        return Ok(ExitCode::FAILURE);
    }
    let report = if check { compare(workspace, |_| true)? } else { write(workspace)? };
    for line in report {
        println!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Compares what is made without an interpreter. Python's tests compare the rest.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    compare(workspace, |generator| generator.path != stubs::PATH)
}

/// Fails, naming the files that differ and showing where.
fn compare(workspace: &Workspace, which: fn(&&Generator) -> bool) -> Result<Vec<String>> {
    let mut report = Vec::new();
    let mut differences = Vec::new();
    for generator in GENERATORS.iter().filter(which) {
        let fresh = (generator.content)(workspace).context(generator.path)?;
        let committed = committed(workspace, generator)?.unwrap_or_default();
        if committed == fresh {
            report.push(format!("same {}", generator.path));
        } else {
            let shown = difference(&committed, &fresh);
            differences.push(format!("{}\n{shown}", generator.path));
        }
    }
    if !differences.is_empty() {
        bail!("`cargo xtask gen` would change:\n{}", differences.join("\n"));
    }
    Ok(report)
}

fn write(workspace: &Workspace) -> Result<Vec<String>> {
    let mut report = Vec::new();
    for generator in GENERATORS {
        let fresh = (generator.content)(workspace).context(generator.path)?;
        if committed(workspace, generator)?.as_ref() == Some(&fresh) {
            report.push(format!("same {}", generator.path));
            continue;
        }
        let path = workspace.path(generator.path);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(&path, fresh).with_context(|| path.display().to_string())?;
        report.push(format!("new  {}", generator.path));
    }
    Ok(report)
}

fn committed(workspace: &Workspace, generator: &Generator) -> Result<Option<String>> {
    match fs::read_to_string(workspace.path(generator.path)) {
        Ok(text) => Ok(Some(text.replace("\r\n", "\n"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(generator.path),
    }
}

/// What `examples/describe.rs`, which knows the core, says of a subject.
fn describe(workspace: &Workspace, subject: &str) -> Result<String> {
    let program = workspace.program("debug", "examples/describe");
    process::capture(workspace.command(program).arg(subject))
}

/// The first lines that differ, as a patch would show them: from the first to the last line that is not common.
fn difference(old: &str, new: &str) -> String {
    let old: Vec<&str> = old.lines().collect();
    let new: Vec<&str> = new.lines().collect();
    let start = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let common_end = |limit: usize| {
        old.iter()
            .rev()
            .zip(new.iter().rev())
            .take(limit)
            .take_while(|(old, new)| old == new)
            .count()
    };
    let end = common_end(old.len().min(new.len()) - start);
    let removed = old[start..old.len() - end].iter().map(|line| format!("-{line}"));
    let added = new[start..new.len() - end].iter().map(|line| format!("+{line}"));
    let mut shown = vec![format!("@@ line {} @@", start + 1)];
    for lines in [removed.collect::<Vec<_>>(), added.collect()] {
        let more = lines.len().saturating_sub(SHOWN);
        shown.extend(lines.into_iter().take(SHOWN));
        if more > 0 {
            shown.push(format!(" … {more} more"));
        }
    }
    shown.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_shown_without_what_is_common() {
        let shown = difference("a\nb\nc\nd\n", "a\nx\ny\nd\n");
        assert_eq!(shown, "@@ line 2 @@\n-b\n-c\n+x\n+y");
    }

    #[test]
    fn insertions_between_equal_lines_are_found() {
        assert_eq!(difference("a\na\n", "a\na\na\n"), "@@ line 3 @@\n+a");
        assert_eq!(difference("", "a\n"), "@@ line 1 @@\n+a");
    }

    #[test]
    fn long_differences_are_cut() {
        let new = "line\n".repeat(50);
        let shown = difference("", &new);
        assert_eq!(shown.lines().count(), 1 + SHOWN + 1);
        assert!(shown.ends_with(" … 40 more"), "{shown}");
    }

    #[test]
    fn no_path_is_generated_twice() {
        let mut paths: Vec<&str> = GENERATORS.iter().map(|generator| generator.path).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), GENERATORS.len());
    }
}
