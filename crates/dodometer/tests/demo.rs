//! `dodometer demo` as a process of its own: the bill is exact, also when the meter goes away.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn demo(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dodometer"));
    for (name, _) in std::env::vars_os() {
        let shown = name.to_string_lossy();
        if shown.starts_with("DODO_") || shown == "RUST_LOG" {
            command.env_remove(&name);
        }
    }
    command.arg("demo").args(arguments).stdin(Stdio::null());
    command
}

#[cfg(unix)]
#[test]
fn a_limit_on_the_size_of_files_does_not_kill_it() {
    // A file beyond the limit already: the first line of the demo has no room.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.txt");
    std::fs::write(&path, [b'x'; 4096]).unwrap();
    let full = std::fs::File::options().append(true).open(&path).unwrap();
    let demo = command(&["--seconds", "1", "--rate", "5"]);
    let mut limited = Command::new("sh");
    limited.args(["-c", r#"ulimit -f 1 && exec "$0" "$@""#]).arg(demo.get_program());
    limited.args(demo.get_args()).stdin(Stdio::null()).stdout(full);
    let Output { status, stderr, .. } = limited.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("dodometer: "), "{stderr}");
}

/// The lines of a demo that went well, and the JSON of the last one.
fn bill(arguments: &[&str]) -> (Vec<String>, Value) {
    let Output { status, stdout, stderr } = demo(arguments);
    let stdout = String::from_utf8(stdout).unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(0), "{stdout}\n{stderr}");
    assert!(!stdout.contains('\x1b') && !stderr.contains('\x1b'), "colours are for terminals");
    let lines: Vec<String> = stdout.lines().map(ToOwned::to_owned).collect();
    let address = lines[0].strip_prefix("page      http://127.0.0.1:").unwrap();
    assert_ne!(address.strip_suffix('/').unwrap().parse::<u16>().unwrap(), 0);
    let report = serde_json::from_str(lines.last().unwrap()).unwrap();
    (lines, report)
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("{field} in {value}"))
}

fn assert_exact(report: &Value) {
    let accepted = number(report, "accepted");
    assert!(accepted > 0);
    assert_eq!(metered(report), accepted);
    assert_eq!(number(report, "spooled"), 0);
    assert_customers(report);
}

/// Calls that were billed, and calls that were errors.
fn metered(report: &Value) -> u64 {
    let errors = number(report, "errors");
    assert!(errors > 0, "one route is flaky: {report}");
    number(report, "billed") + errors
}

fn assert_customers(report: &Value) {
    let billed = number(report, "billed");
    assert_eq!(number(report, "dead_lettered"), 0);
    let customers = report["customers"].as_array().unwrap();
    let sum = |of| customers.iter().map(|customer| number(customer, of)).sum::<u64>();
    assert_eq!((sum("calls"), sum("errors")), (billed, number(report, "errors")));
    assert_eq!(sum("amount"), 2 * billed, "errors cost nothing");
    for customer in customers {
        assert!(customer["customer_id"].as_str().unwrap().starts_with("cus_"));
        assert!(customer["p50_ms"].as_f64().unwrap() <= customer["p95_ms"].as_f64().unwrap());
        assert_eq!(number(customer, "amount"), 2 * number(customer, "calls"));
    }
}

#[test]
fn every_call_is_billed_in_few_requests() {
    let (lines, report) = bill(&["--seconds", "5", "--json"]);
    assert_exact(&report);
    let calls_a_request = number(&report, "accepted") / number(&report, "requests");
    assert!(calls_a_request >= 20, "{report}");
    assert!(lines.iter().any(|line| line.starts_with("cus_acme ") && line.contains('$')));
    assert!(lines.iter().any(|line| line.starts_with("accepted ")));
}

#[test]
fn an_outage_costs_nothing() {
    let (lines, report) = bill(&["--seconds", "5", "--outage", "1s", "--json"]);
    assert_exact(&report);
    let at = |words: &str| lines.iter().position(|line| line.contains(words)).expect(words);
    assert!(at("the meter goes down for 1s") < at("the meter is back"));
}

#[test]
fn workers_send_as_one_and_are_billed_as_one() {
    let (lines, report) = bill(&["--seconds", "5", "--workers", "3", "--json"]);
    assert_customers(&report);
    assert_eq!((number(&report, "workers"), number(&report, "kills")), (3, 0));
    assert_eq!(metered(&report), number(&report, "accepted"));
    assert!(number(&report, "billed") / number(&report, "requests") >= 20, "{report}");
    assert!(lines.contains(&"workers 3, killed 0".to_owned()), "{lines:?}");
}

#[test]
fn a_killed_worker_takes_no_call_along() {
    let arguments = ["--seconds", "5", "--workers", "2", "--kill", "--outage", "1s", "--json"];
    let (lines, report) = bill(&arguments);
    assert_customers(&report);
    assert_eq!((number(&report, "workers"), number(&report, "kills")), (2, 1));
    let metered = metered(&report);
    // Where nothing was under way with the worker, everybody was answered.
    if report["accepted"].is_null() {
        let answered = number(&report, "accepted_at_least");
        assert!((answered..=number(&report, "accepted_at_most")).contains(&metered), "{report}");
    } else {
        assert_eq!(number(&report, "accepted"), metered);
    }
    let at = |words: &str| lines.iter().position(|line| line.contains(words)).expect(words);
    assert!(at("worker 1 is killed") < at("worker 1 is back, as another process"));
    assert!(at("the meter goes down for 1s") < at("the meter is back"));
}

#[test]
fn workers_keep_what_a_killed_one_left_whatever_the_environment_says() {
    let mut command = command(&["--seconds", "1", "--rate", "50", "--workers", "2", "--kill"]);
    let Output { status, stdout, stderr } =
        command.env("DODO_INGESTION_DURABILITY", "memory").output().unwrap();
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
    assert_eq!(status.code(), Some(0), "{stdout}\n{stderr}");
}

#[test]
fn workers_end_with_a_demo_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(&["--seconds", "600", "--workers", "2"]);
    command.env("TMPDIR", folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut killed = command.spawn().unwrap();
    let mut lines = BufReader::new(killed.stdout.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().starts_with("API ")).unwrap().unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    // It is the workers' as well, and ends with the last of them.
    let mut told = String::new();
    killed.stderr.unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(told.matches("the demo is gone").count(), 2, "{told}");
}

#[test]
fn without_a_terminal_it_prints_the_bill_and_ends() {
    let Output { status, stdout, .. } = demo(&["--seconds", "1", "--rate", "50"]);
    assert_eq!(status.code(), Some(0));
    let stdout = String::from_utf8(stdout).unwrap();
    assert_eq!(
        stdout.lines().last(),
        Some("every accepted call is billed, once; errors are not billed"),
        "{stdout}"
    );
}

#[test]
fn what_cannot_be_done_is_said_clearly() {
    for (arguments, words) in [
        (["--outage", "3"], "give a number and a unit"),
        (["--listen", "0.0.0.0:0"], "only addresses of this machine"),
        (["--seconds", "0"], "not in 1..=3600"),
        (["--workers", "0"], "not in 1..=32"),
        (["--kill", "--json"], "--workers <NUMBER>"),
    ] {
        let Output { status, stderr, .. } = demo(&arguments);
        let stderr = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let Output { status, stderr, .. } = demo(&["--listen", &address]);
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&format!("cannot listen on {address}")), "{stderr}");
}
