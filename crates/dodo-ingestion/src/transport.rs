//! HTTP to the billing API: one request in, one [`Answer`] out. No retry, no policy, no redirect.

mod resolver;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};

use crate::config::{ApiKey, BaseUrl, NamespaceConfig};
use crate::delivery::{Answer, Failure, Response, ResponseHeaders};
use crate::error::{Error, HIDDEN, LEAST_SECRET_BYTES, Result};
use resolver::Resolver;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection is kept that nothing is sent on. Servers close theirs after a minute, as a rule, and what is sent
/// at that very moment is lost: a key that was refused is tried again after just a minute.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Holds the largest event, also with all of its characters escaped, as a look-up is answered with.
const MAX_RESPONSE_BYTES: usize = 512 << 10;

pub(crate) type AnswerFuture = Pin<Box<dyn Future<Output = Answer>>>;

/// Carries requests to the billing API.
pub(crate) trait Transport {
    /// Posts a body to `/events/ingest`.
    fn ingest(&self, body: Vec<u8>) -> AnswerFuture;
    /// Gets `/events/{event_id}`.
    fn look_up(&self, event_id: &str) -> AnswerFuture;
}

/// Makes a transport to an address, with a key.
pub(crate) type Connect = dyn Fn(&NamespaceConfig, &ApiKey) -> Result<Box<dyn Transport>>;

/// [`Connect`] over HTTP.
pub(crate) fn connect(config: &NamespaceConfig, key: &ApiKey) -> Result<Box<dyn Transport>> {
    let transport = HttpTransport::new(&config.base_url, key, config.request_timeout)?;
    Ok(Box::new(transport))
}

/// The real one.
pub(crate) struct HttpTransport {
    client: reqwest::Client,
    ingest_url: reqwest::Url,
    events_url: reqwest::Url,
    key: ApiKey,
    /// Why a right certificate may not be known here. Empty if there is no reason.
    unread: String,
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport")
            .field("url", &self.ingest_url.as_str())
            .finish_non_exhaustive()
    }
}

impl HttpTransport {
    pub(crate) fn new(base_url: &BaseUrl, key: &ApiKey, timeout: Duration) -> Result<Self> {
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", key.expose()))
            .map_err(|_| Error::configuration("api_key", "holds a character that HTTP forbids"))?;
        authorization.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let (roots, unread) = roots(base_url);
        let only_this_machine = base_url.is_plain() && base_url.is_loopback();
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(roots)?)
            .default_headers(headers)
            .user_agent(concat!("dodo-ingestion/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(Resolver { only_this_machine })
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .timeout(timeout)
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_nodelay(true);
        if base_url.is_loopback() {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| {
            let message = format!("the HTTP client cannot be made: {error}");
            Error::configuration("base_url", message).with_source(error)
        })?;
        let (ingest_url, events_url) = (base_url.join("/events/ingest"), base_url.join("/events"));
        Ok(Self { client, ingest_url, events_url, key: key.clone(), unread })
    }

    fn answer(&self, request: reqwest::RequestBuilder) -> AnswerFuture {
        let (key, unread) = (self.key.clone(), self.unread.clone());
        Box::pin(async move {
            match request.send().await.map_err(|error| failure(&error)) {
                Ok(response) => read(response, &key).await,
                Err(Failure::Tls(words)) => Answer::Failed(Failure::Tls(words + &unread)),
                Err(failure) => Answer::Failed(failure),
            }
        })
    }
}

/// The system's certificates, or the bundled ones where a machine has none. None for a server of this machine that is
/// spoken to without TLS, as in tests: reading them takes milliseconds. With words for what could not be read.
fn roots(base_url: &BaseUrl) -> (rustls::RootCertStore, String) {
    let mut roots = rustls::RootCertStore::empty();
    if base_url.is_plain() && base_url.is_loopback() {
        return (roots, String::new());
    }
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let unread = found.errors.first();
    let unread = unread.map(|error| format!("; of the machine's certificates: {error}"));
    (roots, unread.unwrap_or_default())
}

fn tls(roots: rustls::RootCertStore) -> Result<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::configuration("base_url", format!("TLS: {error}")))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

impl Transport for HttpTransport {
    fn ingest(&self, body: Vec<u8>) -> AnswerFuture {
        self.answer(self.client.post(self.ingest_url.clone()).body(body))
    }

    fn look_up(&self, event_id: &str) -> AnswerFuture {
        let Some(id) = path_segment(event_id) else {
            let failure = Failure::Lost("no address names an event with this id".into());
            return Box::pin(async { Answer::Failed(failure) });
        };
        let mut url = self.events_url.clone();
        url.set_path(&format!("{}/{id}", self.events_url.path()));
        self.answer(self.client.get(url))
    }
}

