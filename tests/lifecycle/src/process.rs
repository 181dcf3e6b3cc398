//! A child process that dies with its handle, and the signals it is sent.

use std::env;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long anything may take that has to happen. A bound for failures, not a measurement.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

const POLL: Duration = Duration::from_millis(20);

/// A child process. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    pub(crate) child: Child,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    Stop,
    Continue,
}

impl Process {
    pub(crate) fn start(name: impl Into<String>, command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { name: name.into(), child })
    }

    /// SIGKILL, and waits until the process is gone.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.child.wait()?;
        Ok(())
    }

    #[cfg(unix)]
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let signal = match signal {
            Signal::Stop => rustix::process::Signal::STOP,
            Signal::Continue => rustix::process::Signal::CONT,
        };
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)
            .with_context(|| format!("cannot signal {}", self.name))
    }

    #[cfg(not(unix))]
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        bail!("{signal:?} of {}: this system has no such signal", self.name)
    }

    /// How the process ended, if it did.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for the process to end well by itself.
    pub(crate) fn join(&mut self) -> Result<()> {
        let mut status = None;
        wait_until(&format!("{} ends", self.name), || {
            status = self.ended()?;
            Ok(status.is_some())
        })?;
        ensure!(status.is_some_and(|status| status.success()), "{} ended: {status:?}", self.name);
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for something that has to come about.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_while_it_moves(what, || Ok((holds()?, 0)))
}

/// Waits for something that may take long, and gives up once its progress, the second value, stands
/// still for too long.
pub(crate) fn wait_while_it_moves(
    what: &str,
    mut look: impl FnMut() -> Result<(bool, u64)>,
) -> Result<()> {
    let (mut moved, mut progress) = (Instant::now(), 0);
    loop {
        let (holds, now) = look()?;
        if holds {
            return Ok(());
        }
        if now != progress {
            (moved, progress) = (Instant::now(), now);
        }
        if moved.elapsed() > PATIENCE {
            bail!("nothing moved for {PATIENCE:?}: {what}");
        }
        thread::sleep(POLL);
    }
}

/// A program that cargo has put beside this one, or above it where this one is a test.
pub(crate) fn program_beside(name: &str, how_to_build: &str) -> Result<PathBuf> {
    let this = env::current_exe().context("the path of this program")?;
    let file = format!("{name}{}", env::consts::EXE_SUFFIX);
    let found = this.ancestors().skip(1).take(2).map(|dir| dir.join(&file)).find(|at| at.is_file());
    found.with_context(|| {
        format!("there is no {file} beside {}: run `{how_to_build}`", this.display())
    })
}
