//! A server that breaks every rule of HTTP: nothing is lost, nothing is billed twice, memory is
//! bounded, and the key goes to nobody else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(unix)]

#[path = "support/chaos.rs"]
mod chaos;
#[path = "support/child.rs"]
mod child;
#[path = "support/floods.rs"]
mod floods;

use std::iter::repeat_n;
use std::path::Path;
use std::time::Duration;

use chaos::{
    Act, Chaos, KEY, PATIENT, UNTIL_HELD, brotli_stored, client, commit, eventually, gzip_stored,
    hang, listening, refuse, reset, say, track, well,
};
use child::{Child, say as tell};
use dodo_ingestion::{AlarmKind, ApiCall};
use floods::{INFORMATIONAL, answer, floods};
use tempfile::tempdir;

/// Each flood is over by then, at a timeout of a second: a machine that is not loaded takes one, and the pause after it.
const FLOOD_IS_OVER: Duration = Duration::from_secs(30);
/// What the memory of the client's process may grow by, whatever a server sends.
const MAX_GROWTH_KIB: u64 = 64 << 10;

/// For each act, a server that does it once to a client of its own, all at the same time: every call is
/// billed, none is set aside, and what the act did was not taken for an acknowledgement.
fn each_is_tried_again(acts: Vec<(&str, Act)>) {
    std::thread::scope(|scope| {
        for (what, act) in acts {
            scope.spawn(move || {
                let (server, dir) = (Chaos::with([act]), tempdir().unwrap());
                let ingestion = client(&server.url(), dir.path()).linger(PATIENT).build().unwrap();
                let ids = track(&ingestion, 20);
                ingestion.blocking_close(PATIENT).unwrap_or_else(|error| panic!("{what}: {error}"));
                server.assert_billed(what, &ids);
                let stats = ingestion.stats();
                let settled = (stats.accepted, stats.billed, stats.spooled, stats.dead_lettered);
                assert_eq!(settled, (20, 20, 0, 0), "{what}");
                assert!(server.requests() >= 2, "{what}: was taken for an acknowledgement");
            });
        }
    });
}

#[test]
fn connections_that_are_reset_or_cut() {
    const TORN: &str = "content-length: 100\r\n";
    each_is_tried_again(vec![
        ("reset before the commit", refuse(reset)),
        ("reset after the commit", commit(reset)),
        ("closed before the commit", refuse(|_| ())),
        ("closed after the commit", commit(|_| ())),
        ("silence", refuse(hang)),
        ("silence after the commit", commit(hang)),
        ("a torn head", commit(|wire| _ = wire.send("HTTP/1.1 200 OK\r\ncontent-le"))),
        ("a torn body", commit(|wire| _ = wire.send(answer(TORN, "{\"ingested_count\":20}")))),
        ("a torn number", commit(|wire| _ = wire.send(answer("", "{\"ingested_count\":20")))),
        (
            "reset within the body",
            commit(|wire| {
                wire.send(answer(TORN, "{\"ingested_count\":20}"));
                reset(wire);
            }),
        ),
        (
            "a torn chunk",
            commit(|wire| {
                wire.send(answer(
                    "transfer-encoding: chunked\r\n",
                    "50\r\n{\"ingested_count\":20}",
                ));
            }),
        ),
    ]);
}

#[test]
fn answers_that_take_their_time() {
    let second = Duration::from_secs(1);
    let tenth = Duration::from_millis(100);
    each_is_tried_again(vec![
        (
            "one byte a second",
            commit(move |wire| {
                let body = wire.acknowledgement();
                let all = answer(&format!("content-length: {}\r\n", body.len()), body);
                _ = all.iter().all(|byte| {
                    std::thread::sleep(second);
                    wire.send([*byte])
                });
            }),
        ),
        (
            "slow headers",
            commit(move |wire| {
                wire.send("HTTP/1.1 200 OK\r\n");
                wire.send_for_ever("x: y\r\n", tenth);
            }),
        ),
        (
            "a slow body",
            commit(move |wire| {
                wire.send(answer("", ""));
                wire.send_for_ever(" ", tenth);
            }),
        ),
        (
            "slow informational answers",
            commit(move |wire| wire.send_for_ever("HTTP/1.1 102 Processing\r\n\r\n", tenth)),
        ),
    ]);
}

