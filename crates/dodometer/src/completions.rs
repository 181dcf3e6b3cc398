//! `dodometer completions`: what makes a shell complete `dodometer` at the Tab key.

use std::io::Write;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::CommandLine;

/// Print the file that makes a shell complete the subcommands and options of dodometer.
///
/// For bash: dodometer completions bash > ~/.local/share/bash-completion/completions/dodometer
#[derive(Args)]
pub(crate) struct Completions {
    /// The shell that is to complete.
    shell: Shell,
}

impl Completions {
    /// Prints the file.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mut command = CommandLine::command();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "dodometer", &mut script);
        let mut out = std::io::stdout().lock();
        out.write_all(&script).and_then(|()| out.flush()).context("cannot write to standard output")
    }
}
