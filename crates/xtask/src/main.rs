//! `cargo xtask`: the commands a contributor runs.
//!
//! | command | does |
//! |---|---|
//! | `demo`  | builds `dodometer` and runs its demo |
//! | `test`  | checks and tests every language in the tree |
//! | `soak`  | runs a test's loop of kills for longer |
//! | `sim`   | runs seeds of the simulator |
//! | `bench` | runs the comparisons in `benches/` |
//! | `fuzz`  | hands hostile inputs to the core, with cargo-fuzz |
//! | `gen`   | regenerates the committed files that are generated |
//! | `package` | builds what people without Rust install |
//!
//! The crate depends on nothing that it builds: it starts cargo, Python, Node and Maven as processes. So a tree
//! whose core does not compile still has a working `cargo xtask`, which says so.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line talks to its terminal"
)]

mod bench;
mod checks;
mod fuzz;
mod generate;
mod package;
mod process;
mod run;
mod system;
mod tally;
mod venv;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

#[derive(Parser)]
#[command(
    name = "xtask",
    bin_name = "cargo xtask",
    about = "What a contributor to this repository runs",
    version
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build dodometer and run its demo; the arguments are the demo's own
    #[command(disable_help_flag = true)]
    Demo {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Check and test every language in the tree
    Test(checks::Options),
    /// Run a test's loop for longer, as in `soak kill --count 1000`; the arguments are its own
    #[command(disable_help_flag = true)]
    Soak {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run seeds of the simulator; exit with 1 if a promise is broken in one
    Sim(run::Seeds),
    /// Run the benches, `bench python` and `bench node` those of these languages; the arguments are the benches' own
    #[command(disable_help_flag = true)]
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Hand hostile inputs to the core, with cargo-fuzz and a nightly toolchain
    Fuzz {
        /// A directory of fuzz/seeds; all of them by default
        target: Option<String>,
        /// How long each target runs
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Regenerate the generated files that are committed
    Gen {
        /// Write nothing; fail if a committed file differs
        #[arg(long)]
        check: bool,
    },
    /// Build what people without Rust install into dist/: wheels, and npm packages
    Package(package::Options),
}

fn main() -> ExitCode {
    match dispatch(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::locate()?;
    match cli.command {
        Command::Demo { args } => run::demo(&workspace, &args),
        Command::Test(options) => checks::run(&workspace, &options),
        Command::Soak { args } => run::soak(&workspace, &args),
        Command::Sim(seeds) => run::sim(&workspace, &seeds),
        Command::Bench { args } => bench::run(&workspace, &args),
        Command::Fuzz { target, seconds } => fuzz::run(&workspace, target.as_deref(), seconds),
        Command::Gen { check } => generate::run(&workspace, check),
        Command::Package(options) => package::run(&workspace, &options),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn demo_hands_every_argument_on() {
        let cli =
            Cli::parse_from(["xtask", "demo", "--json", "--events", "5", "--help", "--", "x"]);
        let Command::Demo { args } = cli.command else { panic!("not a demo") };
        assert_eq!(args, ["--json", "--events", "5", "--help", "--", "x"]);
    }
}