#[test]
fn answers_that_are_not_http_or_contradict_themselves() {
    const CHUNKED: &str = "transfer-encoding: chunked\r\n";
    let ack = "{\"ingested_count\":20}";
    let with = |headers: &str| answer(headers, ack);
    each_is_tried_again(vec![
        ("a length too short", say(with("content-length: 10\r\n"))),
        ("a length too long", say(with("content-length: 22\r\n"))),
        ("two lengths", say(with("content-length: 21\r\ncontent-length: 10\r\n"))),
        ("a negative length", say(with("content-length: -1\r\n"))),
        ("a length that is no number", say(with("content-length: many\r\n"))),
        ("a length beyond all numbers", say(with("content-length: 99999999999999999999999\r\n"))),
        ("a chunk beyond all numbers", say(answer(CHUNKED, "fffffffffffffffffff\r\n{"))),
        ("a chunk with no number", say(answer(CHUNKED, "zz\r\n{\"ingested_count\":20}\r\n"))),
        ("HTTP/1.0 with less than it says", say("HTTP/1.0 200 OK\r\ncontent-length: 90\r\n\r\n{}")),
        ("HTTP/0.9", say(ack)),
        ("HTTP/2", say("HTTP/2 200\r\n\r\n")),
        ("an HTTP/2 preface", say("\0\0\x12\x04\0\0\0\0\0\0\0")),
        ("another protocol", say("SSH-2.0-OpenSSH_9.9\r\n")),
        ("a binary", say([0xff_u8; 4096])),
        ("status 99999", say("HTTP/1.1 99999 X\r\n\r\n")),
        ("status 0", say("HTTP/1.1 000 X\r\n\r\n")),
        ("a header without a name", say(with(": x\r\n"))),
        ("a header that is folded", say(with("x: y\r\n z\r\ncontent-length: 3\r\n"))),
        ("a nul in a header", say(with("x: \0\r\n"))),
        (
            "101",
            say("HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n"),
        ),
        ("only 100", say("HTTP/1.1 100 Continue\r\n\r\n")),
        ("204", say("HTTP/1.1 204 No Content\r\n\r\n")),
        (
            "206",
            say(
                "HTTP/1.1 206 Partial Content\r\ncontent-length: 21\r\n\r\n{\"ingested_count\":20}",
            ),
        ),
        ("a captive portal", say(answer("content-type: text/html\r\n", "<html>Sign in</html>"))),
        ("json of something else", say(answer("", "{\"status\":\"ok\"}"))),
        ("more than was sent", say(answer("", "{\"ingested_count\":21}"))),
        ("less than nothing", say(answer("", "{\"ingested_count\":-1}"))),
        ("half an event", say(answer("", "{\"ingested_count\":1.5}"))),
        ("json that nests", say(answer("", "[".repeat(60_000)))),
    ]);
}

#[test]
fn bodies_that_want_to_be_inflated() {
    let stored = |name: &str, encode: fn(&str) -> Vec<u8>| {
        let name = name.to_owned();
        commit(move |wire| {
            let body = encode(&wire.acknowledgement());
            wire.send(answer(&format!("content-encoding: {name}\r\n"), body));
        })
    };
    each_is_tried_again(vec![
        ("gzip", stored("gzip", gzip_stored)),
        ("gzip in gzip", stored("gzip, gzip", gzip_stored)),
        ("brotli", stored("br", brotli_stored)),
    ]);
    let (server, dir) = (Chaos::start(None), tempdir().unwrap());
    let ingestion = client(&server.url(), dir.path()).build().unwrap();
    track(&ingestion, 1);
    ingestion.blocking_close(PATIENT).unwrap();
    let ledger = server.ledger.lock().unwrap();
    assert!(!ledger.heads[0].to_lowercase().contains("accept-encoding"), "{}", ledger.heads[0]);
}

