//! `test`: every check of every language, one line each.
//!
//! The checks are data: a [`Part`] for each language, in a module of its own, lists its [`Step`]s. To add a step, add it
//! to its part; to add a language, add a module and a line to [`PARTS`]. The rules that hold for all of them are here:
//!
//! - A step's output goes to `.cache/log/` and is shown when the step fails. A failure stops only what needs the step.
//! - What takes cargo's lock runs one after the other, and beside it what mostly waits, two at a time.
//! - What a part needs from the system is probed first. Missing means skipped, and under `CI=true` failed.
//! - Nothing skipped counts as passed, and a test step in which no test ran has failed. A test of cargo's that says
//!   `NOT TESTED:` is skipped.
//! - The last line counts tests, in the form `12 passed, 0 failed, 3 skipped`. A failed step in which no test failed
//!   counts as one failure, a step left out as one skipped.

mod bundlers;
mod kotlin;
mod lanes;
pub(crate) mod node;
mod packages;
mod page;
pub(crate) mod python;
mod rust;
mod screen;
mod strangers;
mod test_programs;
#[cfg(test)]
mod tests;
mod workflows;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::process::Log;
use crate::system::{self, Missing, Requirement};
use crate::tally::{Runner, Tally};
use crate::workspace::Workspace;

use screen::Screen;

/// In the order in which they are begun, where nothing has to be waited for.
const PARTS: &[Part] = &[
    rust::PART,
    python::PART,
    node::PART,
    bundlers::PART,
    strangers::PART,
    kotlin::PART,
    page::PART,
    packages::PART,
    workflows::PART,
];

/// No step takes this long on a machine that works.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Lines of a failed step's output that are shown.
const TAIL: usize = 200;

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Run only this part (`python`) or step (`rust/clippy`), and what it needs; can be given again
    #[arg(long, value_name = "PART")]
    only: Vec<String>,
    /// List the steps and run nothing
    #[arg(long)]
    list: bool,
    /// Show the output of every step while it runs, and run one at a time
    #[arg(long, short)]
    verbose: bool,
}

/// The checks of one language.
struct Part {
    name: &'static str,
    /// The part exists where this file exists.
    manifest: &'static str,
    requires: &'static [Requirement],
    steps: &'static [Step],
}

/// One check, or one preparation for others.
struct Step {
    /// `part/name`
    id: &'static str,
    about: &'static str,
    /// Steps before this one without which it cannot run.
    needs: &'static [&'static str],
    lane: Lane,
    /// Set for a step that runs tests: how to count them.
    runner: Option<Runner>,
    run: fn(&mut Job<'_>) -> Result<()>,
}

/// Which steps stand in each other's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    /// Takes cargo's lock, and all processors.
    Cargo,
    /// Mostly waits: for the network, or for what it tests. Runs beside any other.
    Tools,
}

/// What a running step works with.
pub(crate) struct Job<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) log: &'a mut Log,
}

