//! Where the billing API is, and which addresses may carry an API key at all.

use std::fmt;

use url::{Host, Url};

use super::Environment;
use crate::error::{Error, Result};

/// The billing API's address: scheme, host, port and path prefix, without a trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseUrl {
    url: Url,
}

impl BaseUrl {
    /// The provider's own address of an environment.
    pub(crate) fn of(environment: Environment) -> Result<Self> {
        Self::parse(
            match environment {
                Environment::TestMode => "https://test.dodopayments.com",
                Environment::LiveMode => "https://live.dodopayments.com",
            },
            environment,
            false,
        )
    }

    /// Checks an address that the user gave.
    pub(crate) fn parse(text: &str, environment: Environment, allow_http: bool) -> Result<Self> {
        let wrong = |message: &str| Err(Error::configuration("base_url", message));
        let url = match Url::parse(text.trim()) {
            Ok(url) => url,
            Err(error) => {
                // It may hold a password.
                let what = if text.contains('@') { "it".into() } else { format!("{text:?}") };
                return wrong(&format!(
                    "{what} is not a URL ({error}); give one such as https://test.dodopayments.com"
                ));
            }
        };
        if !url.username().is_empty() || url.password().is_some() {
            return wrong("holds a user name or password; the API key goes into api_key");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return wrong("holds a query or fragment; give scheme, host and port only");
        }
        if url.path().trim_end_matches('/').ends_with("/events/ingest") {
            return wrong("ends with /events/ingest, which is added to it; leave that out");
        }
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&url) => {}
            "http" if environment == Environment::LiveMode => {
                return wrong("plain http would send the live API key in the clear; use https");
            }
            "http" if allow_http => {}
            "http" => {
                return wrong(
                    "plain http to another machine sends the API key in the clear; use https, or set allow_http in test_mode",
                );
            }
            other => {
                return wrong(&format!(
                    "begins with {other}: and not with https://, or http:// for this machine"
                ));
            }
        }
        if url.host().is_none() {
            return wrong("has no host");
        }
        Ok(Self { url })
    }

    /// The address of an endpoint, such as `/events/ingest`.
    pub(crate) fn join(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{path}", self.url.path().trim_end_matches('/')));
        url
    }

    /// Scheme, host and port: what tells one billing API from another on disk.
    pub(crate) fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// Whether nothing that is sent there is encrypted.
    pub(crate) fn is_plain(&self) -> bool {
        self.url.scheme() == "http"
    }

    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback(&self.url)
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str().trim_end_matches('/'))
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<BaseUrl> {
        BaseUrl::parse(text, Environment::TestMode, false)
    }

    #[test]
    fn only_addresses_that_keep_the_key_secret_are_taken() {
        for good in [
            "https://test.dodopayments.com",
            "https://proxy.example/dodo/",
            "http://127.0.0.1:4040",
            "http://[::1]:4040",
            "http://localhost:4040",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for (bad, word) in [
            ("http://meter.internal", "allow_http"),
            ("ftp://x", "begins with ftp: and not with https://"),
            ("localhost:4040", "or http:// for this machine"),
            ("test.dodopayments.com", "not a URL"),
            ("https://key@host", "api_key"),
            ("https://user:secret@host:99999", "not a URL"),
            ("https://host/?a=1", "query"),
            ("https://host/relay/events/ingest/", "leave that out"),
            ("", "not a URL"),
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.message().contains(word), "{bad}: {error}");
            assert_eq!(error.field(), Some("base_url"));
            assert!(!error.message().contains("secret"), "{error}");
        }
        assert!(BaseUrl::parse("http://meter", Environment::TestMode, true).is_ok());
        assert!(BaseUrl::parse("http://meter", Environment::LiveMode, true).is_err());
    }

    #[test]
    fn endpoints_keep_the_prefix() {
        let url = parse("https://proxy.example/dodo/").unwrap();
        assert_eq!(url.join("/events/ingest").as_str(), "https://proxy.example/dodo/events/ingest");
        assert_eq!(url.origin(), "https://proxy.example");
        assert_eq!(url.to_string(), "https://proxy.example/dodo");
    }
}
