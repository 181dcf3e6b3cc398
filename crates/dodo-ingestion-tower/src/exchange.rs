//! A call that has ended, as the closures of a layer see it.

use http::{request, response};

/// A request and what came of it. The closures of a layer are called with it when the response has ended.
#[derive(Debug)]
pub struct Exchange<'a> {
    pub(crate) request: &'a request::Parts,
    pub(crate) response: Option<&'a response::Parts>,
    pub(crate) endpoint: Option<&'a str>,
    pub(crate) status: Option<u16>,
    pub(crate) aborted: bool,
}

impl<'a> Exchange<'a> {
    /// The request's head as it reached the layer, with its extensions.
    pub fn request(&self) -> &'a request::Parts {
        self.request
    }

    /// The response's head as it left the layer. `None` where there was none: the client went away, or the
    /// service failed.
    pub fn response(&self) -> Option<&'a response::Parts> {
        self.response
    }

    /// The template of the route that took the request, if one did.
    pub fn endpoint(&self) -> Option<&'a str> {
        self.endpoint
    }

    /// The status: 500 for a service that failed, the equivalent of the code for gRPC, `None` where the client
    /// went away before there was any.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// Whether the response came to no end.
    pub fn aborted(&self) -> bool {
        self.aborted
    }
}