/// What RFC 3986 does not call unreserved.
const NOT_UNRESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A text as one segment of a path, with every byte that might mean something there in its escaped form; none for
/// what means another segment in any form.
fn path_segment(text: &str) -> Option<String> {
    let segment = || utf8_percent_encode(text, NOT_UNRESERVED).to_string();
    (!matches!(text, "." | "..")).then(segment)
}

async fn read(mut response: reqwest::Response, key: &ApiKey) -> Answer {
    let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
    let headers = ResponseHeaders {
        date: header("date"),
        retry_after: header("retry-after"),
        retry_after_ms: header("retry-after-ms"),
        should_retry: header("x-should-retry"),
        rate_limit_remaining: header("x-ratelimit-remaining"),
    };
    let status = response.status().as_u16();
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let room = MAX_RESPONSE_BYTES - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                // The connection is dropped with what is left of an answer this long.
                if body.len() == MAX_RESPONSE_BYTES {
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => return Answer::Failed(failure(&error)),
        }
    }
    let body = without(key.expose().as_bytes(), body);
    Answer::Response(Response { status, headers, body })
}

/// A server, or a proxy before it, may repeat what it was sent; and its words are logged and kept.
fn without(secret: &[u8], body: Vec<u8>) -> Vec<u8> {
    if secret.len() < LEAST_SECRET_BYTES {
        return body;
    }
    let (mut cleaned, mut rest) = (Vec::new(), &body[..]);
    while let Some(at) = rest.windows(secret.len()).position(|window| window == secret) {
        cleaned.extend_from_slice(&rest[..at]);
        cleaned.extend_from_slice(HIDDEN.as_bytes());
        rest = &rest[at + secret.len()..];
    }
    if cleaned.is_empty() {
        return body;
    }
    cleaned.extend_from_slice(rest);
    cleaned
}

fn failure(error: &reqwest::Error) -> Failure {
    use std::error::Error as _;
    let mut words = error.to_string();
    let mut is_tls = false;
    let mut source = error.source();
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        is_tls |= self::is_tls(cause);
        source = cause.source();
    }
    // Once there was a connection, the server may have read the request before it broke.
    if is_tls && error.is_connect() {
        Failure::Tls(words)
    } else if error.is_connect() {
        Failure::Connect(words)
    } else {
        Failure::Lost(words)
    }
}

fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    // An I/O error hides what it wraps from `source`, and wraps another here.
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>() || inner.is_some_and(|inner| is_tls(inner))
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;

    use super::*;
    use crate::config::Environment;
    use crate::validate::limits;

    #[test]
    fn whatever_is_asked_for_is_one_segment_of_the_address() {
        let base = url::Url::parse("https://host/base/events").unwrap();
        for id in ["a", "order-17\n", "a\tb\r", "a/b?c#%", "...", ".a", "é ", "%2e%2e", "\\", "a;b"]
        {
            let mut url = base.clone();
            url.set_path(&format!("{}/{}", base.path(), super::path_segment(id).unwrap()));
            let [segment] = &url.path_segments().unwrap().skip(2).collect::<Vec<_>>()[..] else {
                panic!("{url}")
            };
            assert_eq!(percent_decode_str(segment).decode_utf8().unwrap(), id);
        }
        assert_eq!((super::path_segment("."), super::path_segment("..")), (None, None));
    }

    #[test]
    fn the_largest_event_is_read_whole_also_where_all_of_it_is_escaped() {
        use std::io::{Read as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let value = "\\ud83d\\ude00".repeat(limits::METADATA_VALUE_CHARS);
        let pairs: Vec<String> =
            (0..limits::METADATA_PAIRS).map(|pair| format!("\"{pair}\":\"{value}\"")).collect();
        let body = format!("{{\"event_id\":\"a\",\"metadata\":{{{}}}}}", pairs.join(","));
        let length = body.len();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            _ = stream.read(&mut [0; 4096]).unwrap();
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
        });
        let base_url = BaseUrl::parse(&url, Environment::TestMode, false).unwrap();
        let key = ApiKey::for_test("sk_secret");
        let transport = HttpTransport::new(&base_url, &key, Duration::from_secs(60)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(transport.look_up("a"));
        let Answer::Response(response) = answer else { panic!("{answer:?}") };
        assert_eq!(response.body.len(), length);
    }

    #[test]
    fn a_key_that_is_repeated_is_taken_out() {
        let without = |secret: &str, body: &str| {
            String::from_utf8(super::without(secret.as_bytes(), body.into())).unwrap()
        };
        assert_eq!(without("sk_secret", "sk_secret, sk_secretsk_secret"), "•••, ••••••");
        assert_eq!(without("sk_secret", "no sk_secre"), "no sk_secre");
        assert_eq!(without("1", "{\"ingested_count\":1}"), "{\"ingested_count\":1}");
    }
}
