//! How many tests ran: read from the closing lines of the test runners.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::AddAssign;

/// A test runner, known by how it closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runner {
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; …`, once for each test binary
    Cargo,
    /// `3 passed, 1 skipped in 0.12s`, with or without a frame of `=`
    Pytest,
    /// `ℹ pass 3` or `# pass 3`, and further lines
    Node,
    /// `[INFO] Tests run: 3, Failures: 0, Errors: 0, Skipped: 0`, once for each module
    Surefire,
}

/// With this begins what a test says that could not do its work, and that cargo's runner counts as passed.
const NOT_TESTED: &str = "NOT TESTED: ";

/// Numbers of tests.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    /// Of those that failed, the names that the runner told.
    pub(crate) failures: Vec<String>,
    /// Of those skipped, what was not tested, and why.
    pub(crate) not_tested: Vec<String>,
}

impl Tally {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Counts as skipped what says that it was not tested.
    fn without(mut self, not_tested: Vec<String>) -> Self {
        let count = (not_tested.len() as u64).min(self.passed);
        self.passed -= count;
        self.skipped += count;
        self.not_tested = not_tested;
        self
    }

    fn add(&mut self, count: u64, what: &str) {
        match what {
            "passed" | "pass" | "xpassed" => self.passed += count,
            "failed" | "fail" | "cancelled" | "error" | "errors" => self.failed += count,
            "ignored" | "skipped" | "todo" | "xfailed" => self.skipped += count,
            _ => {}
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
        self.not_tested.extend(other.not_tested);
    }
}

/// The plain closing line.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

impl Runner {
    /// What this runner counted in `output`.
    pub(crate) fn tally(self, output: &str) -> Tally {
        let output = without_colours(output);
        let lines = output.lines().map(str::trim);
        let failures = lines.clone().filter_map(|line| self.failure(line)).collect::<BTreeSet<_>>();
        let tally = match self {
            Self::Cargo => {
                let not_tested = lines.clone().filter_map(not_tested_line).collect();
                sum(lines.filter_map(cargo_line)).without(not_tested)
            }
            Self::Pytest => lines.rev().find_map(pytest_line).unwrap_or_default(),
            Self::Node => sum(lines.filter_map(node_line)),
            Self::Surefire => sum(lines.filter_map(surefire_line)),
        };
        Tally { failures: failures.into_iter().map(str::to_owned).collect(), ..tally }
    }

    /// The name of a test that failed, if a line tells of one.
    fn failure(self, line: &str) -> Option<&str> {
        match self {
            Self::Cargo => line.strip_prefix("test ")?.strip_suffix(" ... FAILED"),
            Self::Pytest => {
                let line = line.strip_prefix("FAILED ").or_else(|| line.strip_prefix("ERROR "))?;
                let name = line.split_once(" - ").map_or(line, |(name, _)| name);
                // What is logged stands further in.
                (name.contains(".py") && !name.starts_with(' ')).then_some(name)
            }
            Self::Node => match line.strip_prefix("not ok ") {
                Some(line) => line.split_once(" - ").map(|(_, name)| name),
                // With how long it took behind it; the heading of their list has none.
                None => line.strip_prefix("✖ ")?.rsplit_once(" (").map(|(name, _)| name),
            },
            Self::Surefire => {
                let (line, _) = line.strip_prefix("[ERROR] ")?.split_once(" <<< ")?;
                // The line of a class has its name behind that.
                line.split_once(" -- ").map(|(name, _)| name)
            }
        }
    }
}

fn sum(tallies: impl Iterator<Item = Tally>) -> Tally {
    tallies.fold(Tally::default(), |mut total, tally| {
        total += tally;
        total
    })
}

fn cargo_line(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    Some(counted(counts.split("; ")))
}

/// The runner may have begun the line.
fn not_tested_line(line: &str) -> Option<String> {
    Some(line.split_once(NOT_TESTED)?.1.to_owned())
}

fn pytest_line(line: &str) -> Option<Tally> {
    let (counts, time) = line.trim_matches(['=', ' ']).rsplit_once(" in ")?;
    let seconds = time.split_whitespace().next()?.strip_suffix('s')?;
    seconds.parse::<f64>().ok()?;
    Some(counted(counts.split(", ")))
}

fn node_line(line: &str) -> Option<Tally> {
    let line = line.strip_prefix("# ").or_else(|| line.strip_prefix("ℹ "))?;
    let (what, count) = line.split_once(' ')?;
    let mut tally = Tally::default();
    tally.add(count.parse().ok()?, what);
    Some(tally)
}

fn surefire_line(line: &str) -> Option<Tally> {
    // With a time it is the line of one class, which the module's line repeats.
    let (_, counts) = line.split_once("Tests run: ")?;
    if counts.contains("Time elapsed") {
        return None;
    }
    let mut numbers = counts.split(", ").map(|field| {
        let digits = field.rsplit(' ').next().unwrap_or_default();
        digits.parse::<u64>().ok()
    });
    let run = numbers.next()??;
    let failures = numbers.next()??;
    let errors = numbers.next()??;
    let skipped = numbers.next()??;
    let failed = failures + errors;
    let passed = run.saturating_sub(failed + skipped);
    Some(Tally { passed, failed, skipped, ..Tally::default() })
}

/// Sums fields like `3 passed`.
fn counted<'a>(fields: impl Iterator<Item = &'a str>) -> Tally {
    let mut tally = Tally::default();
    for field in fields {
        if let Some((count, what)) = field.trim().split_once(' ')
            && let Ok(count) = count.parse()
        {
            tally.add(count, what);
        }
    }
    tally
}

