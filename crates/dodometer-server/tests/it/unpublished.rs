//! What the billing API does not publish, each way, and its rate limit, over real HTTP.

use std::time::Duration;

use crate::support::{Client, event, event_with, from_now, running};
use dodometer_server::{Data, Meter, Options, RateLimit, Server, UnknownCustomer};
use serde_json::json;

#[tokio::test]
async fn an_unknown_customer_refuses_the_whole_request() {
    for (unknown_customer, status, code) in [
        (UnknownCustomer::BadRequest, 400, "INVALID_REQUEST_PARAMETERS"),
        (UnknownCustomer::NotFound, 404, "NOT_FOUND"),
        (UnknownCustomer::Unprocessable, 422, "INVALID_REQUEST_BODY"),
    ] {
        let customers = Some(["cus_1".to_owned(), "cus_2".to_owned()].into());
        let options = Options { customers, unknown_customer, ..Options::default() };
        let running = running(options).await;
        let client = &running.client;
        let of = |id: &str, customer: &str| event_with(id, &json!({ "customer_id": customer }));
        assert_eq!(client.ingested(vec![of("a", "cus_1"), of("b", "cus_2")]).await, 2);
        for stranger in ["cus_3", "CUS_1", "cus_"] {
            let answer = client.ingest(&[of("c", "cus_1"), of("d", stranger)]).await;
            answer.refuses(status, code);
        }
        client.get("/events/c").await.refuses(404, "NOT_FOUND");
        assert_eq!(running.meter.bill().totals.calls, 2);
    }
}

#[tokio::test]
async fn known_ids_can_be_counted_in_the_answer_and_never_on_the_bill() {
    let running = running(Options { count_known_ids: true, ..Options::default() }).await;
    assert_eq!(running.client.ingested(vec![event("a"), event("b")]).await, 2);
    assert_eq!(running.client.ingested(vec![event("b"), event("c")]).await, 2);
    let totals = running.meter.bill().totals;
    assert_eq!((totals.calls, totals.duplicates_ignored), (3, 1));
}

#[tokio::test]
async fn an_id_can_be_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let open = |remember_ids| {
        let data = Data::File(folder.path().join("meter.db"));
        Meter::open(Options { data, remember_ids, ..Options::default() }).unwrap()
    };
    let changed = event_with("a", &json!({ "customer_id": "cus_2" }));
    for (remember_ids, new, calls) in [
        (None, 1, 1),
        (Some(Duration::from_secs(3600)), 0, 1),
        (Some(Duration::ZERO), 1, 2),
        (Some(Duration::from_secs(3600)), 0, 2),
        (Some(Duration::MAX), 0, 2),
        (None, 0, 2),
        (Some(Duration::ZERO), 1, 3),
    ] {
        let meter = open(remember_ids);
        let server = Server::start(&meter, ([127, 0, 0, 1], 0).into()).await.unwrap();
        let client = Client::to(server.address());
        let event = if calls == 1 { event("a") } else { changed.clone() };
        assert_eq!(client.ingested(vec![event]).await, new, "{remember_ids:?}");
        assert_eq!(meter.bill().totals.calls, calls);
        let customer = if calls == 1 { "cus_1" } else { "cus_2" };
        assert_eq!(client.get("/events/a").await.json()["customer_id"], customer, "the last one");
        server.shutdown().await;
    }
}

#[tokio::test]
async fn the_age_of_a_known_event_can_be_overlooked() {
    let old = |id: &str| event_with(id, &json!({ "timestamp": from_now(-7200) }));
    for id_before_age in [false, true] {
        let running = running(Options { id_before_age, ..Options::default() }).await;
        let client = &running.client;
        assert_eq!(client.ingested(vec![event("a")]).await, 1);
        if id_before_age {
            assert_eq!(client.ingested(vec![old("a"), event("b")]).await, 1);
        } else {
            client.ingest(&[old("a"), event("b")]).await.refuses(400, "INVALID_REQUEST_PARAMETERS");
        }
        client.ingest(&[old("a"), old("new")]).await.refuses(400, "INVALID_REQUEST_PARAMETERS");
        client.get("/events/new").await.refuses(404, "NOT_FOUND");
    }
}

#[tokio::test]
async fn requests_over_the_limit_get_429_and_are_told_when_to_come_back() {
    let rate_limit = Some(RateLimit { per_minute: 3, per_second: 100 });
    let running = running(Options { rate_limit, ..Options::default() }).await;
    let client = &running.client;
    client.with_key(None).get("/events").await.refuses(401, "UNAUTHORIZED");
    for (id, remaining) in [("a", "2"), ("b", "1")] {
        let answer = client.ingest(&[event(id)]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("x-ratelimit-remaining"), Some(remaining));
    }
    // A look-up is a request as well, a refused one too.
    let answer = client.get("/events/none").await;
    answer.refuses(404, "NOT_FOUND");
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("0"));

    let answer = client.ingest(&[event("c")]).await;
    answer.refuses(429, "TOO_MANY_REQUESTS");
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("0"));
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    client.get("/events/a").await.refuses(429, "TOO_MANY_REQUESTS");

    let other = client.with_key(Some("another"));
    assert_eq!(other.ingested(vec![event("d")]).await, 1);
    other.get("/events/c").await.refuses(404, "NOT_FOUND");
    assert_eq!(client.with_key(None).get("/healthz").await.status, 200, "not of the API");
    let totals = running.meter.bill().totals;
    assert_eq!((totals.calls, totals.requests_refused), (3, 1));
}

#[tokio::test]
async fn ten_requests_a_second_are_answered_of_those_that_come_at_once() {
    let rate_limit = Some(RateLimit::default());
    let running = running(Options { rate_limit, ..Options::default() }).await;
    let sent: Vec<_> = (0..12)
        .map(|index| {
            let client = running.client.clone();
            tokio::spawn(async move { client.ingest(&[event(&format!("e{index}"))]).await })
        })
        .collect();
    let mut taken = 0;
    for answer in sent {
        let answer = answer.await.unwrap();
        if answer.status == 200 {
            taken += 1;
        } else {
            answer.refuses(429, "TOO_MANY_REQUESTS");
            assert_eq!(answer.header("retry-after"), Some("1"));
        }
    }
    // On a machine that is busy the twelve may take longer than a second.
    assert!((10..=12).contains(&taken), "{taken}");
    assert_eq!(running.meter.bill().totals.calls, taken);
}
