//! The same loop as the tests run, for as long as one likes: `cargo xtask soak`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use dodo_ingestion_lifecycle::{Plan, Report, run};

/// Kills of one round, after which the bill is looked at.
const ROUND: u32 = 100;

#[derive(Parser)]
#[command(name = "cargo xtask soak", about = "Runs a test's loop for longer")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Kill and stop writers, senders and the meter, and hold the bill against what was accepted
    Kill {
        /// How many processes to kill
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        count: u32,
        /// Who is killed, and when; by default another every time
        #[arg(long)]
        seed: Option<u64>,
    },
}

fn main() -> ExitCode {
    let Arguments { what: What::Kill { count, seed } } = Arguments::parse();
    match kill(count, seed) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nobody is left to tell if this fails too.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// True when every bill was right.
fn kill(count: u32, seed: Option<u64>) -> Result<bool> {
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    say(&format!("seed {seed}"))?;
    let mut rounds: Vec<Report> = Vec::new();
    let mut left = count;
    while left > 0 {
        let kills = left.min(ROUND);
        let report = run(&Plan::mixed(kills), seed.wrapping_add(rounds.len() as u64))?;
        say(&report.to_string())?;
        rounds.push(report);
        left -= kills;
    }
    let sum = |of: fn(&Report) -> u64| rounds.iter().map(of).sum::<u64>();
    let wrong = sum(|round| round.differences.len() as u64);
    say(&format!(
        "kills {}, accepted {}, billed {}, requests {}, differences {wrong}",
        sum(|round| u64::from(round.kills.total())),
        sum(|round| round.accepted as u64),
        sum(|round| round.billed as u64),
        sum(|round| round.requests),
    ))?;
    Ok(wrong == 0)
}

fn say(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}
