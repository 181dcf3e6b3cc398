//! The `dodometer` process that bills the writers.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::process::{PATIENCE, Process, Signal, program_beside};

/// A running meter, which keeps its port and its file over restarts.
pub(crate) struct Meter {
    program: PathBuf,
    data: PathBuf,
    limited: bool,
    address: SocketAddr,
    process: Process,
}

/// What the meter says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) calls: u64,
    /// Requests answered, refused ones included.
    pub(crate) requests: u64,
    pub(crate) refused: u64,
    /// Events that came once more.
    pub(crate) duplicates: u64,
}

impl Meter {
    /// A meter with an empty file, which refuses what the billing API would if `limited` is set.
    pub(crate) fn start(data: PathBuf, limited: bool) -> Result<Self> {
        let program = match env::var_os("DODOMETER_BIN") {
            Some(program) => PathBuf::from(program),
            None => program_beside("dodometer", "cargo build -p dodometer")?,
        };
        let (process, address) = launch(&program, &data, limited, ([127, 0, 0, 1], 0).into())?;
        Ok(Self { program, data, limited, address, process })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// SIGKILL, and after a while a new process on the same port and file.
    pub(crate) fn kill_and_restart(&mut self, away: Duration) -> Result<()> {
        self.process.kill()?;
        thread::sleep(away);
        // While nobody listens, the port may be lent to somebody's outgoing connection.
        let start = Instant::now();
        self.process = loop {
            match launch(&self.program, &self.data, self.limited, self.address) {
                Ok((process, _)) => break process,
                Err(error) if start.elapsed() > PATIENCE => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        };
        Ok(())
    }

    /// The totals of its bill.
    pub(crate) fn totals(&self) -> Result<Totals> {
        let bill = self.get("/_dev/bill")?;
        let total = |name: &str| {
            let total = &bill["totals"][name];
            total.as_u64().with_context(|| format!("totals.{name} in {bill}"))
        };
        Ok(Totals {
            calls: total("calls")?,
            requests: total("requests")?,
            refused: total("requests_refused")?,
            duplicates: total("duplicates_ignored")?,
        })
    }

    fn get(&self, path: &str) -> Result<Value> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let host = self.address;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("half an answer of the meter")?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "the meter answered {answer}");
        serde_json::from_str(body).with_context(|| answer.clone())
    }

    /// Ends the meter, and reads from its file which ids are billed; one line for each billing.
    pub(crate) fn close(mut self) -> Result<Vec<String>> {
        self.process.kill()?;
        billed_ids(&self.data).with_context(|| self.data.display().to_string())
    }
}

fn launch(
    program: &Path,
    data: &Path,
    limited: bool,
    address: SocketAddr,
) -> Result<(Process, SocketAddr)> {
    let mut command = Command::new(program);
    command.args(["serve", "--json", "--listen", &address.to_string(), "--data"]).arg(data);
    command.args(limited.then_some("--rate-limit"));
    command.env_remove("DODOMETER_KEYS").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = Process::start("the meter", &mut command)?;
    let mut line = String::new();
    let stdout = process.child.stdout.as_mut().context("the meter's output")?;
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(!line.is_empty(), "the meter did not start on {address}; it has said why");
    let ready: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
    let address = ready["listening"].as_str().context("an address")?.parse()?;
    Ok((process, address))
}

fn billed_ids(data: &Path) -> rusqlite::Result<Vec<String>> {
    // Writable: what the killed meter left in its write-ahead log is taken in.
    let connection = Connection::open_with_flags(data, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mut statement = connection.prepare("SELECT event_id FROM event")?;
    statement.query_map([], |row| row.get(0))?.collect()
}
