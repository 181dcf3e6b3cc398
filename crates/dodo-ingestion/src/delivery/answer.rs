//! What an answer of the billing API, or the lack of one, means for the records that were sent.

use serde::Deserialize;

use super::id_hash;
use crate::clock::{MINUTE_MS, SECOND_MS, WallMs};
use crate::planted::{Fault, is_planted};

/// The longest that a server can make us wait with one header.
const MAX_RETRY_AFTER_MS: i64 = 300 * SECOND_MS;
/// The most of a server's words that is kept.
const MAX_WORDS: usize = 500;

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Response(Response),
    Failed(Failure),
}

/// An HTTP response, its body cut to a bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: ResponseHeaders,
    pub(crate) body: Vec<u8>,
}

/// The headers that mean something to us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResponseHeaders {
    pub(crate) date: Option<String>,
    pub(crate) retry_after: Option<String>,
    pub(crate) retry_after_ms: Option<String>,
    pub(crate) should_retry: Option<String>,
    pub(crate) rate_limit_remaining: Option<String>,
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection: the server has seen nothing.
    Connect(String),
    /// The other side could not prove who it is: the server has seen nothing.
    Tls(String),
    /// Connected, and then no answer in time, or none that was whole.
    Lost(String),
}

/// What is to be done with the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// They are billed.
    Acknowledged,
    /// The same again, later.
    Retry {
        /// Not sooner than this.
        after_ms: i64,
        /// The server asks for fewer requests.
        limited: bool,
        /// The server may have taken them.
        unanswered: bool,
        failing: Failing,
        words: String,
    },
    /// Nothing can be sent until something changes.
    Hold { why: HoldReason, words: String },
    /// At least one of them is not taken, ever.
    Refused { status: u16, words: String },
    /// The request is larger than the server takes.
    TooLarge { words: String },
}

/// Whether a request may not have been taken because of what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failing {
    /// The server has seen nothing of it, or asks for fewer requests.
    No,
    /// The server gave no answer, or something else answered.
    Silent,
    /// The server answered that it failed, or that this may work later.
    Answered,
    /// The key or the address was refused, where others are taken.
    Denied,
}

/// What has to change before anything can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HoldReason {
    /// The API key, which was answered with this status.
    Authentication { status: u16 },
    /// The address, or something between it and us.
    Address,
}

/// A verdict, and what else the answer taught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    /// The server's clock, from an answer of the API's own form.
    pub(crate) server_time: Option<WallMs>,
    /// How many requests the server says are left.
    pub(crate) remaining: Option<u64>,
}

#[derive(Deserialize)]
struct Ingested {
    ingested_count: u64,
}

#[derive(Deserialize)]
struct ApiError {
    code: String,
    message: String,
}

/// Judges the answer to a request of `sent` records.
pub(crate) fn judge(answer: &Answer, sent: usize) -> Judged {
    let response = match answer {
        Answer::Response(response) => response,
        Answer::Failed(failure) => {
            let verdict = if is_planted(Fault::AcknowledgeWithoutAnAnswer) {
                Verdict::Acknowledged
            } else {
                failed(failure)
            };
            return Judged { verdict, server_time: None, remaining: None };
        }
    };
    let api_error: Option<ApiError> = object(&response.body);
    let ingested: Option<Ingested> = object(&response.body);
    let acknowledged =
        response.status == 200 && ingested.is_some_and(|body| body.ingested_count <= sent as u64);
    let acknowledged =
        acknowledged || is_planted(Fault::AnyBodyAcknowledges) && response.status == 200;
    let own_form = acknowledged || api_error.is_some();
    let verdict =
        if acknowledged { Verdict::Acknowledged } else { refused(response, api_error.as_ref()) };
    let header =
        |header: &Option<String>| header.as_deref().and_then(|text| text.trim().parse().ok());
    Judged {
        verdict,
        server_time: if own_form { response.headers.server_time() } else { None },
        remaining: if own_form { header(&response.headers.rate_limit_remaining) } else { None },
    }
}

