//! What a server can send without end.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::time::Duration;

use crate::chaos::{Act, DEFLATE_BOMB, GZIP_HEAD, Wire, header_lines, refuse, say};

/// Read without a pause by hyper, for as long as they come faster than it reads: a server that sends
/// them at full speed holds up the engine, beyond the timeout of a request.
pub const INFORMATIONAL: &str = "HTTP/1.1 103 X\r\nlink: x\r\n\r\n";
const NO_PAUSE: Duration = Duration::ZERO;

/// `HTTP/1.1 200 OK` with these headers and this body.
pub fn answer(headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 200 OK\r\n{headers}\r\n").into_bytes();
    bytes.extend(body.as_ref());
    bytes
}

fn headers_for_ever(wire: &mut Wire<'_>) {
    let mut sent = 0;
    while wire.send(header_lines(sent, 100)) {
        sent += 100;
    }
}

/// What a server can send without end, and what can be made of little.
pub fn floods() -> Vec<(&'static str, Act)> {
    let forever = |head: &'static str, what: Vec<u8>| {
        refuse(move |wire| {
            wire.send(head);
            wire.send_for_ever(&what, NO_PAUSE);
        })
    };
    let ok = "HTTP/1.1 200 OK\r\n";
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 65_536], b"\r\n".to_vec()].concat();
    let bomb = [&GZIP_HEAD[..], &DEFLATE_BOMB, &vec![0; 60_000]].concat();
    vec![
        (
            "headers without end",
            refuse(move |wire| {
                wire.send(ok);
                headers_for_ever(wire);
            }),
        ),
        ("one header without end", forever("HTTP/1.1 200 OK\r\nx: ", vec![b'x'; 65_536])),
        ("a status line without end", forever("HTTP/1.1 200 ", vec![b'x'; 65_536])),
        ("more headers than any", say(answer(&header_lines(0, 10_000), "{}"))),
        ("one header of a megabyte", say(answer(&format!("x: {}\r\n", "x".repeat(1 << 20)), "{}"))),
        (
            "informational answers",
            refuse(|wire| {
                wire.send(INFORMATIONAL.repeat(20_000));
                wire.send_for_ever(INFORMATIONAL, Duration::from_millis(1));
            }),
        ),
        (
            "a body without end",
            forever(
                "HTTP/1.1 200 OK\r\ncontent-length: 9000000000000000000\r\n\r\n",
                vec![b'x'; 65_536],
            ),
        ),
        (
            "chunks without end",
            forever("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", chunk),
        ),
        (
            "tiny chunks without end",
            forever(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                b"1\r\n{\r\n".repeat(9_000),
            ),
        ),
        (
            "a chunk's extension without end",
            forever(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;x=",
                vec![b'x'; 65_536],
            ),
        ),
        (
            "trailers without end",
            refuse(|wire| {
                wire.send(answer("transfer-encoding: chunked\r\n", "2\r\n{}\r\n0\r\n"));
                headers_for_ever(wire);
            }),
        ),
        ("white space until the close", forever("HTTP/1.1 200 OK\r\n\r\n", vec![b' '; 65_536])),
        ("an error without end", forever("HTTP/1.1 503 X\r\n\r\n", vec![b'x'; 65_536])),
        ("a bomb", say(answer("content-encoding: gzip\r\ncontent-length: 60024\r\n", bomb))),
        (
            "a bomb without end",
            refuse(|wire| {
                wire.send(answer(
                    "content-encoding: gzip\r\n",
                    [&GZIP_HEAD[..], &DEFLATE_BOMB].concat(),
                ));
                wire.send_for_ever([0; 65_536], NO_PAUSE);
            }),
        ),
    ]
}