impl Job<'_> {
    /// A command in a directory of the checkout, with the environment that every test may count on:
    /// `DODOMETER_BIN` is the built `dodometer`, `PATH` has the right Node.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>, directory: &str) -> Result<Command> {
        let mut command = self.workspace.command(program);
        command.current_dir(self.workspace.path(directory));
        self.prepare(&mut command)?;
        Ok(command)
    }

    fn prepare(&self, command: &mut Command) -> Result<()> {
        command.env("DODOMETER_BIN", self.workspace.program("debug", "dodometer"));
        command.env("PATH", system::path(self.workspace)?);
        if Requirement::Python.probe(self.workspace).is_err() {
            // pyo3 builds for the stable ABI without an interpreter if it is told so.
            command.env("PYO3_NO_PYTHON", "1");
        }
        Ok(())
    }

    fn run(&mut self, mut command: Command) -> Result<()> {
        self.log.run(&mut command, LIMIT)
    }

    fn cargo(&mut self, args: &[&str]) -> Result<()> {
        self.cargo_with(args, &[])
    }

    fn cargo_with(&mut self, args: &[&str], environment: &[(&str, &str)]) -> Result<()> {
        let mut command = self.cargo_command(args)?;
        command.envs(environment.iter().copied());
        self.run(command)
    }

    fn cargo_command(&self, args: &[&str]) -> Result<Command> {
        let mut command = self.workspace.cargo(args);
        self.prepare(&mut command)?;
        Ok(command)
    }

    /// Puts a built file in its place. The old one is removed, not overwritten: somebody may have it loaded.
    fn install(&mut self, from: &Path, to: &Path) -> Result<()> {
        self.log.line(&format!("$ cp {} {}", from.display(), to.display()))?;
        if let Some(directory) = to.parent() {
            fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        }
        match fs::remove_file(to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| to.display().to_string());
            }
            _ => {}
        }
        fs::copy(from, to).with_context(|| from.display().to_string())?;
        Ok(())
    }

    /// Does `prepare` unless the last time it succeeded was for the same content of `source`; `stamp` remembers that.
    fn once(
        &mut self,
        source: &Path,
        stamp: &Path,
        prepare: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let wanted = fs::read(source).with_context(|| source.display().to_string())?;
        if fs::read(stamp).is_ok_and(|done| done == wanted) {
            return self.log.line(&format!("{} has not changed", source.display()));
        }
        prepare(self)?;
        fs::write(stamp, wanted).with_context(|| stamp.display().to_string())
    }
}

/// Installs the packages of a directory's lock file, unless that has been done.
pub(crate) fn npm_ci(workspace: &Workspace, log: &mut Log, directory: &str) -> Result<()> {
    node::npm_ci(&mut Job { workspace, log }, directory)
}

/// How a step ended.
enum Outcome {
    Passed(Tally),
    Failed { error: anyhow::Error, tally: Tally },
    Skipped(String),
}

struct Report {
    step: &'static str,
    outcome: Outcome,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let selected = select(PARTS, &options.only)?;
    if options.list {
        let steps = PARTS.iter().flat_map(|part| part.steps);
        let lines = steps.filter(|step| selected.contains(step.id));
        let list: Vec<_> = lines.map(|step| format!("{:<18} {}\n", step.id, step.about)).collect();
        // Whoever reads it, as `head` does, may have had enough.
        _ = io::stdout().write_all(list.concat().as_bytes());
        return Ok(ExitCode::SUCCESS);
    }
    let started = Instant::now();
    let logs = workspace.cache("log");
    let screen = Screen::new();
    let system = logs.join("system.log");
    let lacking = Lacking::probe(workspace, &selected, system, options.verbose);
    if lacking.changes_what_is_built() {
        lacking.install(&screen);
    }
    let steps = lanes::in_order(PARTS, &selected);
    let reports = lanes::run(&steps, options.verbose, |part, step, unmet| {
        screen.begun(step.id);
        let started = Instant::now();
        let path = log_path(&logs, step.id);
        let missing = lacking.to(part, &screen);
        let outcome = run_step(workspace, part, step, &missing, unmet, &path, options.verbose);
        screen.ended(step.id, &told(step.id, &outcome, started.elapsed(), &path, options.verbose));
        outcome
    });
    Ok(close(&reports, &logs, started.elapsed()))
}

/// What the selected parts lack of what only the system can provide. It is installed when the first of them begins, while
/// others are at work.
struct Lacking<'a> {
    workspace: &'a Workspace,
    requirements: BTreeSet<Requirement>,
    log: PathBuf,
    verbose: bool,
    missing: OnceLock<Missing>,
}

