//! `dodometer`: the command line of dodo-ingestion.
//!
//! `dodometer serve` runs a local meter server, which speaks the billing API and shows what it
//! counts on a live page. `dodometer demo` shows the whole at work: a small metered API under load,
//! and the bill that comes of it. What a subcommand does is in the module of its name; this file
//! only chooses one and turns its failure into a message and an exit code.

mod demo;
mod duration;
mod serve;
mod stop;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Usage metering on your own machine.
#[derive(Parser)]
#[command(name = "dodometer", version, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Serve),
    Demo(demo::Demo),
    #[command(hide = true)]
    DemoWorker(demo::DemoWorker),
}

impl Command {
    /// What is logged unless `RUST_LOG` says otherwise.
    fn log_filter(&self) -> &'static str {
        match self {
            Self::Serve(_) => "warn",
            // The demo shows the client's alarms itself.
            Self::Demo(_) | Self::DemoWorker(_) => "warn,dodo_ingestion=off",
        }
    }
}

fn main() -> ExitCode {
    let CommandLine { command } = CommandLine::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| EnvFilter::new(command.log_filter())),
        )
        .with_ansi(coloured(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .init();
    let outcome = match command {
        Command::Serve(serve) => serve.run(),
        Command::Demo(demo) => demo.run(),
        Command::DemoWorker(worker) => worker.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell if this fails too.
            let _ = writeln!(std::io::stderr(), "dodometer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether colours may be written to a stream: to a terminal, unless `NO_COLOR` is set.
fn coloured(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}
