//! What the page draws, against what a list of all events says.

use crate::support::{Client, event, event_with, from_now, running};
use dodometer_server::{Data, Meter, Options, Server};
use serde_json::{Value, json};

async fn view(client: &Client, query: &str) -> Value {
    let answer = client.get(&format!("/_dev/view?{query}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn price(client: &Client, meter: &str, price: Value) {
    let path = format!("/_dev/meters/{meter}/price");
    assert_eq!(client.send("PUT", &path, &price.to_string()).await.status, 200);
}

/// Events of every kind, the numbers now and then as texts.
fn mixed(count: usize) -> Vec<Value> {
    let mut random = fastrand::Rng::with_seed(11);
    let mut events = Vec::new();
    for n in 0..count {
        let status = [200, 201, 404, 500, 503][random.usize(0..5)];
        let time = random.u64(1..900);
        let text = random.bool();
        let number = |n: u64| if text { json!(n.to_string()) } else { json!(n) };
        let mut metadata = json!({
            "endpoint": format!("/{}", random.u8(0..3)),
            "response_time_ms": number(time),
            "response_bytes": number(random.u64(0..100)),
        });
        if random.u8(0..10) > 0 {
            metadata["status_code"] = number(status);
        }
        events.push(event_with(
            &format!("e{n}"),
            &json!({
                "customer_id": format!("cus_{}", random.u8(0..4)),
                "event_name": if status < 500 { "api_call" } else { "api_error" },
                "timestamp": from_now(-random.i64(600..3000)),
                "metadata": metadata,
            }),
        ));
    }
    events
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// The sums of a view over some events, by going through them.
fn sums(events: &[&Value]) -> Value {
    let status = |event: &&&Value| number(&event["metadata"]["status_code"]);
    let count = |holds: &dyn Fn(u64) -> bool| {
        events.iter().filter_map(|event| status(&event)).filter(|status| holds(*status)).count()
    };
    let mut times: Vec<u64> =
        events.iter().filter_map(|event| number(&event["metadata"]["response_time_ms"])).collect();
    times.sort_unstable();
    let percentile = |percent: usize| {
        let rank = (times.len() * percent).div_ceil(100).max(1);
        times.get(rank - 1).map(|time| *time as f64)
    };
    json!({
        "calls": events.len(),
        "billed": events.iter().filter(|event| event["event_name"] == "api_call").count(),
        "answered": count(&|_| true),
        "errors": count(&|status| status >= 500),
        "client_errors": count(&|status| (400..500).contains(&status)),
        "bytes": events.iter().filter_map(|event| number(&event["metadata"]["response_bytes"])).sum::<u64>(),
        "p50_ms": percentile(50), "p95_ms": percentile(95), "p99_ms": percentile(99),
    })
}

#[track_caller]
fn assert_sums(found: &Value, events: &[&Value], what: &str) {
    for (name, wanted) in sums(events).as_object().unwrap() {
        assert_eq!(&found[name], wanted, "{name} of {what}");
    }
}

/// Holds a view against a list of the events that it should be of.
fn assert_view(view: &Value, events: &[Value], wanted: &dyn Fn(&Value) -> bool) {
    let events: Vec<&Value> = events.iter().filter(|event| wanted(event)).collect();
    assert_sums(&view["totals"], &events, "all");
    let by = |of: &dyn Fn(&Value) -> Value, table: &Value, what: &str| {
        let mut lines = 0;
        for line in table["rows"].as_array().unwrap() {
            let own: Vec<&Value> =
                events.iter().filter(|event| of(event) == line["name"]).copied().collect();
            assert_sums(line, &own, what);
            lines += own.len();
        }
        assert_eq!(lines, events.len(), "{what}");
        let calls: Vec<u64> = table["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| line["calls"].as_u64().unwrap())
            .collect();
        assert!(calls.is_sorted_by(|a, b| a >= b), "{what}: {calls:?}");
    };
    by(&|event| event["customer_id"].clone(), &view["customers"], "a customer");
    by(&|event| event["metadata"]["endpoint"].clone(), &view["endpoints"], "an endpoint");
    by(&|event| event["event_name"].clone(), &view["events"], "an event name");
    let status = |event: &Value| {
        number(&event["metadata"]["status_code"])
            .map(|status| json!(status.to_string()))
            .unwrap_or_default()
    };
    by(&status, &view["statuses"], "a status");
    let series = &view["series"];
    let sum =
        |name: &str| series[name].as_array().unwrap().iter().filter_map(Value::as_u64).sum::<u64>();
    assert_eq!(view["totals"]["calls"], sum("billed") + sum("not_billed"));
    assert_eq!(view["totals"]["errors"], sum("errors"));
}

#[tokio::test]
async fn a_view_is_what_a_list_of_the_events_says() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        || Options { data: Data::File(folder.path().join("meter.db")), ..Options::default() };
    let first = running(options()).await;
    let client = first.client.clone();
    let events = mixed(900);
    client.ingested(events[..500].to_vec()).await;
    // A meter that is made afterwards counts what came before.
    let meter = client.meter("api_call", "count", None).await;
    price(&client, &meter, json!({ "price_per_unit": "2", "free_threshold": 10 })).await;
    client.ingested(events[500..].to_vec()).await;

    let check = async |client: &Client| {
        assert_view(&view(client, "").await, &events, &|_| true);
        for period in ["24h", "30d", "all"] {
            assert_view(&view(client, &format!("period={period}")).await, &events, &|_| true);
        }
        let of_one = view(client, "customer=cus_1&endpoint=").await;
        assert_view(&of_one, &events, &|event| event["customer_id"] == "cus_1");
        let of_both = view(client, "customer=cus_1&endpoint=/2").await;
        assert_view(&of_both, &events, &|event| {
            event["customer_id"] == "cus_1" && event["metadata"]["endpoint"] == "/2"
        });
        for nothing in ["customer=nobody", "endpoint=/nowhere", "period=5m"] {
            assert_view(&view(client, nothing).await, &events, &|_| false);
        }

        // What is owed is of the customer, whatever else is chosen, and is what the bill says.
        let bill = client.get("/_dev/bill").await.json();
        assert_eq!(view(client, "endpoint=/2").await["totals"]["amount"], bill["totals"]["amount"]);
        let owed = bill["customers"]
            .as_array()
            .unwrap()
            .iter()
            .find(|line| line["customer_id"] == "cus_1");
        assert_eq!(of_both["totals"]["amount"], owed.unwrap()["amount"]);
        let billed = events
            .iter()
            .filter(|event| event["customer_id"] == "cus_1" && event["event_name"] == "api_call")
            .count();
        let line = &of_both["meters"][0];
        assert_eq!(line["consumed_units"], billed.to_string());
        assert_eq!(line["chargeable_units"], (billed - 10).to_string());
        assert_eq!(line["amount"], 2 * (billed - 10));
    };
    check(&client).await;

    first.server.shutdown().await;
    drop(first.meter);
    let again = Meter::open(options()).unwrap();
    let server = Server::start(&again, ([127, 0, 0, 1], 0).into()).await.unwrap();
    let client = Client::to(server.address());
    check(&client).await;

    client.send("DELETE", &format!("/meters/{meter}"), "").await;
    let archived = view(&client, "").await;
    assert_eq!(
        (&archived["totals"]["billed"], &archived["totals"]["amount"]),
        (&json!(0), &json!(0))
    );
}

#[tokio::test]
async fn an_event_is_billed_if_a_meter_with_a_price_counts_it() {
    let running = running(Options::default()).await;
    let client = &running.client;
    let meter = client.meter("api_call", "sum", Some("units")).await;
    let with = |id: &str, units: Value| event_with(id, &json!({ "metadata": { "units": units } }));
    client
        .ingested(vec![
            with("a", json!(3)),
            with("b", json!("2")),
            with("c", json!("many")),
            event("d"),
        ])
        .await;
    let billed = async || {
        let view = view(client, "").await;
        let newest = view["newest"].as_array().unwrap().iter();
        let marks: Vec<bool> = newest.map(|event| event["billed"].as_bool().unwrap()).collect();
        (view["totals"]["billed"].as_u64().unwrap(), marks)
    };
    assert_eq!(billed().await, (0, vec![false; 4]), "no meter has a price");
    price(client, &meter, json!({ "price_per_unit": "1" })).await;
    assert_eq!(billed().await, (2, vec![false, false, true, true]), "only two have units");
}

#[tokio::test]
async fn the_newest_events_are_those_of_the_filter() {
    let running = running(Options::default()).await;
    let client = &running.client;
    let own = |n: usize, customer: &str| {
        let metadata = json!({ "endpoint": format!("/{}", n % 2) });
        event_with(
            &format!("{customer}{n}"),
            &json!({ "customer_id": customer, "metadata": metadata }),
        )
    };
    client.ingested((0..40).map(|n| own(n, "cus_quiet")).collect()).await;
    for batch in 0..2 {
        client.ingested((0..600).map(|n| own(batch * 600 + n, "cus_loud")).collect()).await;
    }
    let newest =
        async |query: &str| view(client, query).await["newest"].as_array().unwrap().clone();
    let cursors = |events: &[Value]| -> Vec<u64> {
        events.iter().map(|event| event["cursor"].as_u64().unwrap()).collect()
    };
    assert_eq!(cursors(&newest("").await), (1216..=1240).rev().collect::<Vec<_>>());
    // More than are kept have come since; the store has them.
    let quiet = newest("customer=cus_quiet").await;
    assert_eq!(quiet.len(), 25);
    assert!(quiet.iter().all(|event| event["customer_id"] == "cus_quiet"));
    assert_eq!(cursors(&quiet), (16..=40).rev().collect::<Vec<_>>(), "the same from the store");
    let both = newest("customer=cus_quiet&endpoint=/1").await;
    assert_eq!(both.len(), 20);
    assert!(both.iter().all(|event| event["endpoint"] == "/1"));
}

#[tokio::test]
async fn refusals_are_listed_with_their_reason() {
    let running = running(Options { max_body_bytes: 4000, ..Options::default() }).await;
    let client = &running.client;
    client.ingest(&[]).await.refuses(400, "INVALID_REQUEST_PARAMETERS");
    client.with_key(None).ingest(&[event("a"), event("b")]).await.refuses(401, "UNAUTHORIZED");
    client.send("POST", "/events/ingest", "{").await.refuses(422, "INVALID_REQUEST_BODY");
    client
        .send("POST", "/events/ingest", &" ".repeat(4001))
        .await
        .refuses(413, "PAYLOAD_TOO_LARGE");
    let rebound = client.with_host("evil.example");
    let compressed = client.with_header("content-encoding: gzip");
    rebound.ingest(&[event("a")]).await.refuses(403, "FORBIDDEN");
    compressed.ingest(&[event("a")]).await.refuses(415, "UNSUPPORTED_MEDIA_TYPE");
    for other in [&rebound, &compressed] {
        assert!(other.post("/meters", &json!({})).await.status >= 400, "and is not of ingestion");
    }
    client.ingested(vec![event("a")]).await;
    client.ingested(vec![event("a")]).await;
    let requests = view(client, "").await["requests"].clone();
    assert_eq!((&requests["accepted"], &requests["refused"]), (&json!(2), &json!(6)));
    assert_eq!((&requests["duplicates"], &requests["last_minute"]), (&json!(1), &json!(8)));
    let told: Vec<_> = requests["refusals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|refusal| (refusal["status"].as_u64().unwrap(), refusal["events"].clone()))
        .collect();
    let unread = [415, 403, 413, 422].map(|status| (status, Value::Null));
    assert_eq!(told, [&unread[..], &[(401, json!(2)), (400, json!(0))]].concat());
    let bad = client.get("/_dev/view?period=1y").await;
    bad.refuses(400, "INVALID_QUERY_PARAMS");
}

#[tokio::test]
async fn what_others_name_does_not_grow_without_bound() {
    let running = running(Options::default()).await;
    let client = &running.client;
    let of = async |endpoint: &str| {
        let view = view(client, &format!("endpoint={endpoint}")).await;
        (view["among_others"].clone(), view["totals"]["calls"].clone())
    };
    assert_eq!(of("/2/399").await, (json!(false), json!(0)), "there is none");
    for batch in 0..3 {
        let named = |n: usize| {
            let text = format!("/{batch}/{n}");
            let metadata = json!({ "endpoint": text, "method": text, "status_code": n });
            event_with(&text, &json!({ "event_name": text, "metadata": metadata }))
        };
        client.ingested((0..400).map(named).collect()).await;
    }
    let view = view(client, "").await;
    assert_eq!(view["totals"]["calls"], 1200);
    let others = |table: &str| {
        let rows = view[table]["rows"].as_array().unwrap();
        let other = rows.iter().find(|line| line["other"] == true).unwrap();
        (
            rows.len() as u64 + view[table]["more"].as_u64().unwrap(),
            other["calls"].as_u64().unwrap(),
        )
    };
    assert_eq!(others("endpoints"), (201, 1000));
    assert_eq!(others("methods"), (21, 1180));
    assert_eq!(others("events"), (51, 1150));
    assert_eq!(of("/0/199").await, (json!(false), json!(1)));
    assert_eq!(of("/2/399").await, (json!(true), json!(0)), "it cannot be told");
}

#[tokio::test]
async fn what_a_clock_ahead_has_seen_is_not_of_late_when_it_is_set_back() {
    let running = running(Options::default()).await;
    let client = &running.client;
    let set_clock = async |offset: &str| {
        let body = json!({ "offset": offset }).to_string();
        assert_eq!(client.send("PUT", "/_dev/clock", &body).await.status, 200);
    };
    let of_late = async || {
        let view = view(client, "period=5m").await;
        let totals = &view["totals"];
        let calls = totals["calls"].as_u64().unwrap();
        let requests = view["requests"]["last_minute"].as_u64().unwrap();
        (calls, totals["calls_per_second"].as_f64().unwrap() > 0.0, requests)
    };
    client.ingested(vec![event("a"), event("b")]).await;
    client.ingest(&[]).await;
    set_clock("25h").await;
    assert_eq!(of_late().await, (0, false, 0));
    for id in ["c", "d", "e"] {
        client.ingested(vec![event(id)]).await;
    }
    assert_eq!(of_late().await, (3, true, 3));

    set_clock("0s").await;
    assert_eq!(of_late().await, (5, true, 0), "a call from the future counts as of now");
    client.ingested(vec![event("f")]).await;
    assert_eq!(of_late().await, (6, true, 1));
    set_clock("2m").await;
    assert_eq!(of_late().await, (6, false, 0));
    set_clock("6m").await;
    assert_eq!(of_late().await, (0, false, 0));
    set_clock("0s").await;
    assert_eq!(of_late().await.0, 6, "what was of late is again");
    let all = view(client, "period=all").await;
    assert_eq!((&all["totals"]["calls"], &all["requests"]["refused"]), (&json!(6), &json!(1)));
    assert_eq!(all["requests"]["refusals"].as_array().unwrap().len(), 1);
}
