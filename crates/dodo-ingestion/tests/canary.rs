//! An API key and metadata that can be told from all else go through much of what tests/chaos.rs does,
//! and are then looked for in every file, log line, error, alarm and panic.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(unix)]

#[path = "support/chaos.rs"]
mod chaos;
#[path = "support/child.rs"]
mod child;
#[path = "support/floods.rs"]
mod floods;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaos::{
    Act, Chaos, KEY, PATIENT, UNTIL_HELD, client, commit, eventually, hang, refuse, reset, say,
    self_signed, well,
};
use child::Child;
use dodo_ingestion::{AlarmKind, ApiCall, ErrorKind};
use floods::{answer, floods};
use tempfile::{TempDir, tempdir};

const METADATA: &str = "metadata-kanarie-W5r8";
/// One for each flood and each torn answer.
const FLOODED_CALLS: usize = 20;
/// What no log line may hold.
const CONTROLS: &str = "\r\n2026-01-01 ERROR forged\u{1b}[31m\u{7}\u{9b}\0";

/// What proxies and careless servers do: they repeat what they were sent.
fn echo(status: &str, body: &str) -> Act {
    let (status, body) = (status.to_owned(), body.to_owned());
    refuse(move |wire| {
        let authorization = wire.head.lines().find(|line| line.contains("Bearer")).unwrap();
        let (_, key) = authorization.split_once("Bearer ").unwrap();
        let answer = format!("HTTP/1.1 {status}\r\nx-echo: Bearer ECHO\r\n\r\n{body}");
        wire.send(answer.replace("ECHO", key));
    })
}

#[test]
fn the_key_is_nowhere_and_metadata_only_where_it_is_kept() {
    let words = format!("no {CONTROLS} Authorization: Bearer ECHO {}", "long ".repeat(5_000));
    let json = |code: &str| serde_json::json!({"code": code, "message": words}).to_string();
    let mut answers = vec![
        echo("400 Bad Request", &json("INVALID_REQUEST_BODY")),
        echo("502 Bad Gateway", &words),
        refuse(reset),
        echo("500 Internal Server Error", &json("INTERNAL")),
        echo("401 Unauthorized", &json("UNAUTHORIZED")),
    ];
    let redirect = || echo("302 Found\r\nlocation: http://localhost:1/?key=ECHO", &words);
    answers.extend((0..UNTIL_HELD).map(|_| redirect()));
    let server = Chaos::with(answers);
    server.behave(Some(|| echo("503 Unavailable", "ECHO")));
    let (dir, log) = overhear("canary", &server.url(), this_binary());
    assert!(server.saw(KEY), "it was sent, to the one that it is for");

    assert_eq!(nothing_leaked(&dir, &log), ["dead", "segment"].map(str::to_owned).into());
    for needed in ["dead_lettered", "authentication", "address", "unreachable", "stack backtrace"] {
        assert!(log.contains(needed), "the log says nothing of {needed}: {log}");
    }
}

#[test]
fn floods_and_torn_answers_bring_nothing_to_light() {
    let torn = [
        refuse(|wire| _ = wire.send("HTTP/1.1 200 OK\r\ncontent-le")),
        commit(|wire| _ = wire.send(answer("content-length: 100\r\n", "{\"ingested_count\":1}"))),
        commit(|wire| _ = wire.send(answer("transfer-encoding: chunked\r\n", "50\r\n{\"inge"))),
        refuse(hang),
        say([0xff_u8; 4096]),
    ];
    let floods = floods().into_iter().map(|(_, flood)| flood).chain(torn);
    let server = Chaos::with(floods.flat_map(|flood| [flood, well()]));
    let (dir, log) = overhear("flooded", &server.url(), this_binary());
    assert!(server.requests() >= 2 * FLOODED_CALLS, "{} requests", server.requests());
    nothing_leaked(&dir, &log);
}