/// What the answer to a look-up says of the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LookupVerdict {
    /// It is billed.
    Known,
    /// It is not.
    Unknown,
    /// Neither.
    Other(Verdict),
}

/// Judges the answer to a look-up of the event whose id has this hash.
pub(crate) fn judge_lookup(answer: &Answer, expected: u64) -> LookupVerdict {
    #[derive(Deserialize)]
    struct Event {
        event_id: String,
    }
    let response = match answer {
        Answer::Response(response) => response,
        Answer::Failed(failure) => return LookupVerdict::Other(failed(failure)),
    };
    let event: Option<Event> = object(&response.body);
    let api_error: Option<ApiError> = object(&response.body);
    match response.status {
        200 if event.is_some_and(|event| id_hash(event.event_id.as_bytes()) == expected) => {
            LookupVerdict::Known
        }
        404 if api_error.is_some() => LookupVerdict::Unknown,
        _ => LookupVerdict::Other(refused(response, api_error.as_ref())),
    }
}

/// A body that is an object. Serde would also take an array, its elements for the fields.
fn object<T: serde::de::DeserializeOwned>(body: &[u8]) -> Option<T> {
    let is_object = body.trim_ascii_start().starts_with(b"{");
    is_object.then(|| serde_json::from_slice(body).ok()).flatten()
}

fn failed(failure: &Failure) -> Verdict {
    let retry = |unanswered, failing, words: &String| Verdict::Retry {
        after_ms: 0,
        limited: false,
        unanswered,
        failing,
        words: words.clone(),
    };
    match failure {
        Failure::Connect(words) => retry(false, Failing::No, words),
        Failure::Lost(words) => retry(true, Failing::Silent, words),
        Failure::Tls(words) => Verdict::Hold { why: HoldReason::Address, words: words.clone() },
    }
}

fn refused(response: &Response, api_error: Option<&ApiError>) -> Verdict {
    let status = response.status;
    let words = words(response, api_error);
    let should_retry = response.headers.should_retry.as_deref().map(str::trim);
    let failing = match status {
        429 => Failing::No,
        ..=299 => Failing::Silent,
        _ => Failing::Answered,
    };
    let retry = |at_least_ms: i64, unanswered| Verdict::Retry {
        after_ms: response.headers.retry_after_ms().max(at_least_ms),
        limited: status == 429,
        unanswered,
        failing,
        words: words.clone(),
    };
    match (status, should_retry) {
        (408 | 409 | 500..=599, Some("false")) => retry(MINUTE_MS, status >= 500),
        (400..=499, Some("true")) | (408 | 409 | 429, _) => retry(0, false),
        (401 | 403, _) => Verdict::Hold { why: HoldReason::Authentication { status }, words },
        (413, _) => Verdict::TooLarge { words },
        (400 | 422, _) => Verdict::Refused { status, words },
        (404, _) if api_error.is_some() => Verdict::Refused { status, words },
        // Not an acknowledgement: a captive portal, or a proxy's page. Or an informational or
        // successful status that the API never gives.
        (100..=299 | 500..=599, _) => retry(0, true),
        _ => Verdict::Hold { why: HoldReason::Address, words },
    }
}

/// The server's words, for a person: bounded, on one line.
fn words(response: &Response, api_error: Option<&ApiError>) -> String {
    let said = match api_error {
        Some(error) => format!("{} {}", error.code, error.message),
        None => String::from_utf8_lossy(&response.body[..response.body.len().min(2_000)]).into(),
    };
    let line: String =
        said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_WORDS).collect();
    format!("HTTP {}: {}", response.status, line.trim())
}

impl Answer {
    /// How long the server asks us to wait; zero when it does not say.
    pub(crate) fn asks_to_wait_ms(&self) -> u64 {
        match self {
            Self::Response(response) => response.headers.retry_after_ms() as u64,
            Self::Failed(_) => 0,
        }
    }
}

impl ResponseHeaders {
    fn server_time(&self) -> Option<WallMs> {
        let date = httpdate::parse_http_date(self.date.as_deref()?).ok()?;
        Some(crate::clock::wall_ms(date))
    }

