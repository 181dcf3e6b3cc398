//! The OpenAPI document: what the routes take and answer, for tools and for people.
//!
//! It is written by hand. A test holds its paths and methods against those of the router, and
//! `tests/strangers` what it says against what the server does.

use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::IntoResponse;

const DOCUMENT: &str = include_str!("../openapi.json");

pub(super) async fn document() -> impl IntoResponse {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], DOCUMENT)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use axum::body::Body;
    use axum::http::header::ALLOW;
    use axum::http::{Request, StatusCode};
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;
    use crate::{Meter, Options};

    type Methods = BTreeSet<String>;

    /// The methods of a path, as the router tells those who come with another one.
    async fn methods(meter: &Meter, path: &str) -> Methods {
        let request = Request::builder().method("TRACE").uri(path).body(Body::empty()).unwrap();
        let answer = meter.router().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        let allowed = answer.headers()[ALLOW].to_str().unwrap();
        allowed.split(',').filter(|method| *method != "HEAD").map(str::to_lowercase).collect()
    }

    #[tokio::test]
    async fn every_route_is_described_and_nothing_else() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let described: BTreeMap<String, Methods> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(path, item)| {
                let members = item.as_object().unwrap().keys();
                (path.clone(), members.filter(|name| *name != "parameters").cloned().collect())
            })
            .collect();

        let meter = Meter::open(Options::default()).unwrap();
        let mut served = BTreeMap::new();
        for (path, _) in crate::http::described() {
            served.insert(path.to_owned(), methods(&meter, path).await);
        }
        assert_eq!(described, served);
    }
}
