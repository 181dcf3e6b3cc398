//! The test programs that cargo has compiled, run several at a time. Cargo would run one after the other, and most of
//! what they do is wait.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Job, LIMIT};
use crate::process::Log;

/// What cargo said that it had compiled, in `.cache`.
const COMPILED: &str = "test-programs.json";

/// Those that begin first, because they take the longest.
const FIRST: &[&str] = &["dodo-ingestion-lifecycle", "dodometer"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Unit,
    Integration,
}

#[derive(Debug, PartialEq, Eq)]
struct Program {
    executable: PathBuf,
    /// The directory of its package.
    directory: PathBuf,
    /// The package's name and its own.
    name: (String, String),
}

/// Compiles what `args` of cargo select.
pub(super) fn compile(job: &mut Job<'_>, args: &[&str]) -> Result<()> {
    let path = job.workspace.cache(COMPILED);
    let compiled = File::create(&path).with_context(|| path.display().to_string())?;
    let mut command = job.cargo_command(args)?;
    command.args(["--no-run", "--message-format=json-render-diagnostics"]);
    job.log.run_into(&mut command, LIMIT, compiled)
}

/// Runs all of a kind to their ends, as cargo would but for how many at a time. Those that failed close the log.
pub(super) fn run(job: &mut Job<'_>, kind: Kind, at_a_time: usize) -> Result<()> {
    let path = job.workspace.cache(COMPILED);
    let compiled = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut commands = Vec::new();
    for program in programs(&compiled, kind)? {
        let mut command = job.command(&program.executable, "")?;
        command.current_dir(&program.directory).env("CARGO_MANIFEST_DIR", &program.directory);
        commands.push((format!("{}-{}", program.name.0, program.name.1), command));
    }
    let count = commands.len();
    let failed = if job.log.is_shown() {
        commands.retain_mut(|(_, command)| job.log.run(command, LIMIT).is_err());
        commands.into_iter().map(|(name, _)| name).collect()
    } else {
        run_beside_each_other(job.log, commands, at_a_time)?
    };
    ensure!(
        failed.is_empty(),
        "{} of {count} test programs failed: {}",
        failed.len(),
        failed.join(", ")
    );
    Ok(())
}

/// Each has a log of its own, beside the step's. Returns the names of those that failed.
fn run_beside_each_other(
    log: &mut Log,
    commands: Vec<(String, Command)>,
    at_a_time: usize,
) -> Result<Vec<String>> {
    let logs = log.path().with_extension("");
    let commands = Mutex::new(commands.into_iter());
    let next = || commands.lock().unwrap_or_else(PoisonError::into_inner).next();
    let ended = Mutex::new((log, Vec::new()));
    let work = || -> Result<()> {
        while let Some((name, mut command)) = next() {
            let mut own = Log::create(logs.join(format!("{name}.log")), false)?;
            let result = own.run(&mut command, LIMIT);
            let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(()) => ended.0.line(&own.text()?)?,
                Err(error) => ended.1.push((name, format!("{}{error:#}\n", own.text()?))),
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..at_a_time).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    let (log, failed) = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (_, text) in &failed {
        log.line(text)?;
    }
    Ok(failed.into_iter().map(|(name, _)| name).collect())
}

/// The programs of a kind among what cargo compiled.
fn programs(compiled: &str, kind: Kind) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    for line in compiled.lines() {
        let message: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let is_integration = message["target"]["kind"][0] == "test";
        if message["profile"]["test"] != true || is_integration != (kind == Kind::Integration) {
            continue;
        }
        let text = |value: &Value| value.as_str().map(str::to_owned).context("not in cargo's form");
        let manifest = PathBuf::from(text(&message["manifest_path"])?);
        let directory = manifest.parent().map(Path::to_owned).context("a manifest has a place")?;
        // `path+file:///checkout/crates/dodometer#0.1.0`, or `…/core#name@0.1.0`
        let id = text(&message["package_id"])?;
        let (place, version) = id.rsplit_once('#').context("a package has a version")?;
        let package = match version.split_once('@') {
            Some((name, _)) => name,
            None => place.rsplit('/').next().unwrap_or(place),
        };
        let name = (package.to_owned(), text(&message["target"]["name"])?);
        let executable = text(&message["executable"])?.into();
        programs.push(Program { executable, directory, name });
    }
    programs.sort_by_cached_key(|program| {
        (!FIRST.contains(&program.name.0.as_str()), program.name.clone())
    });
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn artifact(id: &str, kind: &str, name: &str, test: bool) -> String {
        let executable = test.then(|| format!("/target/{name}"));
        let message = json!({
            "reason": "compiler-artifact",
            "package_id": id,
            "manifest_path": "/checkout/crates/a/Cargo.toml",
            "target": { "kind": [kind], "name": name },
            "profile": { "test": test },
            "executable": executable,
        });
        format!("{message}\n")
    }

    #[test]
    fn programs_are_known_from_what_else_was_compiled() {
        let compiled = [
            artifact("registry+https://index#serde@1.0.0", "lib", "serde", false),
            artifact("path+file:///checkout/crates/a#0.1.0", "test", "it", true),
            artifact("path+file:///checkout/crates/a#0.1.0", "lib", "a", true),
            artifact(
                "path+file:///checkout/tests/b#dodo-ingestion-lifecycle@0.1.0",
                "test",
                "x",
                true,
            ),
            "{\"reason\":\"build-finished\",\"success\":true}\n".to_owned(),
        ]
        .concat();
        let names = |kind| -> Vec<(String, String)> {
            programs(&compiled, kind).unwrap().into_iter().map(|program| program.name).collect()
        };
        let name = |package: &str, name: &str| (package.to_owned(), name.to_owned());
        assert_eq!(names(Kind::Unit), [name("a", "a")]);
        let integration = [name("dodo-ingestion-lifecycle", "x"), name("a", "it")];
        assert_eq!(names(Kind::Integration), integration);
        let unit = programs(&compiled, Kind::Unit).unwrap().remove(0);
        assert_eq!(unit.executable, Path::new("/target/a"));
        assert_eq!(unit.directory, Path::new("/checkout/crates/a"));
    }

    #[cfg(unix)]
    #[test]
    fn all_run_and_those_that_failed_close_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::create(directory.path().join("step.log"), false).unwrap();
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        // Each of the first two waits for the other.
        let meet = |own: &str, other: &str| {
            let directory = directory.path().display();
            format!(
                "touch {directory}/{own}; until [ -e {directory}/{other} ]; do sleep 0.01; done; echo {own}"
            )
        };
        let failing = format!("{}; echo broke >&2; exit 3", meet("one", "two"));
        let commands = vec![
            ("one".to_owned(), shell(&failing)),
            ("two".to_owned(), shell(&meet("two", "one"))),
            ("three".to_owned(), shell("echo three")),
        ];
        let failed = run_beside_each_other(&mut log, commands, 2).unwrap();
        assert_eq!(failed, ["one"]);
        let text = log.text().unwrap();
        let at = |words: &str| text.find(words).unwrap();
        assert!(at("\ntwo\n") < at("broke") && at("\nthree\n") < at("broke"), "{text}");
        assert!(text.contains("exit status: 3"), "{text}");
    }
}
