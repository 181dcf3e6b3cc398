//! `bench`: the comparisons in `benches/`. `bench python` and `bench node` set up what users of these languages have
//! today and compare our packages with it, both built as they are published.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::checks::{Job, node, python};
use crate::package::PUBLISHED;
use crate::process::Log;
use crate::run::{self, RELEASE};
use crate::system::{self, Requirement};
use crate::venv::Venv;
use crate::workspace::Workspace;

/// The package of the benches.
const BENCHES: &str = "dodo-ingestion-benches";

/// A language whose package is compared.
struct Language {
    name: &'static str,
    requirement: Requirement,
    /// The package with our library.
    binding: &'static str,
    /// Sets up the contenders, ours with this library; the interpreter that runs them.
    set_up: fn(&mut Job<'_>, library: &Path) -> Result<PathBuf>,
}

const LANGUAGES: &[Language] = &[
    Language {
        name: "python",
        requirement: Requirement::Python,
        binding: "dodo-ingestion-pyo3",
        set_up: |job, library| {
            let venv = Venv::new(job.workspace, "benches");
            venv.provide_from(job.workspace, job.log, "benches/python/requirements.txt")?;
            python::install(job, library)?;
            Ok(venv.program("python"))
        },
    },
    Language {
        name: "node",
        requirement: Requirement::Node,
        binding: "dodo-ingestion-napi",
        set_up: |job, library| {
            node::npm_ci(job, "node")?;
            node::npm(job, "node", "build")?;
            node::npm_ci(job, "benches/node")?;
            node::install(job, library)?;
            Ok("node".into())
        },
    },
];

pub(crate) fn run(workspace: &Workspace, args: &[OsString]) -> Result<ExitCode> {
    let language = args.first().and_then(|first| LANGUAGES.iter().find(|it| first == it.name));
    let published = language.map(|language| (PUBLISHED, language.binding));
    for (profile, package) in [(RELEASE, BENCHES)].into_iter().chain(published) {
        if !run::build(workspace, profile, &[package])? {
            return Ok(ExitCode::FAILURE);
        }
    }
    let mut command = workspace.command(workspace.program(RELEASE, BENCHES));
    match language {
        None => command.args(args),
        Some(language) => {
            let interpreter = set_up(workspace, language)?;
            command.arg(format!("--{}", language.name)).arg(interpreter).args(&args[1..]);
            command.env("PYTHONPATH", workspace.path("python/src"));
            command.env("PATH", system::path(workspace)?)
        }
    };
    run::become_command(run::here(command))
}

fn set_up(workspace: &Workspace, language: &Language) -> Result<PathBuf> {
    language.requirement.probe(workspace)?;
    let mut log = Log::create(workspace.cache("log").join("bench.log"), false)?;
    eprintln!("setting up what is compared: a minute the first time, then nothing");
    let library = workspace.library_of(PUBLISHED, language.binding);
    (language.set_up)(&mut Job { workspace, log: &mut log }, &library)
        .with_context(|| format!("all of it: {}", log.path().display()))
}
