//! The client against a meter that misbehaves in every way that it can: the bill must be exact.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use dodo_ingestion::{ApiCall, Batch, BatchConfig, Ingestion, Stats};
use dodometer_server::{Meter, Options, Server};

const CALLS: usize = 400;
const CUSTOMERS: usize = 4;
/// Most take their turns with requests that pass between them, so that the client need not wait for long.
const SCRIPT: [&str; 17] = [
    "status=429,retry_after=1,times=1",
    "status=500,after=1,times=1",
    "status=503,after=3,times=1,stage=after_commit",
    "reset,after=5,times=1",
    "reset=after_commit,after=7,times=1",
    "truncate,after=9,times=1",
    "html,after=11,times=1",
    "hang=after_commit,after=13,times=1",
    "too_large=3KiB,after=2,times=1",
    "status=502,share=0.1,times=2",
    "reset=after_commit,share=0.2,times=2",
    "rate_limit",
    "latency=1ms..50ms,share=0.5",
    "skew=40m,after=2",
    "forget=24h",
    // It says more than it was sent: no acknowledgement.
    "count=100000,after=12,times=1",
    "count=0,share=0.3",
];

/// After which the test has failed.
const TIMEOUT: Duration = Duration::from_secs(300);

struct Harness {
    runtime: tokio::runtime::Runtime,
    meter: Meter,
    server: Server,
    ingestion: Ingestion,
    batch: Batch,
    _spool: tempfile::TempDir,
}

fn harness(faults: &[&str]) -> Harness {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let faults = faults.iter().map(|fault| fault.parse().unwrap()).collect();
    let meter = Meter::open(Options { faults, fault_seed: 42, ..Options::default() }).unwrap();
    let server = runtime.block_on(Server::start(&meter, ([127, 0, 0, 1], 0).into())).unwrap();
    let spool = tempfile::tempdir().unwrap();
    let ingestion = Ingestion::builder("key")
        .event_name("api_call")
        .base_url(format!("http://{}", server.address()))
        .spool_dir(spool.path())
        .request_timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    let flush_interval = Duration::from_millis(200);
    let batch = ingestion.create_batch(BatchConfig { max_size: 40, flush_interval }).unwrap();
    Harness { runtime, meter, server, ingestion, batch, _spool: spool }
}

impl Harness {
    fn add(&self, customer: &str) {
        self.batch.add(ApiCall::new(customer).endpoint("/v1/things").status_code(200)).unwrap();
    }

    /// A fault that takes its turn once must have had it, or the bill proves nothing.
    fn check_that_they_struck(&self) {
        let address = self.server.address();
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET /_dev/faults HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let view: serde_json::Value = serde_json::from_str(body).unwrap();
        for fault in view["faults"].as_array().unwrap() {
            let once = fault["fault"].as_str().unwrap().contains("times=1");
            assert!(!once || fault["struck"] == 1, "{view}");
        }
    }

    /// Waits until the last call is settled, and says what each customer was billed.
    fn settled(self) -> (BTreeMap<String, u64>, Stats) {
        self.ingestion.blocking_flush(TIMEOUT).unwrap();
        let bill = self.meter.bill();
        let billed =
            bill.customers.into_iter().map(|bill| (bill.customer_id, bill.calls)).collect();
        let stats = self.ingestion.stats();
        self.check_that_they_struck();
        self.ingestion.blocking_close(None).unwrap();
        self.runtime.block_on(self.server.shutdown());
        (billed, stats)
    }
}

#[test]
fn every_call_is_billed_exactly_once() {
    let harness = harness(&SCRIPT);
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for index in 0..CALLS {
        let customer = format!("cus_{}", index % CUSTOMERS);
        harness.add(&customer);
        *expected.entry(customer).or_default() += 1;
        if index % 20 == 19 {
            // So that there are requests enough for the faults to strike.
            harness.ingestion.blocking_flush(TIMEOUT).unwrap();
        }
    }
    let (billed, stats) = harness.settled();
    assert_eq!((billed, stats.dead_lettered), (expected, 0), "{stats:?}");
}

#[test]
fn who_is_refused_is_set_aside_and_the_others_billed() {
    let harness = harness(&["unauthorized,times=1", "unknown_customer=stranger"]);
    for _ in 0..30 {
        harness.add("cus_1");
        harness.add("stranger");
        harness.add("cus_2");
    }
    let (billed, stats) = harness.settled();
    let expected = [("cus_1".to_owned(), 30), ("cus_2".to_owned(), 30)].into();
    assert_eq!((billed, stats.dead_lettered), (expected, 30), "{stats:?}");
}
