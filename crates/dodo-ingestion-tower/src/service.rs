//! The service that a layer makes: lets a request through, and follows its response.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::body::MeteredBody;
use crate::call::Call;
use crate::meter::Meter;
use crate::metering::Metering;
use crate::route;

/// A service whose calls are metered. Made by a [`MeterLayer`](crate::MeterLayer).
#[derive(Clone, Debug)]
pub struct MeterService<S> {
    inner: S,
    meter: Arc<Meter>,
}

impl<S> MeterService<S> {
    pub(crate) fn new(inner: S, meter: Arc<Meter>) -> Self {
        Self { inner, meter }
    }
}

impl<S, Q, B> Service<Request<Q>> for MeterService<S>
where
    S: Service<Request<Q>, Response = Response<B>>,
    B: Body,
{
    type Response = Response<MeteredBody<B>>;
    type Error = S::Error;
    type Future = MeteredFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let mut call = None;
        if parts.extensions.get::<Metering>().is_some() {
            // Metered further out, or left out there.
            route::pass_on(&parts.extensions);
        } else {
            let metering = Metering::active();
            call = Call::begin(&self.meter, &parts, &metering);
            let metering = if call.is_some() { metering } else { Metering::default() };
            parts.extensions.insert(metering);
        }
        let request = Request::from_parts(parts, body);
        let inner = caught(&mut call, || self.inner.call(request));
        MeteredFuture { inner, call }
    }
}

pin_project! {
    /// The response that a metered service will give.
    #[derive(Debug)]
    pub struct MeteredFuture<F> {
        // Dropped before the call ends, so that it may still say something of it.
        #[pin]
        inner: F,
        call: Option<Call>,
    }
}

impl<F, B, E> Future for MeteredFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<MeteredBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let call = this.call;
        let response = ready!(caught(call, || this.inner.poll(context)));
        let mut call = call.take();
        let response = match response {
            Ok(response) => response,
            Err(error) => {
                if let Some(call) = &mut call {
                    call.fail();
                }
                return Poll::Ready(Err(error));
            }
        };
        let (parts, body) = response.into_parts();
        if let Some(call) = &mut call {
            call.head(&parts, body.size_hint().exact());
        }
        let body = MeteredBody::new(body, call);
        Poll::Ready(Ok(Response::from_parts(parts, body)))
    }
}

/// Does what may panic; if it does, the call has failed, and the panic goes on.
fn caught<T>(call: &mut Option<Call>, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic: Box<dyn Any + Send>| {
        if let Some(call) = call {
            call.fail();
        }
        resume_unwind(panic)
    })
}