#[test]
fn a_server_that_cannot_prove_who_it_is_brings_nothing_to_light() {
    let server = Chaos::start(Some(self_signed("localhost")));
    let (dir, log) = overhear("held", &server.url(), this_binary());
    nothing_leaked(&dir, &log);
    assert!(log.contains("address") && server.ledger.lock().unwrap().connections > 0);
    assert!(!server.saw(KEY) && server.requests() == 0);
}

#[test]
fn a_disk_that_takes_no_more_brings_nothing_to_light() {
    let server = Chaos::start(None);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 16; exec \"$0\" \"$@\""]);
    command.arg(std::env::current_exe().unwrap());
    let (dir, log) = overhear("no room", &server.url(), command);
    assert!(log.contains("storage"), "the log says nothing of the disk: {log}");
    assert!(server.billed() > 0);
    nothing_leaked(&dir, &log);
}

fn this_binary() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

/// Runs a role in a child, by a command that ends in this binary; returns its spool's directory, and all
/// that it said.
fn overhear(role: &str, url: &str, mut command: Command) -> (TempDir, String) {
    let dir = tempdir().unwrap();
    // Not a file, for which the limits of the child would hold.
    let (mut log, end) = std::io::pipe().unwrap();
    command.stderr(end).env("RUST_BACKTRACE", "1");
    let env = [("CHILD_URL", url.to_owned()), ("CHILD_DIR", dir.path().display().to_string())];
    let env = env.each_ref().map(|(name, value)| (*name, value.as_ref()));
    let hearing = std::thread::spawn(move || {
        let mut heard = String::new();
        log.read_to_string(&mut heard).unwrap();
        heard
    });
    Child::run(command, "child_process", role, &env).succeeds();
    (dir, hearing.join().unwrap())
}

/// Looks into every file and every line of the log; returns what kinds of files hold metadata.
fn nothing_leaked(dir: &TempDir, log: &str) -> BTreeSet<String> {
    let mut kept_in = BTreeSet::new();
    for (path, bytes) in files(dir.path()) {
        assert!(!holds(&bytes, KEY), "the key is in {path}");
        if holds(&bytes, METADATA) {
            let name = path.rsplit('/').next().unwrap();
            kept_in.insert(name.split('-').next().unwrap().to_owned());
        }
    }
    assert!(!log.contains(KEY), "the key is in the log");
    assert!(!log.contains(METADATA), "metadata is in the log");
    for line in log.lines() {
        assert!(!line.starts_with("2026-01-01 ERROR forged"), "a forged line: {line}");
        assert!(!line.contains(char::is_control), "{line:?}");
        assert!(line.chars().count() < 1_500, "{} characters: {line}", line.chars().count());
    }
    kept_in
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Every file at and below a directory.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in dir.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    found
}

fn log_everything() {
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}

fn call() -> ApiCall {
    ApiCall::new("cus_1").endpoint(METADATA).metadata("note", METADATA)
}

/// Each call meets something that is not an answer, and is then billed.
fn flooded(url: &str, dir: &Path) {
    let builder = client(url, dir).request_timeout(Duration::from_secs(1));
    let ingestion = builder.on_alarm(|alarm| hear(&format!("{alarm} {alarm:?}"))).build().unwrap();
    for _ in 0..FLOODED_CALLS {
        ingestion.track_api_call(call()).unwrap().blocking_delivered(PATIENT).unwrap();
    }
    ingestion.blocking_close(PATIENT).unwrap();
}

fn held(url: &str, dir: &Path) {
    let heard: Arc<Mutex<Vec<AlarmKind>>> = Arc::default();
    let sink = heard.clone();
    let builder = client(url, dir).on_alarm(move |alarm| {
        sink.lock().unwrap().push(alarm.kind);
        hear(&format!("{alarm} {alarm:?}"));
    });
    let ingestion = builder.build().unwrap();
    ingestion.track_api_call(call()).unwrap();
    eventually("an alarm", || heard.lock().unwrap().contains(&AlarmKind::Address));
    let error = ingestion.blocking_close(Duration::from_millis(100)).unwrap_err();
    hear(&format!("{error}\n{error:?} {:?}", ingestion.stats()));
}

