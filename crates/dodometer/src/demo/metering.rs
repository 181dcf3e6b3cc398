//! What makes an API a metered one: a middleware that tracks every request as an API call.
//!
//! A call is measured to the end of its response, not to its head: it is tracked before the end is
//! handed to the server, so that whoever has a whole answer has a call that is accepted, also if this
//! process is killed then; or when the body is dropped, because the client went away.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Error;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use dodo_ingestion::{ApiCall, Ingestion};
use hyper::body::{Frame, SizeHint};

use super::customers;

/// The middleware: finds out whose call it is, lets it through and follows it to its end.
pub(crate) async fn meter(
    State(ingestion): State<Ingestion>,
    route: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    let Some(customer) = customers::of(request.headers()) else {
        return (StatusCode::UNAUTHORIZED, "an x-api-key is needed\n").into_response();
    };
    let mut call = Call {
        ingestion,
        customer,
        // The template, so that the calls of a route are one line of a report.
        route: route.as_str().to_owned(),
        method: request.method().to_string(),
        began: Instant::now(),
        head: None,
        bytes: 0,
        tracked: false,
    };
    let response = next.run(request).await;
    call.head = Some((response.status(), call.began.elapsed()));
    // The server does not ask for a body that is empty.
    if response.body().is_end_stream() {
        call.end();
    }
    response.map(|body| Body::new(Followed { body, call }))
}

/// A call under way; tracked once, at its end or when it is dropped.
struct Call {
    ingestion: Ingestion,
    customer: &'static str,
    route: String,
    method: String,
    began: Instant,
    /// The status, and how long it took to be known.
    head: Option<(StatusCode, Duration)>,
    bytes: u64,
    tracked: bool,
}

impl Call {
    /// The whole response is there.
    fn end(&mut self) {
        self.track(false);
    }

    fn track(&mut self, aborted: bool) {
        if std::mem::replace(&mut self.tracked, true) {
            return;
        }
        let mut call = ApiCall::new(self.customer)
            .endpoint(std::mem::take(&mut self.route))
            .method(std::mem::take(&mut self.method))
            .response_time(self.began.elapsed())
            .response_bytes(self.bytes);
        if let Some((status, ttfb)) = self.head {
            call = call.status_code(status.as_u16()).ttfb(ttfb);
        }
        if aborted {
            call = call.aborted(true);
        }
        // Metering never fails a request: an operator hears of it, the API's user does not.
        if let Err(error) = self.ingestion.track_api_call(call) {
            tracing::warn!(%error, "a call was not accepted");
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.track(true);
    }
}

/// A response body, and the call that ends with it.
struct Followed {
    body: Body,
    call: Call,
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.call.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if self.body.is_end_stream() {
                    self.call.end();
                }
            }
            Poll::Ready(None) => self.call.end(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
