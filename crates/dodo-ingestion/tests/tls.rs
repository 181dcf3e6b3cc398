//! Servers that are not who they should be: nothing is lost, and the key goes to nobody else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(unix)]

#[path = "support/chaos.rs"]
mod chaos;
#[path = "support/child.rs"]
mod child;

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use chaos::{Authority, Chaos, KEY, PATIENT, client, eventually, listening, self_signed, track};
use child::{Child, say as tell};
use dodo_ingestion::{AlarmKind, ErrorKind};
use tempfile::tempdir;

/// Tracks twenty calls in a child that trusts the authority, at this address.
fn sent_by_child(authority: &Authority, url: &str, role: &str) -> String {
    let dir = tempdir().unwrap();
    let roots = dir.path().join("roots.pem");
    std::fs::write(&roots, authority.pem()).unwrap();
    sent_by_child_with(&roots, url, role)
}

fn sent_by_child_with(roots: &Path, url: &str, role: &str) -> String {
    let dir = tempdir().unwrap();
    let mut child = Child::of(
        "child_process",
        role,
        &[
            ("CHILD_URL", url.as_ref()),
            ("CHILD_DIR", dir.path().as_os_str()),
            ("SSL_CERT_FILE", roots.as_os_str()),
        ],
    );
    let said = child.line();
    child.succeeds();
    said
}

#[test]
fn a_right_certificate_bills() {
    let authority = Authority::new();
    let server = Chaos::start(Some(authority.vouches_for("localhost", 2100)));
    assert_eq!(sent_by_child(&authority, &server.url(), "billed"), "billed 20, spooled 0");
    assert_eq!(server.billed(), 20);
    let ledger = server.ledger.lock().unwrap();
    assert!(ledger.heads[0].contains(&format!("Bearer {KEY}\r\n")));
    drop(ledger);
    assert!(!server.saw(KEY), "the key was in the clear");
}

#[test]
fn a_server_that_cannot_prove_who_it_is_gets_no_key() {
    let (authority, other) = (Authority::new(), Authority::new());
    for (what, server) in [
        ("an expired certificate", Chaos::start(Some(authority.vouches_for("localhost", 2020)))),
        ("another host's", Chaos::start(Some(authority.vouches_for("example.com", 2100)))),
        ("another address's", Chaos::start(Some(authority.vouches_for("127.0.0.1", 2100)))),
        ("of its own making", Chaos::start(Some(self_signed("localhost")))),
        ("of an unknown authority", Chaos::start(Some(other.vouches_for("localhost", 2100)))),
    ] {
        let said = sent_by_child(&authority, &server.url(), "held");
        assert_eq!(said, "address: billed 0, spooled 20", "{what}");
        assert_eq!(server.requests(), 0, "{what}");
        assert!(server.ledger.lock().unwrap().connections > 0, "{what}");
        assert!(!server.saw(KEY), "{what}");
    }
}

#[test]
fn certificates_of_the_machine_that_cannot_be_read_are_told_of() {
    let server = Chaos::start(Some(Authority::new().vouches_for("localhost", 2100)));
    let roots = Path::new("/does/not/exist.pem");
    let said = sent_by_child_with(roots, &server.url(), "unread");
    assert!(said.contains("invalid peer certificate"), "{said}");
    assert!(said.contains("/does/not/exist.pem"), "{said}");
}

#[test]
fn plain_http_where_tls_is_expected_gets_no_key() {
    let authority = Authority::new();
    let server = Chaos::start(None);
    let url = server.url().replace("http:", "https:");
    // It waits for a request line and gets a handshake; a server that answers at once is the next.
    let said = sent_by_child(&authority, &url, "unreached");
    assert_eq!(said, "unreachable: billed 0, spooled 20");
    assert_eq!(server.requests(), 0);
    assert!(!server.saw(KEY));

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::io::Read::read(&mut stream, &mut [0; 64]).unwrap();
            _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\nHTTPS, please");
        }
    });
    assert_eq!(sent_by_child(&authority, &url, "held"), "address: billed 0, spooled 20");
}

/// The user chose plain http, to this machine: the key is sent as chosen, and what comes back is no
/// acknowledgement.
#[test]
fn tls_where_plain_http_is_expected_acknowledges_nothing() {
    let authority = Authority::new();
    let server = Chaos::start(Some(authority.vouches_for("localhost", 2100)));
    let url = server.url().replace("https:", "http:");
    assert_eq!(sent_by_child(&authority, &url, "unreached"), "unreachable: billed 0, spooled 20");
    assert_eq!(server.requests(), 0);
}

/// What the children do. As a test of its own it has nothing to do.
#[test]
fn child_process() {
    let Ok(role) = std::env::var("CHILD_ROLE") else { return };
    let env = |name: &str| std::env::var(name).unwrap();
    let (ingestion, alarms) = listening(client(&env("CHILD_URL"), Path::new(&env("CHILD_DIR"))));
    track(&ingestion, 20);
    let spooled = || {
        let stats = ingestion.stats();
        format!("billed {}, spooled {}", stats.billed, stats.spooled)
    };
    let kind = match role.as_str() {
        "billed" => {
            ingestion.blocking_close(PATIENT).unwrap();
            return tell(&spooled());
        }
        "held" | "unread" => AlarmKind::Address,
        "unreached" => AlarmKind::Unreachable,
        other => panic!("no role {other}"),
    };
    let told = || alarms.lock().unwrap().iter().any(|told| *told != AlarmKind::TestMode);
    eventually("an alarm", told);
    let error = ingestion.blocking_close(Duration::from_millis(100)).unwrap_err();
    assert_eq!(alarms.lock().unwrap().last(), Some(&kind), "{error}");
    assert_eq!(error.kind(), ErrorKind::Network);
    match role.as_str() {
        "unread" => tell(error.message()),
        _ => tell(&format!("{}: {}", kind.as_str(), spooled())),
    }
}