impl<'a> Lacking<'a> {
    fn probe(
        workspace: &'a Workspace,
        selected: &BTreeSet<&'static str>,
        log: PathBuf,
        verbose: bool,
    ) -> Self {
        let requirements: BTreeSet<Requirement> = PARTS
            .iter()
            .filter(|part| part.steps.iter().any(|step| selected.contains(step.id)))
            .filter(|part| workspace.path(part.manifest).exists())
            .flat_map(|part| part.requires)
            .copied()
            .filter(|requirement| requirement.probe(workspace).is_err())
            .collect();
        Self { workspace, requirements, log, verbose, missing: OnceLock::new() }
    }

    /// Whether cargo would build something else with it than without.
    fn changes_what_is_built(&self) -> bool {
        [Requirement::Compiler, Requirement::Python].iter().any(|it| self.requirements.contains(it))
    }

    fn install(&self, screen: &Screen) -> &Missing {
        self.missing.get_or_init(|| match Log::create(self.log.clone(), self.verbose) {
            Ok(mut log) => {
                let tell = |line: &str| screen.say(line);
                system::provide(self.workspace, &self.requirements, &mut log, &tell)
            }
            Err(error) => self.requirements.iter().map(|it| (*it, anyhow!("{error:#}"))).collect(),
        })
    }

    /// What a part has to do without, once all has been tried.
    fn to(&self, part: &Part, screen: &Screen) -> Missing {
        if !part.requires.iter().any(|requirement| self.requirements.contains(requirement)) {
            return Missing::new();
        }
        let missing = self.install(screen).iter().filter(|(it, _)| part.requires.contains(it));
        missing.map(|(requirement, error)| (*requirement, anyhow!("{error:#}"))).collect()
    }
}

fn run_step(
    workspace: &Workspace,
    part: &Part,
    step: &'static Step,
    missing: &Missing,
    unmet: Option<&'static str>,
    log: &Path,
    verbose: bool,
) -> Outcome {
    if !workspace.path(part.manifest).exists() {
        Outcome::Skipped(format!("this tree has no {}", part.manifest))
    } else if !missing.is_empty() {
        without(missing, system::is_ci())
    } else if let Some(needed) = unmet {
        Outcome::Skipped(format!("needs {}", title(needed)))
    } else {
        match Log::create(log.to_owned(), verbose) {
            Ok(mut log) => execute(step, &mut Job { workspace, log: &mut log }),
            Err(error) => Outcome::Failed { error, tally: Tally::default() },
        }
    }
}

fn execute(step: &Step, job: &mut Job<'_>) -> Outcome {
    let result = (step.run)(job);
    let tally = match (step.runner, job.log.text()) {
        (Some(runner), Ok(output)) => runner.tally(&output),
        _ => Tally::default(),
    };
    judge(step.runner.is_some(), result, tally)
}

fn judge(runs_tests: bool, result: Result<()>, tally: Tally) -> Outcome {
    match result {
        Err(error) => Outcome::Failed { error, tally },
        Ok(()) if runs_tests && tally.is_empty() => {
            Outcome::Failed { error: anyhow!("no test ran"), tally }
        }
        Ok(()) => Outcome::Passed(tally),
    }
}

/// What becomes of a part that cannot have what it needs.
fn without(missing: &Missing, ci: bool) -> Outcome {
    let names: Vec<&str> = missing.iter().map(|(requirement, _)| requirement.name()).collect();
    let reason = format!("no {} ({})", names.join(", no "), system::advice(missing));
    if ci {
        let causes: Vec<String> = missing.iter().map(|(_, error)| format!("{error:#}")).collect();
        let error = anyhow!("{reason}: {}", causes.join("; "));
        return Outcome::Failed { error, tally: Tally::default() };
    }
    Outcome::Skipped(reason)
}

