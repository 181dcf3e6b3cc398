//! Lines of text: `retry-after-ms`, `retry-after`, `date`, this machine's clock and a call's time in
//! milliseconds. An empty line is no header; `@N` is the HTTP date of N seconds after 1970.

use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

use crate::delivery::{Answer, Response, ResponseHeaders, Skew, Verdict, judge};

const MINUTE_MS: i64 = 60_000;

/// Reads the headers that say a time. A wait is bounded, and is the one that was asked for; what a
/// `Date` teaches puts a stamp into the window that the API takes.
pub fn retry_after(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.split('\n');
    let [milliseconds, after, date] = std::array::from_fn(|_| lines.next().unwrap_or_default());
    let [ours, occurred_at] =
        std::array::from_fn(|_| lines.next().and_then(|line| line.parse::<i64>().ok()));
    let header = |line: &str| {
        let seconds = at(line).map(|at| UNIX_EPOCH + Duration::from_secs(at));
        let text = seconds.map_or(Cow::Borrowed(line), |at| httpdate::fmt_http_date(at).into());
        (!line.is_empty()).then(|| text.into_owned())
    };
    let headers = ResponseHeaders {
        date: header(date),
        retry_after: header(after),
        retry_after_ms: header(milliseconds),
        ..ResponseHeaders::default()
    };
    let body = br#"{"code":"SLOW_DOWN","message":""}"#.to_vec();
    let judged = judge(&Answer::Response(Response { status: 503, headers, body }), 1);
    let Verdict::Retry { after_ms, .. } = judged.verdict else { panic!("no retry: {judged:?}") };
    assert!((0..=300_000).contains(&after_ms), "a wait of {after_ms} ms");
    if let Some(wanted) = wanted_ms(milliseconds, after, date) {
        assert_eq!(after_ms, wanted.min(300_000));
    }
    if let Some(at) = at(date) {
        assert_eq!(judged.server_time, Some(at as i64 * 1_000));
    }

    // A clock of this machine that is wrong by no more than some ten thousand years.
    let ours = ours.unwrap_or_default().clamp(-(1 << 48), 1 << 48);
    let mut skew = Skew::default();
    if let Some(server) = judged.server_time {
        skew.learn(server, ours);
    }
    let base = skew.base(ours);
    let stamp = base.stamp(occurred_at.unwrap_or_default());
    if let Some(server) = judged.server_time {
        let ahead = stamp.at - server;
        assert!((-56 * MINUTE_MS..=5 * MINUTE_MS).contains(&ahead), "{ahead} ms ahead");
    }
    assert!(!base.is_late(occurred_at.unwrap_or_default()) || stamp.moved_from.is_some());
}

/// `@N`, up to the year 9999.
fn at(line: &str) -> Option<u64> {
    digits(line.strip_prefix('@')?).filter(|seconds| *seconds < 253_402_300_800)
}

/// A plain number of up to twelve digits.
fn digits(text: &str) -> Option<u64> {
    let plain = (1..=12).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().unwrap())
}

/// How long the headers say, where it is plain what they say.
fn wanted_ms(milliseconds: &str, after: &str, date: &str) -> Option<i64> {
    if let Some(wanted) = digits(milliseconds) {
        return Some(wanted as i64);
    }
    if !milliseconds.is_empty() {
        return None;
    }
    if let Some(seconds) = digits(after) {
        return Some(seconds as i64 * 1_000);
    }
    Some((at(after)? as i64 - at(date)? as i64).max(0) * 1_000)
}
