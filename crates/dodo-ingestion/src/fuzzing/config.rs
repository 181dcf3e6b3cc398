//! Options as fields: `name=text`, `name:i=integer`, `name:n=number`, `name:f=1`, `name:d=milliseconds`,
//! or `$VARIABLE=text` for the environment. `{key}` stands for the API key that is given unless
//! another is.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::fields;
use crate::config::{Builder, Config, Environment, OPTIONS, OptionKind, OptionValue};
use crate::error::{Error, ErrorKind};

const KEY: &str = "sk_test_0123456789abcdef";

/// Builds a configuration. A plain http address is taken only where it may carry a key, every number
/// lies within its limits, and no error shows the key, nor does `Debug`
/// where it was given as the key alone.
pub fn config(input: &[u8]) {
    let mut builder = Builder::new().api_key(KEY);
    let mut environment = BTreeMap::new();
    let mut http_was_allowed = false;
    let mut holds_key = false;
    for field in fields(input) {
        let Some((name, text)) = field.split_once('=') else { continue };
        let text = text.replace("{key}", KEY);
        holds_key |= text.contains(KEY);
        http_was_allowed |= name.contains("allow_http") || name.contains("ALLOW_HTTP");
        if let Some(variable) = name.strip_prefix('$') {
            environment.insert(variable.to_owned(), text);
            continue;
        }
        let (name, kind) = name.split_once(':').unwrap_or((name, "t"));
        // The key that is given is the one that must not be seen, and it is no option's name.
        if name == "api_key" || name.contains(KEY) {
            continue;
        }
        let value = match kind {
            "i" => OptionValue::Integer(text.parse().unwrap_or_default()),
            "n" => OptionValue::Number(text.parse().unwrap_or(f64::NAN)),
            "f" => OptionValue::Flag(text == "1"),
            "d" => OptionValue::Duration(Duration::from_millis(text.parse().unwrap_or_default())),
            _ => OptionValue::Text(text),
        };
        if let Err(error) = builder.set(name, value) {
            check_error(&error);
        }
    }
    assert!(holds_key || !format!("{builder:?}").contains(KEY), "{builder:?}");
    match builder.config(|variable| environment.get(variable).cloned()) {
        Ok(config) => check(&config, http_was_allowed),
        Err(error) => check_error(&error),
    }
}

fn check_error(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error:?}");
    assert!(error.field().is_some(), "{error:?}");
    for shown in [error.to_string(), format!("{error:?}"), error.message().to_owned()] {
        assert!(!shown.contains(KEY), "{shown}");
    }
}

fn check(config: &Config, http_was_allowed: bool) {
    let namespace = &config.namespace;
    check_address(config, http_was_allowed);
    let account = &namespace.account;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    assert!((1..=40).contains(&account.len()) && account.chars().all(plain), "{account:?}");
    assert!((1..=255).contains(&config.event_name.chars().count()));
    for (name, value) in [
        ("linger", config.linger.as_secs_f64()),
        ("exit_timeout", config.exit_timeout.as_secs_f64()),
        ("request_timeout", namespace.request_timeout.as_secs_f64()),
        ("max_spool_bytes", namespace.max_spool_bytes as f64),
        ("requests_per_minute", namespace.requests_per_minute.into()),
        ("requests_per_second", namespace.requests_per_second.into()),
    ] {
        let spec = OPTIONS.iter().find(|spec| spec.name == name).unwrap();
        let (min, max) = match spec.kind {
            OptionKind::Seconds { min, max } => (min, max),
            OptionKind::Count { min, max } | OptionKind::Bytes { min, max } => {
                (min as f64, max as f64)
            }
            other => panic!("{name}: {other:?}"),
        };
        assert!((min..=max).contains(&value), "{name}: {value}");
    }
}

/// By another way than the parser's own.
fn check_address(config: &Config, http_was_allowed: bool) {
    let namespace = &config.namespace;
    let url = namespace.base_url.join("/events/ingest");
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let loopback = host == "localhost"
        || host.ends_with(".localhost")
        || address.is_ok_and(|address| address.is_loopback());
    match url.scheme() {
        "https" => {}
        "http" if loopback => {}
        "http" => {
            let test_mode = namespace.environment == Environment::TestMode;
            assert!(http_was_allowed && test_mode, "{url}");
        }
        _ => panic!("{url}"),
    }
    assert!(!host.is_empty(), "{url}");
    assert!(url.path().ends_with("/events/ingest"), "{url}");
    assert_eq!(
        (url.username(), url.password(), url.query(), url.fragment()),
        ("", None, None, None)
    );
    assert_eq!(namespace.base_url.is_loopback(), loopback, "{url}");
    assert_eq!(url.origin().ascii_serialization(), namespace.base_url.origin());
    assert!(namespace.base_url.to_string().starts_with(&namespace.base_url.origin()), "{url}");
}