#[test]
fn unusual_answers_that_are_right_bill_at_once() {
    let acknowledge = |before: &'static str, headers: &'static str| {
        commit(move |wire| {
            let body = wire.acknowledgement();
            wire.send(format!("{before}{headers}\r\n{body}"));
        })
    };
    let ok = "HTTP/1.1 200 OK\r\n";
    for (what, act) in [
        ("HTTP/1.0", acknowledge("HTTP/1.0 200 OK\r\n", "")),
        ("no reason", acknowledge("HTTP/1.1 200\r\n", "")),
        ("until the close", acknowledge(ok, "")),
        ("as html", acknowledge(ok, "content-type: text/html\r\n")),
        ("100 first", acknowledge("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", "")),
        ("103 first", acknowledge("HTTP/1.1 103 X\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n", "")),
        (
            "a byte at a time",
            commit(|wire| {
                let body = wire.acknowledgement();
                _ = answer("", body).iter().all(|byte| wire.send([*byte]));
            }),
        ),
        (
            "in chunks with a trailer",
            commit(|wire| {
                let body = wire.acknowledgement();
                let (head, rest) = body.split_at(5);
                let chunks =
                    format!("5;x=y\r\n{head}\r\n{:x}\r\n{rest}\r\n0\r\nx: y\r\n\r\n", rest.len());
                wire.send(answer("transfer-encoding: chunked\r\n", chunks));
            }),
        ),
    ] {
        let (server, dir) = (Chaos::with([act]), tempdir().unwrap());
        let builder = client(&server.url(), dir.path()).linger(PATIENT).request_timeout(PATIENT);
        let ingestion = builder.build().unwrap();
        let ids = track(&ingestion, 20);
        ingestion.blocking_close(PATIENT).unwrap_or_else(|error| panic!("{what}: {error}"));
        server.assert_billed(what, &ids);
        assert_eq!(server.requests(), 1, "{what}");
    }
}

#[test]
fn floods_and_bombs_do_not_grow_the_clients_process() {
    let floods = floods();
    let count = floods.len();
    let script = floods.into_iter().flat_map(|(_, flood)| [flood, well()]);
    let (server, dir) = (Chaos::with([well()].into_iter().chain(script)), tempdir().unwrap());
    let mut child = Child::of(
        "child_process",
        "flooded",
        &[
            ("CHILD_URL", server.url().as_ref()),
            ("CHILD_DIR", dir.path().as_os_str()),
            ("CHILD_CALLS", count.to_string().as_ref()),
        ],
    );
    let growth: u64 = child.line().parse().unwrap();
    child.succeeds();
    println!("peak memory grew by {growth} KiB over {count} floods");
    assert!(growth < MAX_GROWTH_KIB, "peak memory grew by {growth} KiB");
    assert_eq!(server.billed(), count + 1);
    assert!(server.requests() > 2 * count);
}

/// The most memory that this process ever had resident, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse().unwrap())
}

#[test]
fn a_flood_from_one_server_does_not_hold_up_another_account() {
    let mut child = Child::of("child_process", "beside a flood", &[]);
    assert_eq!(child.line(), "billed");
    child.succeeds();
}

