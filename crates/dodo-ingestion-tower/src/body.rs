//! A response body that is followed to its end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::call::Call;

pin_project! {
    /// The body of a metered response: the service's own, counted as it passes.
    #[derive(Debug)]
    pub struct MeteredBody<B> {
        // Dropped before the call ends, so that it may still say something of it.
        #[pin]
        inner: B,
        call: Option<Call>,
    }
}

impl<B: Body> MeteredBody<B> {
    pub(crate) fn new(inner: B, mut call: Option<Call>) -> Self {
        // A server does not ask for a body that is empty.
        if inner.is_end_stream()
            && let Some(call) = &mut call
        {
            call.end();
        }
        Self { inner, call }
    }
}

/// The body of no call, with which a layer further out answers by itself: many ask for a body that can be made so.
impl<B: Default> Default for MeteredBody<B> {
    fn default() -> Self {
        Self { inner: B::default(), call: None }
    }
}

impl<B: Body> Body for MeteredBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.inner.as_mut().poll_frame(context));
        if let Some(call) = this.call {
            match &frame {
                Some(Ok(frame)) => {
                    if let Some(trailers) = frame.trailers_ref() {
                        call.trailers(trailers);
                    } else if let Some(data) = frame.data_ref() {
                        call.sending(data.remaining() as u64);
                    }
                    // It is not asked again.
                    if this.inner.is_end_stream() {
                        call.body_ended();
                    }
                }
                None => call.body_ended(),
                // It is dropped now, and the call is an aborted one.
                Some(Err(_)) => {}
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
