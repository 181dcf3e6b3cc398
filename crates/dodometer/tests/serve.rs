//! `dodometer serve` as a process of its own: what it prints, serves, refuses and leaves behind.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use support::{Serving, dodometer, fails};

#[test]
fn it_serves_and_stops_when_told() {
    for signal in ["-TERM", "-INT"] {
        let serving = Serving::start(&["--listen", "127.0.0.1:0", "--data", ":memory:", "--json"]);
        let answer = serving.ingest("a");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.ends_with(r#"{"ingested_count":1}"#), "{answer}");
        assert_eq!(serving.stop(signal), Some(0), "{signal}");
    }
}

#[test]
fn it_stops_when_its_input_is_closed_if_it_is_told_to() {
    let arguments = ["--listen", "127.0.0.1:0", "--json", "--until-stdin-closes"];
    let mut goes_on = Serving::start(&arguments[..3]);
    let mut stops = Serving::start(&arguments);
    assert!(stops.ingest("a").ends_with(r#"{"ingested_count":1}"#));
    drop(goes_on.child.stdin.take());
    drop(stops.child.stdin.take());
    assert_eq!(stops.child.wait().unwrap().code(), Some(0));
    assert!(goes_on.ingest("a").ends_with(r#"{"ingested_count":1}"#));
    assert_eq!(goes_on.stop("-TERM"), Some(0));
}

#[test]
fn a_data_file_is_kept_and_not_shared() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("meter.db");
    let file = file.to_str().unwrap();
    let arguments = ["--listen", "127.0.0.1:0", "--data", file, "--key", "k", "--json"];
    let serving = Serving::start(&arguments);
    assert!(serving.ingest("a").ends_with(r#"{"ingested_count":1}"#));
    assert_eq!(dodometer(&arguments).output().unwrap().status.code(), Some(1));
    let error = fails(&arguments);
    assert!(error.contains("another meter is using the data file"), "{error}");
    assert!(error.contains(file), "it names the file: {error}");

    // Even a server that is killed leaves a file that the next one can use.
    assert_eq!(serving.stop("-KILL"), None);
    let serving = Serving::start(&arguments);
    assert!(serving.ingest("a").ends_with(r#"{"ingested_count":0}"#));
    assert!(serving.send("GET", "/events/a", "").contains(r#""event_id":"a""#));
    assert_eq!(serving.stop("-TERM"), Some(0));
}

/// Who may write nothing of root's. Root may write whatever the permissions say.
const NOBODY: u32 = 65534;

#[test]
fn a_data_file_that_cannot_be_written_is_told_of_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let allow = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    allow(folder.path(), 0o777);
    let file = folder.path().join("meter.db");
    let lock = folder.path().join("meter.db.lock");
    let arguments = ["--listen", "127.0.0.1:0", "--data", file.to_str().unwrap(), "--json"];
    let serving = Serving::start(&arguments);
    assert!(serving.ingest("a").ends_with(r#"{"ingested_count":1}"#));
    assert_eq!(serving.stop("-TERM"), Some(0));

    allow(&file, 0o444);
    allow(&lock, 0o666);
    let is_root = File::options().write(true).open(&file).is_ok();
    let fails = |told: &str| {
        let mut command = dodometer(&arguments);
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        match command.output() {
            Ok(Output { status, stdout, stderr }) => {
                let error = String::from_utf8(stderr).unwrap();
                assert_eq!((status.code(), stdout.as_slice()), (Some(1), &b""[..]), "{error}");
                assert!(error.contains(told) && error.contains("meter.db"), "{error}");
            }
            // To standard error itself, not captured: this counts as a test that was skipped.
            Err(error) => {
                let line = format!("NOT TESTED: a file of another user: {error}\n");
                std::io::stderr().write_all(line.as_bytes()).unwrap();
            }
        }
    };
    fails("cannot be opened for writing");
    allow(&file, 0o666);
    allow(folder.path(), 0o555);
    fails("the files beside it cannot");
    for (missing, told) in [(&lock, "cannot be made"), (&file, "cannot be opened for writing")] {
        allow(folder.path(), 0o777);
        std::fs::remove_file(missing).unwrap();
        allow(folder.path(), 0o555);
        fails(told);
    }
    allow(folder.path(), 0o777);
}

#[test]
fn what_the_billing_api_leaves_open_can_be_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("customers");
    // With the byte-order mark that some editors begin a file with.
    std::fs::write(&file, "\u{feff}c\n\ncus_2 \n").unwrap();
    let listen = ["--listen", "127.0.0.1:0", "--json"];
    let serving = |options: &[&str]| Serving::start(&[&listen[..], options].concat());

    let from_file = serving(&["--customers", file.to_str().unwrap(), "--count-known-ids"]);
    for _ in 0..2 {
        assert!(from_file.ingest("a").ends_with(r#"{"ingested_count":1}"#));
    }
    for (options, status) in [(&[][..], "400"), (&["--unknown-customer", "422"][..], "422")] {
        let refusing = serving(&[&["--customers", "cus_1,cus_2"][..], options].concat());
        let answer = refusing.ingest("a");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    let forgetful = serving(&["--remember-ids", "0s", "--id-before-age"]);
    for _ in 0..2 {
        assert!(forgetful.ingest("a").ends_with(r#"{"ingested_count":1}"#));
    }
    let limited = serving(&["--rate-limit"]);
    let answer = limited.ingest("a").to_ascii_lowercase();
    assert!(answer.contains("\r\nx-ratelimit-remaining: 99\r\n"), "{answer}");
}

#[test]
fn keys_can_be_listed_in_the_environment() {
    let taken = |environment: &str, arguments: &[&str]| {
        let arguments = [&["--listen", "127.0.0.1:0", "--json"], arguments].concat();
        let serving = Serving::of(dodometer(&arguments).env("DODOMETER_KEYS", environment));
        serving.ingest("a").starts_with("HTTP/1.1 200 ")
    };
    for (environment, arguments, expected) in [
        ("k", &[][..], true),
        ("other, k", &[], true),
        ("other", &[], false),
        ("other", &["--key", "k"], true),
        ("k", &["--key", "other"], false),
        ("", &[], true),
        ("", &["--key", "other"], false),
        ("", &["--key", "other,k"], false),
        ("", &["--key", "other,one", "--key", "k"], true),
    ] {
        assert_eq!(taken(environment, arguments), expected, "{environment:?} {arguments:?}");
    }
    let open = dodometer(&["--listen", "0.0.0.0:0"]).env("DODOMETER_KEYS", "").output().unwrap();
    let error = String::from_utf8(open.stderr).unwrap();
    assert!(error.contains("give at least one --key"), "{error}");
}

#[test]
fn it_misbehaves_when_asked_to() {
    let serving = |seed: &str| {
        let faults = ["--fault", "status=503,share=0.5", "--fault", "unknown_customer=d"];
        let listen = ["--listen", "127.0.0.1:0", "--json", "--fault-seed", seed];
        Serving::start(&[&listen[..], &faults[..]].concat())
    };
    let statuses = |serving: &Serving| -> Vec<String> {
        let answers = (0..24).map(|index| serving.ingest(&format!("e{index}")));
        answers.map(|answer| answer.split(' ').nth(1).unwrap().to_owned()).collect()
    };
    let first = serving("7");
    let struck = statuses(&first);
    assert!(struck.contains(&"503".to_owned()) && struck.contains(&"200".to_owned()), "{struck:?}");
    assert_eq!(statuses(&serving("7")), struck);
    assert_ne!(statuses(&serving("8")), struck);
    let shown = first.send("GET", "/_dev/faults", "");
    assert!(shown.contains(r#""fault":"unknown_customer=d","seen":0"#), "{shown}");
}

#[test]
fn what_cannot_be_served_is_said_clearly() {
    let error = fails(&["--fault", "status=503", "--fault", "hangs"]);
    assert!(error.contains("'hangs'") && error.contains("names no fault"), "{error}");
    let error = fails(&["--fault", "status=503,share=2"]);
    assert!(error.contains("share is \"2\": give more than 0 and at most 1"), "{error}");

    for address in ["localhost:4040", ":4040", "4040"] {
        let error = fails(&["--listen", address]);
        assert!(error.contains("such as 127.0.0.1:4040"), "{error}");
    }
    let error = fails(&["--listen", "0.0.0.0:0"]);
    assert!(error.contains("give at least one --key"), "{error}");
    let error = fails(&["--listen", "127.0.0.1:0", "--key", ""]);
    assert!(error.contains("an API key must not be empty"), "{error}");
    let error = fails(&["--listen", "127.0.0.1:0", "--data", ""]);
    assert!(error.contains("the data file must have a name"), "{error}");
    let error = fails(&["--customers", "no/such/file"]);
    assert!(error.contains("cannot be read from no/such/file"), "{error}");
    let error = fails(&["--customers", ","]);
    assert!(error.contains("names no customer"), "{error}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = fails(&["--listen", &address]);
    assert!(error.contains(&format!("cannot listen on {address}")), "{error}");
    assert!(error.contains("give --listen another one"), "{error}");
}

#[test]
fn a_start_that_fails_for_its_address_makes_and_changes_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("meter.db");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let arguments = |listen| ["--listen", listen, "--data", file.to_str().unwrap(), "--json"];
    let error = fails(&arguments(&address));
    assert!(error.contains("cannot listen on"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    assert_eq!(Serving::start(&arguments("127.0.0.1:0")).stop("-TERM"), Some(0));
    let database = rusqlite::Connection::open(&file).unwrap();
    database
        .execute_batch("ALTER TABLE meter DROP COLUMN filter; PRAGMA user_version = 2;")
        .unwrap();
    database.close().unwrap();
    let before = std::fs::read(&file).unwrap();
    fails(&arguments(&address));
    assert!(std::fs::read(&file).unwrap() == before, "it is of the version before still");
}

/// The same command with a limit on the size of files, in the unit of the shell: 512 or 1,024 bytes.
fn limited(blocks: u32, command: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!(r#"ulimit -f {blocks} && exec "$0" "$@""#)]);
    limited.arg(command.get_program()).args(command.get_args()).env_remove("DODOMETER_KEYS");
    limited
}

#[test]
fn a_limit_on_the_size_of_files_refuses_a_request_and_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("meter.db");
    let arguments = ["--listen", "127.0.0.1:0", "--data", file.to_str().unwrap(), "--json"];
    let serving = Serving::of(limited(200, &dodometer(&arguments)).stderr(Stdio::null()));
    let answers = (0..100).map(|n| serving.ingest(&format!("e{n}")));
    let refused = answers.into_iter().find(|answer| !answer.starts_with("HTTP/1.1 200 ")).unwrap();
    assert!(refused.starts_with("HTTP/1.1 500 "), "{refused}");
    assert!(refused.contains("the meter could not store or read its data"), "{refused}");
    assert!(serving.send("GET", "/events/e0", "").starts_with("HTTP/1.1 200 "));
    assert_eq!(serving.stop("-TERM"), Some(0));

    std::fs::remove_file(&file).unwrap();
    let output = limited(1, &dodometer(&arguments)).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("meter.db cannot be"), "{error}");
}

#[test]
fn without_json_it_says_where_to_look() {
    let mut serving =
        dodometer(&["--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines: Vec<String> = BufReader::new(serving.stdout.take().unwrap())
        .lines()
        .take(6)
        .collect::<Result<_, _>>()
        .unwrap();
    serving.kill().unwrap();
    serving.wait().unwrap();
    let url = lines[1].strip_prefix("base URL  ").unwrap();
    assert!(url.starts_with("http://127.0.0.1:") && !url.ends_with(":0"), "{lines:?}");
    assert_eq!(lines[0], format!("page      {url}/"));
    assert_eq!(lines[4].trim(), format!("export DODO_PAYMENTS_BASE_URL={url}"));
    assert_eq!(lines[5].trim(), "export DODO_PAYMENTS_API_KEY=any");
}
