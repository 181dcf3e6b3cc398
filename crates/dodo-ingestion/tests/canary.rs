//! An API key and metadata that can be told from all else go through much of what tests/chaos.rs does,
//! and are then looked for in every file, log line, error, alarm and panic.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(unix)]

#[path = "support/chaos.rs"]
mod chaos;
#[path = "support/child.rs"]
mod child;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaos::{Act, Chaos, KEY, PATIENT, client, eventually, refuse, reset};
use child::Child;
use dodo_ingestion::{AlarmKind, ApiCall, ErrorKind};
use tempfile::tempdir;

const METADATA: &str = "metadata-kanarie-W5r8";
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
    let server = Chaos::with([
        echo("400 Bad Request", &json("INVALID_REQUEST_BODY")),
        echo("502 Bad Gateway", &words),
        refuse(reset),
        echo("500 Internal Server Error", &json("INTERNAL")),
        echo("401 Unauthorized", &json("UNAUTHORIZED")),
        echo("302 Found\r\nlocation: http://localhost:1/?key=ECHO", &words),
    ]);
    server.behave(Some(|| echo("503 Unavailable", "ECHO")));
    let (dir, log) = (tempdir().unwrap(), tempdir().unwrap());
    let log = log.path().join("log");
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.stderr(std::fs::File::create(&log).unwrap()).env("RUST_BACKTRACE", "1");
    let env = [("CHILD_URL", server.url()), ("CHILD_DIR", dir.path().display().to_string())];
    let env = env.each_ref().map(|(name, value)| (*name, value.as_ref()));
    Child::run(command, "child_process", "canary", &env).succeeds();
    assert!(server.saw(KEY), "it was sent, to the one that it is for");

    let mut kept_in = BTreeSet::new();
    for (path, bytes) in files(dir.path()) {
        assert!(!holds(&bytes, KEY), "the key is in {path}");
        if holds(&bytes, METADATA) {
            let name = path.rsplit('/').next().unwrap();
            kept_in.insert(name.split('-').next().unwrap().to_owned());
        }
    }
    assert_eq!(kept_in, ["dead", "segment"].map(str::to_owned).into(), "where metadata is kept");

    let log = std::fs::read_to_string(log).unwrap();
    for needed in ["dead_lettered", "authentication", "address", "unreachable", "stack backtrace"] {
        assert!(log.contains(needed), "the log says nothing of {needed}: {log}");
    }
    assert!(!log.contains(KEY), "the key is in the log");
    assert!(!log.contains(METADATA), "metadata is in the log");
    for line in log.lines() {
        assert!(!line.starts_with("2026-01-01 ERROR forged"), "a forged line: {line}");
        assert!(!line.contains(char::is_control), "{line:?}");
        assert!(line.chars().count() < 1_500, "{} characters: {line}", line.chars().count());
    }
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

/// Meets much of the above, and says all that it hears on its standard error.
fn canary(url: &str, dir: &Path) {
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
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
        canary(&env("CHILD_URL"), Path::new(&env("CHILD_DIR")));
    }
}
