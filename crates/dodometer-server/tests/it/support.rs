//! A client that says exactly what a test wants said, over a connection of its own.

use std::net::SocketAddr;

use dodometer_server::{Meter, Options, Server};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer, taken apart.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that this is a refusal in the API's form.
    #[track_caller]
    pub(crate) fn refuses(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        let body = self.json();
        assert_eq!(body["code"], code, "{self:?}");
        assert!(body["message"].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        assert_eq!(body.as_object().unwrap().len(), 2, "{self:?}");
        assert!(self.header("date").is_some(), "{self:?}");
    }
}

/// A server with a meter in memory, and how to talk to it.
pub(crate) struct Running {
    pub(crate) meter: Meter,
    pub(crate) server: Server,
    pub(crate) client: Client,
}

pub(crate) async fn running(options: Options) -> Running {
    let meter = Meter::open(options).unwrap();
    let server = Server::start(&meter, ([127, 0, 0, 1], 0).into()).await.unwrap();
    let client = Client::to(server.address());
    Running { meter, server, client }
}

#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    pub(crate) key: Option<String>,
    pub(crate) host: String,
    /// A further header.
    header: String,
}

impl Client {
    pub(crate) fn to(address: SocketAddr) -> Self {
        Self {
            address,
            key: Some("test_key".into()),
            host: address.to_string(),
            header: String::new(),
        }
    }

    pub(crate) fn with_key(&self, key: Option<&str>) -> Self {
        Self { key: key.map(ToOwned::to_owned), ..self.clone() }
    }

    pub(crate) fn with_host(&self, host: &str) -> Self {
        Self { host: host.into(), ..self.clone() }
    }

    pub(crate) fn with_header(&self, header: &str) -> Self {
        Self { header: format!("{header}\r\n"), ..self.clone() }
    }

    /// Connects and sends one request.
    pub(crate) async fn begin(
        &self,
        method: &str,
        path: &str,
        body: &str,
    ) -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.address).await?;
        let key = self
            .key
            .as_ref()
            .map_or(String::new(), |key| format!("authorization: Bearer {key}\r\n"));
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\n{key}{}connection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.host,
            self.header,
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        Ok(stream)
    }

    pub(crate) async fn try_send(
        &self,
        method: &str,
        path: &str,
        body: &str,
    ) -> std::io::Result<Answer> {
        let mut read = Vec::new();
        self.begin(method, path, body).await?.read_to_end(&mut read).await?;
        let text = String::from_utf8(read).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        self.try_send(method, path, body).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &body.to_string()).await
    }

    pub(crate) async fn ingest(&self, events: &[Value]) -> Answer {
        self.post("/events/ingest", &json!({ "events": events })).await
    }

    /// Ingests events that must all be taken, and says how many were new.
    #[track_caller]
    pub(crate) fn ingested(&self, events: Vec<Value>) -> impl Future<Output = u64> + use<> {
        let client = self.clone();
        async move {
            let answer = client.ingest(&events).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.json()["ingested_count"].as_u64().unwrap()
        }
    }

    /// Makes a meter and returns its id.
    pub(crate) async fn meter(&self, event_name: &str, kind: &str, key: Option<&str>) -> String {
        let aggregation = match key {
            Some(key) => json!({ "type": kind, "key": key }),
            None => json!({ "type": kind }),
        };
        let answer = self
            .post(
                "/meters",
                &json!({
                    "name": "A meter",
                    "event_name": event_name,
                    "measurement_unit": "units",
                    "aggregation": aggregation,
                }),
            )
            .await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }
}

/// An event of `api_call` by `cus_1`.
pub(crate) fn event(id: &str) -> Value {
    json!({ "event_id": id, "customer_id": "cus_1", "event_name": "api_call" })
}

/// The same with some fields set otherwise; null stays null.
pub(crate) fn event_with(id: &str, fields: &Value) -> Value {
    let mut event = event(id);
    for (name, value) in fields.as_object().unwrap() {
        event[name] = value.clone();
    }
    event
}

/// A time this many seconds from now, as RFC 3339.
pub(crate) fn from_now(seconds: i64) -> String {
    (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds)).to_string()
}