/// Takes out the escape sequences that colour a terminal.
fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.trim_start_matches(|c: char| !('@'..='~').contains(&c));
        let mut characters = rest.chars();
        characters.next();
        rest = characters.as_str();
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(passed: u64, failed: u64, skipped: u64) -> Tally {
        Tally { passed, failed, skipped, ..Tally::default() }
    }

    #[test]
    fn cargo_sums_every_binary_and_the_doc_tests() {
        let output = "\
running 2 tests
test a ... ok
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

     Running tests/b.rs
test result: FAILED. 5 passed; 2 failed; 0 ignored; 0 measured; 3 filtered out; finished in 1.20s
   Doc-tests core
test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.31s
";
        assert_eq!(Runner::Cargo.tally(output), tally(11, 2, 1));
    }

    #[test]
    fn what_failed_is_named() {
        let of = |runner: Runner, output: &str| runner.tally(output).failures;
        let cargo = "test a::b ... ok\ntest a::c - should panic ... FAILED\n\nfailures:\n    a::c";
        assert_eq!(of(Runner::Cargo, cargo), ["a::c - should panic"]);
        let pytest = "\
FAILED tests/test_a.py::test_b[c d] - AssertionError: assert 1 - 2 == 3
ERROR tests/test_e.py - ModuleNotFoundError: No module named 'f'
ERROR    root:test_g.py:12 a line of some log
FAILED to connect";
        let named = ["tests/test_a.py::test_b[c d]", "tests/test_e.py"];
        assert_eq!(of(Runner::Pytest, pytest), named);
        let tap = "ok 1 - a\n    not ok 2 - b - c\nnot ok 3 - d";
        assert_eq!(of(Runner::Node, tap), ["b - c", "d"]);
        let spec = "✔ a (1.2ms)\n  ✖ b (c) (0.5ms)\n✖ failing tests:\n✖ b (c) (0.5ms)";
        assert_eq!(of(Runner::Node, spec), ["b (c)"]);
        let surefire = "\
[ERROR] Tests run: 2, Failures: 1, Errors: 0, Skipped: 0, Time elapsed: 0.1 s <<< FAILURE! -- in com.example.ATest
[ERROR] com.example.ATest.b -- Time elapsed: 0.02 s <<< FAILURE!
[ERROR] com.example.ATest.c -- Time elapsed: 0.02 s <<< ERROR!";
        assert_eq!(of(Runner::Surefire, surefire), ["com.example.ATest.b", "com.example.ATest.c"]);
    }

    #[test]
    fn what_cargo_counts_as_passed_and_was_not_tested_is_skipped_and_named() {
        let output = "\
running 3 tests
NOT TESTED: full ext4: no mkfs.ext4
test an_ext4_that_is_full ... ok
test a_tmpfs_that_is_full ... NOT TESTED: full tmpfs: a child can have no mounts of its own
ok
test a_file_that_may_grow_no_more ... ok
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
";
        let not_tested = vec![
            "full ext4: no mkfs.ext4".to_owned(),
            "full tmpfs: a child can have no mounts of its own".to_owned(),
        ];
        assert_eq!(Runner::Cargo.tally(output), Tally { not_tested, ..tally(1, 0, 3) });
    }

    #[test]
    fn pytest_is_read_in_both_its_forms() {
        let framed = "==== 1 failed, 12 passed, 2 skipped, 1 xfailed, 3 warnings, 1 error in 65.02s (0:01:05) ====";
        assert_eq!(Runner::Pytest.tally(framed), tally(12, 2, 3));
        assert_eq!(Runner::Pytest.tally("....\n3 passed in 0.12s\n"), tally(3, 0, 0));
        assert_eq!(Runner::Pytest.tally("no tests ran in 0.01s"), tally(0, 0, 0));
    }

    #[test]
    fn pytest_is_not_misled_by_prose() {
        let output = "a test that 3 passed in vain\n2 passed in 0.10s\nlogs are in /tmp";
        assert_eq!(Runner::Pytest.tally(output), tally(2, 0, 0));
    }

    #[test]
    fn node_is_read_from_both_reporters_in_colour() {
        let spec = "\u{1b}[34mℹ tests 6\u{1b}[39m\n\u{1b}[34mℹ pass 3\u{1b}[39m\nℹ fail 1\nℹ cancelled 1\nℹ skipped 1\nℹ todo 0\nℹ duration_ms 12.5";
        assert_eq!(Runner::Node.tally(spec), tally(3, 2, 1));
        assert_eq!(Runner::Node.tally("# tests 2\n# pass 2\n# fail 0\n"), tally(2, 0, 0));
    }

    #[test]
    fn surefire_counts_modules_and_not_classes_twice() {
        let output = "\
[INFO] Running com.example.ATest
[INFO] Tests run: 3, Failures: 0, Errors: 0, Skipped: 1, Time elapsed: 0.04 s -- in com.example.ATest
[INFO] Results:
[ERROR] Tests run: 9, Failures: 1, Errors: 2, Skipped: 1
[INFO] Tests run: 4, Failures: 0, Errors: 0, Skipped: 0
";
        assert_eq!(Runner::Surefire.tally(output), tally(9, 3, 1));
    }

    #[test]
    fn silence_counts_nothing() {
        for runner in [Runner::Cargo, Runner::Pytest, Runner::Node, Runner::Surefire] {
            assert!(runner.tally("").is_empty());
            assert!(runner.tally("error: could not compile `core`").is_empty());
        }
    }

    #[test]
    fn the_closing_line_is_plain() {
        assert_eq!(tally(12, 0, 3).to_string(), "12 passed, 0 failed, 3 skipped");
    }
}