#[test]
fn a_redirect_is_not_followed_and_the_key_does_not_travel() {
    let trap = Chaos::start(None);
    // The other name of the same machine is another host.
    let hosts = [trap.url(), trap.url().replace("localhost", "127.0.0.1")];
    for (status, location) in [300, 301, 302, 303, 307, 308]
        .into_iter()
        .flat_map(|status| hosts.each_ref().map(|location| (status, location)))
    {
        let redirect = format!(
            "HTTP/1.1 {status} X\r\nlocation: {location}/events/ingest\r\nconnection: close\r\n\r\n"
        );
        let redirects = repeat_n(redirect, UNTIL_HELD).map(say);
        let (server, dir) = (Chaos::with(redirects), tempdir().unwrap());
        let (ingestion, alarms) =
            listening(client(&server.url(), dir.path()).request_timeout(PATIENT));
        let ids = track(&ingestion, 20);
        eventually("an alarm tells of it", || alarms.lock().unwrap().contains(&AlarmKind::Address));
        assert_eq!(ingestion.stats().spooled, 20, "{status} to {location}");
        assert_eq!((server.billed(), server.requests()), (0, UNTIL_HELD), "{status} to {location}");

        // A new key is a reason to try again.
        let renewed = client(&server.url(), dir.path())
            .request_timeout(PATIENT)
            .api_key("sk_new")
            .build()
            .unwrap();
        renewed.blocking_flush(PATIENT).unwrap();
        server.assert_billed("after the redirect", &ids);
    }
    assert_eq!(trap.ledger.lock().unwrap().connections, 0);
    assert!(!trap.saw(KEY));
}

#[test]
fn what_else_stands_in_the_way_is_told_and_all_is_kept() {
    let status = |status: &str, body: &str| format!("HTTP/1.1 {status}\r\n\r\n{body}");
    for (what, answer) in [
        ("a proxy wants a password", status("407 Proxy Authentication Required", "")),
        ("another method", status("405 Method Not Allowed", "")),
        ("no such page", status("404 Not Found", "<html>nginx</html>")),
        ("gone", status("410 Gone", "")),
        ("a portal that redirects", status("302 Found\r\nlocation: /login", "<html>Sign in")),
    ] {
        let answers = repeat_n(answer, UNTIL_HELD).map(say);
        let (server, dir) = (Chaos::with(answers), tempdir().unwrap());
        let (ingestion, alarms) =
            listening(client(&server.url(), dir.path()).request_timeout(PATIENT));
        track(&ingestion, 20);
        eventually(what, || alarms.lock().unwrap().contains(&AlarmKind::Address));
        assert_eq!((ingestion.stats().spooled, server.billed()), (20, 0), "{what}");
    }
}

fn beside_a_flood() {
    let flood =
        || refuse(|wire| wire.send_for_ever(INFORMATIONAL.repeat(10), Duration::from_millis(1)));
    let (hostile, dir) = (Chaos::always(flood), tempdir().unwrap());
    let builder = client(&hostile.url(), dir.path()).request_timeout(PATIENT);
    let flooded = builder.build().unwrap();
    flooded.track_api_call(ApiCall::new("cus_1")).unwrap();
    eventually("it is flooded", || hostile.requests() == 1);

    let (well, other_dir) = (Chaos::start(None), tempdir().unwrap());
    let ingestion = client(&well.url(), other_dir.path()).request_timeout(PATIENT).build().unwrap();
    let ids = track(&ingestion, 100);
    ingestion.blocking_close(PATIENT).unwrap();
    well.assert_billed("beside a flood", &ids);
    assert_eq!(hostile.requests(), 1, "it is still flooded");
    assert_eq!(flooded.stats().spooled, 1);
}

/// What the children do. As a test of its own it has nothing to do.
#[test]
fn child_process() {
    let Ok(role) = std::env::var("CHILD_ROLE") else { return };
    if role == "beside a flood" {
        beside_a_flood();
        return tell("billed");
    }
    let env = |name: &str| std::env::var(name).unwrap();
    let builder = client(&env("CHILD_URL"), Path::new(&env("CHILD_DIR")));
    let ingestion = builder.request_timeout(Duration::from_secs(1)).build().unwrap();
    let deliver = |_| {
        let receipt = ingestion.track_api_call(ApiCall::new("cus_1")).unwrap();
        receipt.blocking_delivered(FLOOD_IS_OVER).unwrap();
    };
    deliver(0);
    let before = peak_kib();
    (0..env("CHILD_CALLS").parse().unwrap()).for_each(deliver);
    tell(&(peak_kib() - before).to_string());
}
