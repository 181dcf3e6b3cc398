//! `dodometer`: the command line of dodo-ingestion.
//!
//! `dodometer serve` runs a local meter server, which speaks the billing API and shows what it
//! counts on a live page. `dodometer demo` shows the whole at work: a small metered API under load,
//! and the bill that comes of it. What a subcommand does is in the module of its name; this file
//! only chooses one, decides about colours, and turns a failure into a message and an exit status.

mod completions;
mod demo;
mod descriptors;
mod file_size;
mod listen;
mod serve;
mod stop;
mod wrong;

use std::io::Write;
use std::process::ExitCode;

use anstream::AutoStream;
use anstream::stream::RawStream;
use clap::{ColorChoice, Parser, Subcommand};
use dodometer_server::duration;
use tracing_subscriber::EnvFilter;

/// What every subcommand ends with, unless its own help says more.
const EXIT_STATUS: &str = "\
Exit status: 0 when it did what was asked, 1 when something failed, 2 when the arguments are wrong.";

/// The exit status, also clap's, for arguments that are wrong.
const WRONG_ARGUMENTS: u8 = 2;

/// Usage metering on your own machine.
#[derive(Parser)]
#[command(name = "dodometer", version, arg_required_else_help = true, after_help = EXIT_STATUS)]
struct CommandLine {
    /// When to write colours.
    ///
    /// `auto` writes them to a terminal, unless `NO_COLOR`, `CLICOLOR` or `CLICOLOR_FORCE` say
    /// otherwise.
    #[arg(long, global = true, value_name = "WHEN", default_value_t)]
    color: ColorChoice,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(after_help = EXIT_STATUS)]
    Serve(serve::Serve),
    Demo(demo::Demo),
    #[command(after_help = EXIT_STATUS)]
    Completions(completions::Completions),
    #[command(hide = true)]
    DemoWorker(demo::DemoWorker),
}

impl Command {
    /// What is logged unless `RUST_LOG` says otherwise.
    fn log_filter(&self) -> &'static str {
        match self {
            Self::Serve(_) | Self::Completions(_) => "warn",
            // The demo shows the client's alarms itself, and nobody else tells of the middleware's.
            Self::Demo(_) | Self::DemoWorker(_) => {
                "warn,dodo_ingestion=off,dodo_ingestion_tower=warn"
            }
        }
    }
}

fn main() -> ExitCode {
    let CommandLine { color, command } = CommandLine::parse();
    match color {
        ColorChoice::Auto => anstream::ColorChoice::Auto,
        ColorChoice::Always => anstream::ColorChoice::Always,
        ColorChoice::Never => anstream::ColorChoice::Never,
    }
    .write_global();
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
        Command::Completions(completions) => completions.run(),
        Command::DemoWorker(worker) => worker.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell if this fails too.
            let _ = writeln!(std::io::stderr(), "dodometer: {error:#}");
            if wrong::is_of_arguments(&error) {
                ExitCode::from(WRONG_ARGUMENTS)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// Whether colours may be written to a stream.
fn coloured(stream: &impl RawStream) -> bool {
    AutoStream::choice(stream) != anstream::ColorChoice::Never
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        CommandLine::command().debug_assert();
    }
}
