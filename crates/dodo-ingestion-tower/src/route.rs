//! The template of the route that a request takes, as far as it can be told when the request comes in.

use http::request;

use crate::grpc;
use crate::metering::Metering;

/// The method of a gRPC call, else the route that a router of axum has found.
pub(crate) fn template(request: &request::Parts) -> Option<String> {
    if grpc::is_grpc(&request.headers) {
        return grpc::method_path(request.uri.path()).map(str::to_owned);
    }
    matched(&request.extensions).map(str::to_owned)
}

/// Tells a layer further out, which meters the call, of the route that is known here.
pub(crate) fn pass_on(extensions: &http::Extensions) {
    if let Some(route) = matched(extensions) {
        Metering::of(extensions).pass_route(route);
    }
}

#[cfg(feature = "axum")]
fn matched(extensions: &http::Extensions) -> Option<&str> {
    extensions.get::<axum::extract::MatchedPath>().map(axum::extract::MatchedPath::as_str)
}

#[cfg(not(feature = "axum"))]
fn matched(_: &http::Extensions) -> Option<&str> {
    None
}
