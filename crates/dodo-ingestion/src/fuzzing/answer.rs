//! Any answer: `<status> <events sent>`, header lines, an empty line, the body.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::delivery::{
    Answer, Failing, HoldReason, LookupVerdict, Response, ResponseHeaders, Verdict, id_hash, judge,
    judge_lookup,
};

/// Judges an answer. Only a 200 with an integer count of at most what was sent acknowledges;
/// the wait that a server asks for is bounded; its words become one bounded line. A look-up knows the event that was asked
/// for, and no other.
pub fn answer(input: &[u8]) {
    let (head, body) = match input.windows(2).position(|pair| pair == b"\n\n") {
        Some(at) => (&input[..at], &input[at + 2..]),
        None => (input, &[][..]),
    };
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let mut numbers = lines.next().unwrap_or_default().split(' ');
    let status: u16 = numbers.next().and_then(|word| word.parse().ok()).unwrap_or(200);
    let sent: usize = numbers.next().and_then(|word| word.parse().ok()).unwrap_or(1);
    let mut headers = ResponseHeaders::default();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        let value = Some(value.to_owned());
        match name {
            "date" => headers.date = value,
            "retry-after" => headers.retry_after = value,
            "retry-after-ms" => headers.retry_after_ms = value,
            "x-should-retry" => headers.should_retry = value,
            "x-ratelimit-remaining" => headers.rate_limit_remaining = value,
            _ => {}
        }
    }
    let answer = Answer::Response(Response { status, headers, body: body.to_vec() });
    let judged = judge(&answer, sent);
    // What is in the fields that nobody asks for need not be text.
    let text = String::from_utf8_lossy(body);
    let fields: Option<BTreeMap<String, &RawValue>> = serde_json::from_str(&text).ok();
    let field = |name: &str| fields.as_ref()?.get(name).map(|json| json.get());
    if judge_lookup(&answer, id_hash(b"evt_1")) == LookupVerdict::Known {
        let id = field("event_id").map(serde_json::from_str::<String>);
        assert!(status == 200 && id.is_some_and(|id| id.unwrap() == "evt_1"), "another event");
    }
    let count = field("ingested_count").and_then(|text| text.parse::<u64>().ok());
    let api_error = field("code").is_some() && field("message").is_some();
    let words = match judged.verdict {
        Verdict::Acknowledged => {
            assert_eq!(status, 200, "an acknowledgement");
            assert!(count.is_some_and(|count| count <= sent as u64), "{count:?} of {sent}");
            return;
        }
        Verdict::Retry { after_ms, limited, unanswered, failing, words } => {
            assert!((0..=300_000).contains(&after_ms), "a wait of {after_ms} ms");
            let expected = match status {
                429 => Failing::No,
                ..=299 => Failing::Silent,
                _ => Failing::Answered,
            };
            assert_eq!((limited, failing), (status == 429, expected));
            assert!(!unanswered || !(400..500).contains(&status), "{status} is an answer");
            words
        }
        Verdict::Hold { why, words } => {
            let expected = match status {
                401 | 403 => HoldReason::Authentication { status },
                _ => HoldReason::Address,
            };
            assert_eq!(why, expected);
            words
        }
        Verdict::Refused { status: refused, words } => {
            assert_eq!(refused, status);
            assert!(matches!(status, 400 | 422) || status == 404 && api_error, "{status}");
            words
        }
        Verdict::TooLarge { words } => {
            assert_eq!(status, 413);
            words
        }
    };
    assert!(words.chars().count() <= 520, "{} characters of words", words.chars().count());
    assert!(!words.chars().any(char::is_control), "{words:?}");
    if !api_error {
        assert_eq!((judged.server_time, judged.remaining), (None, None), "not of the API's form");
    }
}
