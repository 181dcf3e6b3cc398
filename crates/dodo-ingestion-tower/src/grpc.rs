//! What gRPC says in HTTP's headers and trailers. It knows nothing of metering.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, request};

/// The header or trailer that carries a call's code.
const GRPC_STATUS: &str = "grpc-status";

pub(crate) const UNKNOWN: u16 = 2;
pub(crate) const UNIMPLEMENTED: u16 = 12;

/// Whether a message is one of gRPC. Not one of gRPC-web: its code is in the body.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// The code in headers or trailers, if they carry one.
pub(crate) fn code(headers: &HeaderMap) -> Option<u16> {
    let text = headers.get(GRPC_STATUS)?.to_str().ok();
    Some(
        text.and_then(|text| text.trim().parse().ok())
            .filter(|code| *code <= 16)
            .unwrap_or(UNKNOWN),
    )
}

/// The HTTP status that says the same as a code, as `google/rpc/code.proto` has it.
pub(crate) fn http_status(code: u16) -> u16 {
    match code {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        UNIMPLEMENTED => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

/// The method that a request of gRPC calls, if it is one by its header.
pub(crate) fn method(request: &request::Parts) -> Option<&str> {
    is_grpc(&request.headers).then(|| method_path(request.uri.path())).flatten()
}

/// The path of a call, where it has the form of one: `/package.Service/Method`.
fn method_path(path: &str) -> Option<&str> {
    let name = |text: &str| {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
        !text.is_empty() && text.bytes().all(legal)
    };
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    (name(service) && name(method)).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        [(http::HeaderName::from_static(name), http::HeaderValue::from_static(value))]
            .into_iter()
            .collect()
    }

    #[test]
    fn grpc_is_told_from_grpc_web_and_the_rest() {
        for (kind, is) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc; charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(&headers("content-type", kind)), is, "{kind}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn a_code_that_is_none_is_unknown() {
        assert_eq!(code(&HeaderMap::new()), None);
        for (text, expected) in [("0", 0), ("16", 16), ("17", UNKNOWN), ("ok", UNKNOWN)] {
            assert_eq!(code(&headers("grpc-status", text)), Some(expected), "{text}");
        }
    }

    #[test]
    fn the_shared_statuses_are_those_of_the_codes() {
        #[derive(serde::Deserialize)]
        struct Vectors {
            grpc: std::collections::BTreeMap<u16, u16>,
        }
        let text = include_str!("../../../tests/vectors/metering.json");
        let Vectors { grpc } = serde_json::from_str(text).unwrap();
        assert!(grpc.keys().copied().eq(0..=16));
        for (code, status) in grpc {
            assert_eq!(http_status(code), status, "{code}");
        }
    }

    #[test]
    fn a_path_that_is_no_method_is_no_template() {
        assert_eq!(
            method_path("/grpc.health.v1.Health/Check"),
            Some("/grpc.health.v1.Health/Check")
        );
        for path in ["/", "/a", "/a/", "//b", "/a/b/c", "/a/b%20", "/a/b'"] {
            assert_eq!(method_path(path), None, "{path}");
        }
    }
}