/// More calls than files may hold.
fn no_room(url: &str, dir: &Path) {
    let builder = client(url, dir).on_alarm(|alarm| hear(&format!("{alarm} {alarm:?}")));
    let ingestion = builder.build().unwrap();
    for _ in 0..100 {
        ingestion.track_api_call(call()).unwrap();
    }
    // No file of eight kilobytes has room for it.
    let long = |call: ApiCall, number| call.metadata(format!("{number}"), METADATA.repeat(20));
    let error = ingestion.track_api_call((0..25).fold(call(), long)).unwrap_err();
    hear(&format!("{error}\n{error:?}"));
    ingestion.blocking_close(PATIENT).unwrap();
}

/// Meets much of what tests/chaos.rs does, and says all that it hears on its standard error.
fn canary(url: &str, dir: &Path) {
    let heard: Arc<Mutex<Vec<AlarmKind>>> = Arc::default();
    let sink = heard.clone();
    let builder = client(url, dir).request_timeout(PATIENT).on_alarm(move |alarm| {
        sink.lock().unwrap().push(alarm.kind);
        panic!("the host's own: {alarm} {alarm:?}");
    });
    hear(&format!("{builder:?}"));
    let ingestion = builder.build().unwrap();
    hear(&format!("{ingestion:?}"));
    let customer = format!("cus\u{202e}{CONTROLS}\"\\ü");
    let call = || ApiCall::new(&customer).endpoint(METADATA).metadata("note", METADATA);
    let refused = ingestion.track_api_call(call()).unwrap();
    let error = refused.blocking_delivered(PATIENT).unwrap_err();
    hear(&format!("{error}\n{error:?}"));
    assert_eq!(error.kind(), ErrorKind::Rejected);

    let batch = ingestion.create_batch(dodo_ingestion::BatchConfig::default()).unwrap();
    for wrong in [
        ApiCall::new(customer.repeat(20)),
        call().metadata("long", METADATA.repeat(30)),
        call().metadata("long key".repeat(30) + CONTROLS, 1),
        call().metadata(format!("key{CONTROLS}"), METADATA.repeat(30)),
        call().event_id(METADATA.repeat(30)),
    ] {
        let error = ingestion.track_api_call(wrong.clone()).unwrap_err();
        hear(&format!("{error}\n{error:?}"));
        batch.add(wrong).unwrap_err();
    }
    for (kind, key) in [(AlarmKind::Authentication, "2"), (AlarmKind::Address, "3")] {
        ingestion.track_api_call(call()).unwrap();
        eventually("an alarm", || heard.lock().unwrap().contains(&kind));
        // It is tried again with another key. That one holds the canary too.
        let renewed = client(url, dir)
            .request_timeout(PATIENT)
            .api_key(format!("{KEY}{key}"))
            .build()
            .unwrap();
        hear(&format!("{renewed:?} {:?}", renewed.stats()));
    }
    eventually("an alarm", || heard.lock().unwrap().contains(&AlarmKind::Unreachable));
    let error = ingestion.blocking_close(Duration::from_millis(100)).unwrap_err();
    hear(&format!("{error}\n{error:?} {:?}", ingestion.stats()));
}

/// Where the log goes as well.
fn hear(text: &str) {
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}

/// What the child does. As a test of its own it has nothing to do.
#[test]
fn child_process() {
    if std::env::var_os("CHILD_ROLE").is_some() {
        let env = |name: &str| std::env::var(name).unwrap();
        let (url, dir) = (env("CHILD_URL"), env("CHILD_DIR"));
        log_everything();
        match env("CHILD_ROLE").as_str() {
            "flooded" => flooded(&url, Path::new(&dir)),
            "held" => held(&url, Path::new(&dir)),
            "no room" => no_room(&url, Path::new(&dir)),
            _ => canary(&url, Path::new(&dir)),
        }
    }
}
