//! Child processes that are talked to in lines: what they are told on their standard input, what they tell as JSON on
//! their standard output.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::de::DeserializeOwned;

/// A child process. Ends with its owner.
#[derive(Debug)]
pub(crate) struct Talking {
    process: Child,
    told: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
}

impl Drop for Talking {
    fn drop(&mut self) {
        // Nothing is left to do about a child that is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Talking {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().with_context(|| {
                format!("{} cannot be started", command.get_program().display())
            })?;
        let told = process.stdin.take();
        let replies = BufReader::new(process.stdout.take().context("no standard output")?);
        Ok(Self { process, told, replies })
    }

    pub(crate) fn tell(&mut self, line: &str) -> Result<()> {
        let told = self.told.as_mut().context("no standard input")?;
        Ok(writeln!(told, "{line}")?)
    }

    pub(crate) fn reply<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        ensure!(self.replies.read_line(&mut line)? > 0, "a child process has ended");
        serde_json::from_str(&line).with_context(|| format!("a child process said {line:?}"))
    }

    /// Ends what it is told, takes its last reply, and waits for its own end.
    pub(crate) fn finish<T: DeserializeOwned>(mut self) -> Result<T> {
        drop(self.told.take());
        let reply = self.reply()?;
        let status = self.process.wait()?;
        ensure!(status.success(), "a child process failed: {status}");
        Ok(reply)
    }
}