    /// How long the server asks us to wait; zero when it does not say.
    fn retry_after_ms(&self) -> i64 {
        let milliseconds = |text: &str| Some(text.trim().parse::<f64>().ok()?.ceil() as i64);
        let seconds = |text: &str| Some((text.trim().parse::<f64>().ok()? * 1e3).ceil() as i64);
        let until = |text: &str| {
            let until = crate::clock::wall_ms(httpdate::parse_http_date(text.trim()).ok()?);
            Some(until - self.server_time()?)
        };
        let asked = self.retry_after_ms.as_deref().and_then(milliseconds).or_else(|| {
            self.retry_after.as_deref().and_then(|text| seconds(text).or_else(|| until(text)))
        });
        asked.unwrap_or(0).clamp(0, MAX_RETRY_AFTER_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shared table of decisions: every language can read it, and here is where it holds.
    #[test]
    fn the_shared_vectors_hold() {
        #[derive(Deserialize)]
        struct Vector {
            name: String,
            sent: usize,
            status: u16,
            #[serde(default)]
            headers: std::collections::BTreeMap<String, String>,
            body: String,
            decision: String,
            after_ms: Option<i64>,
        }
        let text = include_str!("../../../../tests/vectors/answers.json");
        let vectors: Vec<Vector> = serde_json::from_str(text).unwrap();
        assert!(vectors.len() >= 30, "{}", vectors.len());
        for vector in vectors {
            let header = |name: &str| vector.headers.get(name).cloned();
            let answer = Answer::Response(Response {
                status: vector.status,
                headers: ResponseHeaders {
                    date: header("date"),
                    retry_after: header("retry-after"),
                    retry_after_ms: header("retry-after-ms"),
                    should_retry: header("x-should-retry"),
                    rate_limit_remaining: header("x-ratelimit-remaining"),
                },
                body: vector.body.clone().into_bytes(),
            });
            let verdict = judge(&answer, vector.sent).verdict;
            let (decision, after) = match &verdict {
                Verdict::Acknowledged => ("acknowledged", None),
                Verdict::Retry { after_ms, .. } => ("retry", Some(*after_ms)),
                Verdict::Hold { why: HoldReason::Authentication { .. }, .. } => ("hold_key", None),
                Verdict::Hold { why: HoldReason::Address, .. } => ("hold_address", None),
                Verdict::Refused { .. } => ("bisect", None),
                Verdict::TooLarge { .. } => ("halve_bytes", None),
            };
            assert_eq!(decision, vector.decision, "{}", vector.name);
            if let Some(expected) = vector.after_ms {
                assert_eq!(after, Some(expected), "{}", vector.name);
            }
        }
    }

    #[test]
    fn a_servers_words_are_one_bounded_line() {
        let body = format!("<html>\r\n{}\u{1b}[31m", "x".repeat(5_000)).into_bytes();
        let answer = Answer::Response(Response { status: 302, body, ..Response::default() });
        let Verdict::Hold { words, .. } = judge(&answer, 1).verdict else { panic!("no hold") };
        assert!(words.chars().count() < MAX_WORDS + 20);
        assert!(!words.chars().any(char::is_control));
    }

    #[test]
    fn only_answers_of_the_apis_own_form_teach_the_time() {
        let date = Some("Fri, 02 Jan 2026 03:04:05 GMT".to_owned());
        let headers = ResponseHeaders { date, ..ResponseHeaders::default() };
        let with = |status, body: &str| {
            let body = body.as_bytes().to_vec();
            let answer = Answer::Response(Response { status, headers: headers.clone(), body });
            judge(&answer, 1).server_time
        };
        assert_eq!(with(200, r#"{"ingested_count":1}"#), Some(1_767_323_045_000));
        assert_eq!(with(400, r#"{"code":"A","message":"b"}"#), Some(1_767_323_045_000));
        assert_eq!(with(200, "<html>"), None);
        assert_eq!(with(200, r#"{"ingested_count":2}"#), None);
    }
}
