//! The network between the simulated machine and the billing API: what is sent may arrive late,
//! never or twice, and what is answered may be lost, cut, or somebody else's.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use fastrand::Rng;

use super::server::HttpAnswer;
use crate::delivery::{Answer, Failure, Response, ResponseHeaders};
use crate::transport::{AnswerFuture, Transport};

/// How long the client waits for an answer.
pub(crate) const TIMEOUT_MS: i64 = 30_000;
/// A server works on a request for no longer than this after it was sent.
const SLOWEST_MS: i64 = 60_000;

#[derive(Clone, Debug)]
pub(crate) enum Call {
    Ingest(Vec<u8>),
    Lookup(String),
}

/// Where a process waits for an answer.
pub(crate) type Slot = Rc<RefCell<Option<Answer>>>;

/// A request that was just sent.
pub(crate) struct Sent {
    pub(crate) process: u32,
    pub(crate) key: String,
    pub(crate) call: Call,
    pub(crate) slot: Slot,
}

/// What processes sent and nobody has carried yet.
pub(crate) type Outbox = Rc<RefCell<Vec<Sent>>>;

/// A process's end of the network.
pub(crate) struct SimTransport {
    pub(crate) process: u32,
    pub(crate) key: String,
    pub(crate) outbox: Outbox,
}

impl SimTransport {
    fn send(&self, call: Call) -> AnswerFuture {
        let slot = Slot::default();
        self.outbox.borrow_mut().push(Sent {
            process: self.process,
            key: self.key.clone(),
            call,
            slot: slot.clone(),
        });
        Box::pin(Waiting(slot))
    }
}

impl Transport for SimTransport {
    fn ingest(&self, body: Vec<u8>) -> AnswerFuture {
        self.send(Call::Ingest(body))
    }

    fn look_up(&self, event_id: &str) -> AnswerFuture {
        self.send(Call::Lookup(event_id.to_owned()))
    }
}

struct Waiting(Slot);

impl Future for Waiting {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Answer> {
        self.0.borrow_mut().take().map_or(Poll::Pending, Poll::Ready)
    }
}

/// How likely each thing is to happen to a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weather {
    pub(crate) unreachable: f64,
    pub(crate) lost: f64,
    pub(crate) answer_lost: f64,
    pub(crate) cut: f64,
    pub(crate) slow: f64,
    pub(crate) twice: f64,
    pub(crate) portal: f64,
    pub(crate) wrong_count: f64,
    pub(crate) proxy: f64,
    pub(crate) tls: f64,
}

/// What becomes of one request.
#[derive(Debug)]
pub(crate) struct Fate {
    pub(crate) name: &'static str,
    /// After how long it reaches the server, each time that it does.
    pub(crate) arrives: Vec<i64>,
    /// After how long the client has an answer.
    pub(crate) answered: i64,
    /// Another answer than the server's.
    pub(crate) instead: Option<Answer>,
}

impl Weather {
    /// Any of it may be bad, and most of it is not.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let mut part = |most: f64| if rng.u8(..4) == 0 { rng.f64() * most } else { 0.0 };
        Self {
            unreachable: part(1.0),
            lost: part(0.6),
            answer_lost: part(0.8),
            cut: part(0.5),
            slow: part(0.5),
            twice: part(0.3),
            portal: part(0.3),
            wrong_count: part(0.2),
            proxy: part(0.5),
            tls: part(0.2),
        }
    }

    /// Nothing gets through.
    pub(crate) fn outage() -> Self {
        Self { unreachable: 0.7, lost: 1.0, ..Self::default() }
    }

    pub(crate) fn decide(&self, rng: &mut Rng) -> Fate {
        let there = rng.i64(2..80);
        let back = there + rng.i64(2..80);
        let lost = |why: &str| Some(Answer::Failed(Failure::Lost(why.into())));
        let fate = |name, arrives, answered, instead| Fate { name, arrives, answered, instead };
        let mut happens = |probability: f64| probability > 0.0 && rng.f64() < probability;
        if happens(self.unreachable) {
            let refused = Some(Answer::Failed(Failure::Connect("refused".into())));
            fate("unreachable", vec![], there, refused)
        } else if happens(self.tls) {
            let failed = Some(Answer::Failed(Failure::Tls("expired".into())));
            fate("tls failure", vec![], there, failed)
        } else if happens(self.lost) {
            fate("request lost", vec![], TIMEOUT_MS, lost("timeout"))
        } else if happens(self.answer_lost) {
            fate("answer lost", vec![there], back, lost("reset"))
        } else if happens(self.cut) {
            fate("answer cut", vec![there], back, lost("cut"))
        } else if happens(self.portal) {
            let answer = Answer::Response(given(200, "<html>sign in</html>"));
            fate("captive portal", vec![], there, Some(answer))
        } else if happens(self.wrong_count) {
            let answer = Answer::Response(given(200, r#"{"ingested_count":999999}"#));
            fate("wrong count", vec![there], back, Some(answer))
        } else if happens(self.proxy) {
            let (name, status, body) = *rng.choice(PROXY).unwrap_or(&PROXY[0]);
            let mut answer = given(status, body);
            answer.headers.retry_after = rng.bool().then(|| rng.u8(1..40).to_string());
            answer.headers.retry_after_ms = rng.bool().then(|| rng.u16(1..40_000).to_string());
            answer.headers.should_retry = rng.bool().then(|| rng.bool().to_string());
            fate(name, vec![], there, Some(Answer::Response(answer)))
        } else if happens(self.slow) {
            let there = rng.i64(1_000..SLOWEST_MS);
            let answered = there + 5;
            if answered >= TIMEOUT_MS {
                fate("late commit", vec![there], TIMEOUT_MS, lost("timeout"))
            } else {
                fate("slow", vec![there], answered, None)
            }
        } else if happens(self.twice) {
            fate("sent twice", vec![there, there + rng.i64(1..20_000)], back, None)
        } else {
            fate("", vec![there], back, None)
        }
    }
}

/// What stands between may answer in the API's stead.
pub(crate) const PROXY: &[(&str, u16, &str)] = &[
    ("proxy 204", 204, ""),
    ("proxy 302", 302, ""),
    ("proxy 403", 403, "<html>forbidden</html>"),
    ("proxy 404", 404, "<html>not here</html>"),
    ("proxy 405", 405, ""),
    ("proxy 407", 407, "who are you"),
    ("proxy 408", 408, ""),
    ("proxy 409", 409, ""),
    ("proxy 429", 429, r#"{"code":"TOO_MANY_REQUESTS","message":"slow down"}"#),
    ("proxy 500", 500, "oops"),
    ("proxy 502", 502, "<html>bad gateway</html>"),
    ("proxy 503", 503, "busy"),
    ("proxy 504", 504, ""),
];

fn given(status: u16, body: &str) -> Response {
    Response { status, headers: ResponseHeaders::default(), body: body.as_bytes().to_vec() }
}

/// The server's answer, as the client's HTTP sees it.
pub(crate) fn read(answer: &HttpAnswer) -> Answer {
    let header = |name: &str| {
        let found = answer.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    };
    let headers = ResponseHeaders {
        date: header("date"),
        retry_after: header("retry-after"),
        retry_after_ms: header("retry-after-ms"),
        should_retry: header("x-should-retry"),
        rate_limit_remaining: header("x-ratelimit-remaining"),
    };
    Answer::Response(Response { status: answer.status, headers, body: answer.body.clone() })
}
