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
    let path = extensions.get::<axum::extract::MatchedPath>()?.as_str();
    Some(template(path))
}

/// The template in what axum says: a router puts its route behind that of the router that called it.
#[cfg(feature = "axum")]
fn template(path: &str) -> &str {
    // Behind a wildcard, which ends every route, stands that of a router which a handler called, as axum's way to route by
    // host is: it has found the whole path anew.
    let behind = path.rfind("/{*").and_then(|at| path[at..].split_once('}'));
    let path = behind.map_or(path, |(_, route)| if route.is_empty() { path } else { route });
    // The root of what is nested as a service, or called for the root, has a slash of each.
    if path.ends_with("//") { &path[..path.len() - 1] } else { path }
}

/// Whether a template is that of a route for whatever is left, as `/{*path}` and `/files/{*path}` are.
pub(crate) fn takes_the_rest(template: &str) -> bool {
    template.rsplit('/').next().is_some_and(|last| last.starts_with("{*") && last.ends_with('}'))
}

#[cfg(not(feature = "axum"))]
pub(crate) fn matched(_: &http::Extensions) -> Option<&str> {
    None
}

#[cfg(test)]
mod tests {
    use super::takes_the_rest;

    #[test]
    fn a_wildcard_takes_the_rest() {
        assert!(["/{*path}", "/files/{*path}", "/{id}/{*rest}"].into_iter().all(takes_the_rest));
        assert!(
            !["/", "/{path}", "/{*path}/x", "/{{*x}}", "/{*", ""].into_iter().any(takes_the_rest)
        );
    }
}
