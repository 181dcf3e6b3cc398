//! The writer processes of a namespace.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::notes;
use crate::plan::Budget;
use crate::process::{Process, Signal, program_beside};

const MOMENT: Duration = Duration::from_micros(500);
/// What stands in front of a record's body in a spool: written down here once more, so that these tests do not go by
/// the code that they test.
const RECORD_HEADER: usize = 48;

/// What every writer is started with.
pub(crate) struct Settings {
    program: PathBuf,
    url: String,
    spool: PathBuf,
    notes: PathBuf,
    budget: Budget,
}

/// How fast a thread makes calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// How many it makes as fast as it can before it rests.
    pub(crate) burst: u64,
    /// How many it makes in such bursts; then it rests after each.
    pub(crate) hasty: u64,
    /// How many microseconds a rest takes.
    pub(crate) rest_us: u64,
}

impl Settings {
    pub(crate) fn new(url: String, dir: &Path, budget: Budget) -> Result<Self> {
        let build = "cargo build -p dodo-ingestion-lifecycle";
        let program = program_beside("writer", build)?;
        let (spool, notes) = (dir.join("spool"), dir.join("notes"));
        fs::create_dir(&notes)?;
        Ok(Self { program, url, spool, notes, budget })
    }

    pub(crate) fn notes(&self) -> &Path {
        &self.notes
    }

    /// Starts a writer whose ids begin with `name`.
    pub(crate) fn start(&self, name: String, threads: usize, pace: Pace) -> Result<Writer> {
        let mut command = Command::new(&self.program);
        command.args(["--name", &name]).arg("--notes").arg(&self.notes);
        let Pace { burst, hasty, rest_us } = pace;
        let numbers = [("threads", threads as u64), ("burst", burst), ("hasty", hasty)];
        for (option, number) in numbers.into_iter().chain([("rest-us", rest_us)]) {
            command.arg(format!("--{option}={number}"));
        }
        // A writer is configured as any program of a user is.
        for variable in std::env::vars_os().map(|(variable, _)| variable) {
            if variable.to_string_lossy().starts_with("DODO_") {
                command.env_remove(variable);
            }
        }
        command
            .env_remove("RUST_BACKTRACE")
            .env("DODO_PAYMENTS_API_KEY", "sk_test_lifecycle")
            .env("DODO_PAYMENTS_ENVIRONMENT", "test_mode")
            .env("DODO_PAYMENTS_BASE_URL", &self.url)
            .env("DODO_INGESTION_EVENT_NAME", "api_call")
            .env("DODO_INGESTION_SPOOL_DIR", &self.spool);
        match self.budget {
            Budget::Ample => command
                .env("DODO_INGESTION_REQUESTS_PER_MINUTE", "6000")
                .env("DODO_INGESTION_REQUESTS_PER_SECOND", "100")
                .env("DODO_INGESTION_LINGER", "0.05")
                // So short that a stopped meter makes a request time out.
                .env("DODO_INGESTION_REQUEST_TIMEOUT", "1"),
            Budget::Published => command.env("DODO_INGESTION_LINGER", "0"),
        };
        let stderr = File::create(self.notes.join(format!("{name}.stderr")))?;
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(stderr);
        Ok(Writer {
            process: Process::start(&name, &mut command)?,
            name,
            notes: self.notes.clone(),
        })
    }

    /// The names of the namespace's spools.
    pub(crate) fn spools(&self) -> Result<HashSet<OsString>> {
        let mut names = HashSet::new();
        for entry in fs::read_dir(self.namespace()?.join("spools"))? {
            names.insert(entry?.file_name());
        }
        Ok(names)
    }

    /// What lies in the namespace that never should after what is done here. So many writers as died in
    /// a call may each have left the beginning of a record.
    pub(crate) fn casualties(&self, died_in_a_call: u32) -> Result<Vec<String>> {
        let namespace = self.namespace()?;
        let [letters, quarantine] =
            ["dead-letters.jsonl", "quarantine"].map(|name| namespace.join(name));
        let mut left = Vec::from_iter(letters.exists().then(|| letters.display().to_string()));
        let mut begun = 0;
        if quarantine.exists() {
            for entry in fs::read_dir(quarantine)? {
                let at = entry?.path();
                let bytes = fs::read(&at)?;
                if begun < died_in_a_call && is_beginning(&bytes) {
                    begun += 1;
                } else {
                    let start = &bytes[..bytes.len().min(RECORD_HEADER)];
                    left.push(format!("{}, {} bytes: {start:02x?}", at.display(), bytes.len()));
                }
            }
        }
        Ok(left)
    }

    fn namespace(&self) -> Result<PathBuf> {
        let parent = self.spool.join("dodo-ingestion");
        let mut namespaces = fs::read_dir(&parent)?;
        match (namespaces.next(), namespaces.next()) {
            (Some(only), None) => Ok(only?.path()),
            _ => bail!("not one namespace in {}", parent.display()),
        }
    }
}

/// Whether bytes of a spool are a record that was not written to its end: its length is missing, which
/// is written last, or what it says is not there.
fn is_beginning(bytes: &[u8]) -> bool {
    let Some(body) = bytes.first_chunk().map(|length| u32::from_le_bytes(*length) as usize) else {
        return true;
    };
    body == 0 || bytes.len() < RECORD_HEADER + body
}

/// A running writer.
pub(crate) struct Writer {
    process: Process,
    name: String,
    notes: PathBuf,
}

impl Writer {
    pub(crate) fn is_sending(&self) -> bool {
        notes::is_sending(&self.notes, &self.name)
    }

    pub(crate) fn accepted_bytes(&self) -> Result<u64> {
        Ok(notes::bytes(&self.notes, &self.name)?.accepted)
    }

    /// Whether it has made a call within the last moment.
    pub(crate) fn makes_calls(&self) -> Result<bool> {
        let before = notes::bytes(&self.notes, &self.name)?;
        thread::sleep(MOMENT);
        Ok(notes::bytes(&self.notes, &self.name)?.attempted > before.attempted)
    }

    /// Whether a writer that was killed was in a call, as far as its notes tell.
    pub(crate) fn died_in_a_call(&self) -> Result<bool> {
        let bytes = notes::bytes(&self.notes, &self.name)?;
        Ok(bytes.attempted > bytes.accepted)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Fails if the writer has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.process.ended()? {
            None => Ok(()),
            Some(status) => bail!("writer {} ended: {status}{}", self.name, self.said()),
        }
    }

    /// Asks the writer to make no more calls and to close its client.
    pub(crate) fn ask_to_end(&mut self) {
        self.process.child.stdin = None;
    }

    /// Waits until a writer that was asked to end has done so.
    pub(crate) fn join(&mut self) -> Result<()> {
        self.process.join().with_context(|| format!("writer {}{}", self.name, self.said()))
    }

    fn said(&self) -> String {
        let said = fs::read_to_string(self.notes.join(format!("{}.stderr", self.name)));
        said.map_or_else(|_| String::new(), |said| format!(": {}", said.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_not_written_to_its_end_is_a_beginning() {
        let mut record = vec![7; RECORD_HEADER + 300];
        record[..4].copy_from_slice(&300_u32.to_le_bytes());
        assert!(!is_beginning(&record), "damaged or not, it was whole");
        for cut in [0, 3, 4, RECORD_HEADER, RECORD_HEADER + 299] {
            assert!(is_beginning(&record[..cut]), "{cut} bytes");
        }
        record[..4].fill(0);
        assert!(is_beginning(&record));
    }
}