/// The steps that were asked for, and all that they need.
fn select(parts: &[Part], only: &[String]) -> Result<BTreeSet<&'static str>> {
    let steps: Vec<&Step> = parts.iter().flat_map(|part| part.steps).collect();
    let mut open: Vec<&'static str> = Vec::new();
    if only.is_empty() {
        open.extend(steps.iter().map(|step| step.id));
    }
    for name in only {
        let found: Vec<_> = steps
            .iter()
            .filter(|step| step.id == name || part_of(step.id) == name)
            .map(|step| step.id)
            .collect();
        if found.is_empty() {
            let known: Vec<&str> = parts.iter().map(|part| part.name).collect();
            bail!(
                "no part or step is called `{name}`: the parts are {}, --list names the steps",
                known.join(", ")
            );
        }
        open.extend(found);
    }
    let mut selected = BTreeSet::new();
    while let Some(id) = open.pop() {
        if selected.insert(id) {
            let step = steps.iter().find(|step| step.id == id);
            open.extend(step.with_context(|| format!("no step is called {id}"))?.needs);
        }
    }
    Ok(selected)
}

/// Prints the summary and the closing line.
fn close(reports: &[Report], logs: &Path, elapsed: Duration) -> ExitCode {
    println!();
    let mut passed = 0;
    let mut failed = 0;
    let mut skipped = 0;
    for Report { step, outcome } in reports {
        match outcome {
            Outcome::Passed(tally) => {
                passed += 1;
                for what in &tally.not_tested {
                    println!("not tested: {}: {what}", title(step));
                }
            }
            Outcome::Failed { tally, .. } => {
                failed += 1;
                println!("failed: {}: {}", title(step), log_path(logs, step).display());
                for name in &tally.failures {
                    println!("    {name}");
                }
            }
            Outcome::Skipped(reason) => {
                skipped += 1;
                println!("skipped: {}: {reason}", title(step));
            }
        }
    }
    println!(
        "{passed} steps ok, {failed} failed, {skipped} skipped in {} min {:02} s",
        elapsed.as_secs() / 60,
        elapsed.as_secs() % 60
    );
    println!("{}", total(reports));
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The sum of what the runners counted; a step that failed or was left out shows in it too.
fn total(reports: &[Report]) -> Tally {
    let mut total = Tally::default();
    for report in reports {
        match &report.outcome {
            Outcome::Passed(tally) => total += tally.clone(),
            Outcome::Failed { tally, .. } => {
                total += tally.clone();
                total.failed += u64::from(tally.failed == 0);
            }
            Outcome::Skipped(_) => total.skipped += 1,
        }
    }
    total
}

/// What is printed of a step that has ended.
fn told(id: &str, outcome: &Outcome, elapsed: Duration, log: &Path, verbose: bool) -> String {
    let (word, rest) = match outcome {
        Outcome::Passed(tally) if tally.is_empty() => ("ok", String::new()),
        Outcome::Passed(tally) => ("ok", tally.to_string()),
        Outcome::Failed { .. } => ("FAIL", String::new()),
        Outcome::Skipped(reason) => ("skip", reason.clone()),
    };
    let seconds = format!("{:.1} s", elapsed.as_secs_f64());
    let line = format!("{word:<4} {:<20} {seconds:>8}   {rest}", title(id));
    let Outcome::Failed { error, .. } = outcome else { return line.trim_end().to_owned() + "\n" };
    let output = if verbose { Vec::new() } else { fs::read(log).unwrap_or_default() };
    let end = tail(&String::from_utf8_lossy(&output), TAIL);
    format!("{}\n{end}     {error:#}\n     all of it: {}\n", line.trim_end(), log.display())
}

/// The last lines of an output, set off from the report's own.
fn tail(text: &str, lines: usize) -> String {
    let count = text.lines().count();
    text.lines().skip(count.saturating_sub(lines)).flat_map(|line| ["   | ", line, "\n"]).collect()
}

fn part_of(id: &str) -> &str {
    id.split_once('/').map_or(id, |(part, _)| part)
}

fn title(id: &str) -> String {
    id.replacen('/', ": ", 1)
}

fn log_path(logs: &Path, id: &str) -> PathBuf {
    logs.join(format!("{}.log", id.replace('/', "-")))
}
