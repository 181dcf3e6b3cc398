//! Starting commands whose output goes to a file, and ending those that hang.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a running command is looked at.
const POLL: Duration = Duration::from_millis(20);

/// The output of one step: a file, shown while it grows if `echo` is set.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    echo: Option<File>,
}

impl Log {
    pub(crate) fn create(path: PathBuf, echo: bool) -> Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        }
        fs::write(&path, "").with_context(|| path.display().to_string())?;
        let file = File::options().append(true).open(&path)?;
        let echo = if echo { Some(File::open(&path)?) } else { None };
        Ok(Self { path, file, echo })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn text(&self) -> Result<String> {
        let bytes = fs::read(&self.path).with_context(|| self.path.display().to_string())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub(crate) fn line(&mut self, line: &str) -> Result<()> {
        writeln!(self.file, "{line}")?;
        self.show()
    }

    pub(crate) fn is_shown(&self) -> bool {
        self.echo.is_some()
    }

    /// Runs a command to its end, both outputs into the log, nothing to read; an exit status other than 0 is an error.
    pub(crate) fn run(&mut self, command: &mut Command, limit: Duration) -> Result<()> {
        let output = self.file.try_clone()?;
        self.run_into(command, limit, output)
    }

    /// The same with the standard output into another file.
    pub(crate) fn run_into(
        &mut self,
        command: &mut Command,
        limit: Duration,
        output: File,
    ) -> Result<()> {
        let described = describe(command);
        self.line(&format!("$ {described}"))?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(self.file.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot start {described}"))?;
        let status = self.wait(&mut child, limit)?;
        self.show()?;
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("{described}: {status}"),
            None => bail!("{described}: still running after {} s, ended", limit.as_secs()),
        }
    }

    fn wait(&mut self, child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            if started.elapsed() > limit {
                kill_tree(child);
                return Ok(None);
            }
            self.show()?;
            thread::sleep(POLL);
        }
    }

    fn show(&mut self) -> Result<()> {
        if let Some(echo) = &mut self.echo {
            let mut fresh = Vec::new();
            echo.read_to_end(&mut fresh)?;
            let mut stdout = io::stdout().lock();
            stdout.write_all(&fresh)?;
            stdout.flush()?;
        }
        Ok(())
    }
}

/// What a shell would be told, near enough to copy.
pub(crate) fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    for word in &mut words {
        if word.is_empty() || word.contains([' ', '\'', '"', '$', '\n', '*', ';']) {
            *word = format!("'{}'", word.replace('\'', r"'\''"));
        }
    }
    words.join(" ")
}

/// Standard output of a short command, or why there is none.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let described = describe(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {described}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("{described}: {}: {}", output.status, words.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{described}: not UTF-8"))
}

/// A hung test runner has children of its own, and they are what hangs.
fn kill_tree(child: &mut Child) {
    if cfg!(unix)
        && let Ok(table) = capture(Command::new("ps").args(["-A", "-o", "pid=", "-o", "ppid="]))
    {
        for pid in descendants(&table, child.id()) {
            // It may have ended by itself in the meantime.
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).output();
        }
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// The processes below `root` in a table of `pid ppid` lines.
fn descendants(table: &str, root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for line in table.lines() {
        let mut words = line.split_whitespace().map(str::parse::<u32>);
        if let (Some(Ok(pid)), Some(Ok(parent))) = (words.next(), words.next()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(parent) = open.pop() {
        for pid in children.remove(&parent).unwrap_or_default() {
            found.push(pid);
            open.push(pid);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> (tempfile::TempDir, Log) {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::create(directory.path().join("a").join("step.log"), false).unwrap();
        (directory, log)
    }

    #[test]
    fn commands_are_described_as_a_shell_would_take_them() {
        let mut command = Command::new("pytest");
        command.args(["-k", "a b", "", "it's"]);
        assert_eq!(describe(&command), r"pytest -k 'a b' '' 'it'\''s'");
    }

    #[test]
    fn descendants_are_found_through_generations_and_not_beside() {
        let table = "  1 0\n 10 1\n 11 10\n 12 11\n 13 1\n 14 10\nnonsense\n";
        let mut found = descendants(table, 10);
        found.sort_unstable();
        assert_eq!(found, [11, 12, 14]);
    }

    #[cfg(unix)]
    #[test]
    fn both_outputs_are_kept_and_a_failure_is_told() {
        let (_directory, mut log) = log();
        let limit = Duration::from_secs(60);
        log.run(Command::new("sh").args(["-c", "echo out; echo err >&2"]), limit).unwrap();
        let error = log.run(Command::new("sh").args(["-c", "exit 3"]), limit).unwrap_err();
        assert!(error.to_string().contains("exit status: 3"), "{error}");
        assert_eq!(
            log.text().unwrap(),
            "$ sh -c 'echo out; echo err >&2'\nout\nerr\n$ sh -c 'exit 3'\n"
        );
    }

    #[cfg(unix)]
    #[test]
    fn what_hangs_is_ended_with_its_children() {
        use std::io::BufRead as _;

        let (_directory, mut log) = log();
        let started = Instant::now();
        let error =
            log.run(Command::new("sleep").arg("600"), Duration::from_millis(300)).unwrap_err();
        assert!(error.to_string().contains("still running"), "{error}");

        let mut hangs = Command::new("sh");
        hangs.args(["-c", "sleep 600 & echo $!; wait"]);
        hangs.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = hangs.spawn().unwrap();
        // Its own child is there before the limit is.
        let mut line = String::new();
        io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid: u32 = line.trim().parse().unwrap();
        assert!(log.wait(&mut child, Duration::ZERO).unwrap().is_none(), "it hangs");
        if Command::new("ps").arg("-A").output().is_ok() {
            let has_ended = || {
                let alive = Command::new("kill").args(["-0", &pid.to_string()]).output().unwrap();
                // A zombie that nobody has reaped yet still takes signals: look at its state.
                let state =
                    capture(Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]));
                !alive.status.success() || state.is_ok_and(|state| state.starts_with('Z'))
            };
            // It ends a moment after the signal was sent.
            while !has_ended() {
                assert!(started.elapsed() < Duration::from_secs(60), "{pid} lives");
                thread::sleep(POLL);
            }
        }
        assert!(started.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let (_directory, mut log) = log();
        let error =
            log.run(&mut Command::new("no-such-program"), Duration::from_secs(1)).unwrap_err();
        assert!(error.to_string().contains("no-such-program"), "{error}");
    }
}
