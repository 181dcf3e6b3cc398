//! The template of the route that a request takes, as far as it can be told when the request comes in.

use crate::metering::Metering;

/// Tells a layer further out, which meters the call, of the route that is known here.
pub(crate) fn pass_on(extensions: &http::Extensions) {
    if let Some(route) = matched(extensions) {
        Metering::of(extensions).pass_route(route);
    }
}

/// The route that a router of axum has found.
#[cfg(feature = "axum")]
pub(crate) fn matched(extensions: &http::Extensions) -> Option<&str> {
    extensions.get::<axum::extract::MatchedPath>().map(axum::extract::MatchedPath::as_str)
}

#[cfg(not(feature = "axum"))]
pub(crate) fn matched(_: &http::Extensions) -> Option<&str> {
    None
}
