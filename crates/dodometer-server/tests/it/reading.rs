//! Events read back, meters, usage and the bill, over real HTTP.

use crate::support::{Answer, Client, event, event_with, from_now, running};
use dodometer_server::Options;
use serde_json::{Value, json};

fn ids(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let items = answer.json()["items"].as_array().unwrap().clone();
    items.iter().map(|item| item["event_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_event_is_read_back_as_it_was_sent() {
    let running = running(Options::default()).await;
    let client = &running.client;
    let timestamp = from_now(-60);
    let metadata =
        json!({ "endpoint": "/v1/users/{id}", "n": 3, "d": 1.5, "b": false, "т": "é\n" });
    let sent = event_with("a/b ü", &json!({ "timestamp": timestamp, "metadata": metadata }));
    client.ingested(vec![sent, event("plain")]).await;

    let read = client.get("/events/a%2Fb%20%C3%BC").await;
    assert_eq!(read.status, 200, "{read:?}");
    let read = read.json();
    assert_eq!(read["business_id"], "bus_local");
    assert_eq!(read["event_id"], "a/b ü");
    assert_eq!(read["customer_id"], "cus_1");
    assert_eq!(read["event_name"], "api_call");
    assert_eq!(read["metadata"], metadata);
    assert_eq!(read["timestamp"].as_str().unwrap()[..19], timestamp[..19]);

    let plain = client.get("/events/plain").await.json();
    assert_eq!(plain["metadata"], Value::Null);
    assert!(plain["timestamp"].as_str().unwrap().ends_with('Z'));

    client.get("/events/none").await.refuses(404, "NOT_FOUND");
    client.get("/events/%FF").await.refuses(422, "INVALID_REQUEST_PARAMETERS");
}

#[tokio::test]
async fn events_are_listed_newest_first_and_in_pages_from_0() {
    let running = running(Options::default()).await;
    let client = &running.client;
    let events = (0..25)
        .map(|index| {
            let timestamp = from_now(-60 * (25 - index));
            event_with(&format!("e{index:02}"), &json!({ "timestamp": timestamp }))
        })
        .collect();
    client.ingested(events).await;
    let expected = |range: std::ops::Range<usize>| {
        range.rev().map(|index| format!("e{index:02}")).collect::<Vec<_>>()
    };
    for (query, range) in [
        ("", 15..25),
        ("?page_number=0", 15..25),
        ("?page_number=1", 5..15),
        ("?page_number=2", 0..5),
        ("?page_number=3", 0..0),
        ("?page_size=100", 0..25),
        ("?page_size=7&page_number=1", 11..18),
    ] {
        assert_eq!(ids(&client.get(&format!("/events{query}")).await), expected(range), "{query}");
    }
    for bad in [
        "page_size=0",
        "page_size=1001",
        "page_size=ten",
        "page_number=-1",
        "start=yesterday",
        "start=2025-06-15T12:00:00%2B24:00",
        "end=2025-01-01",
    ] {
        client.get(&format!("/events?{bad}")).await.refuses(400, "INVALID_QUERY_PARAMS");
    }
}

#[tokio::test]
async fn events_are_filtered() {
    let running = running(Options::default()).await;
    let client = &running.client;
    let at = |id: &str, customer: &str, name: &str, minutes: i64| {
        event_with(
            id,
            &json!({
                "customer_id": customer,
                "event_name": name,
                "timestamp": from_now(-60 * minutes),
            }),
        )
    };
    client
        .ingested(vec![
            at("a", "cus_1", "api_call", 40),
            at("b", "cus_2", "api_call", 30),
            at("c", "cus_1", "export", 20),
            at("d", "cus_1", "api_call", 10),
        ])
        .await;
    let meter = client.meter("api_call", "count", None).await;
    let exact = client.get("/events/c").await.json()["timestamp"].as_str().unwrap().to_owned();
    for (query, expected) in [
        ("customer_id=cus_1".to_owned(), vec!["d", "c", "a"]),
        ("event_name=api_call".to_owned(), vec!["d", "b", "a"]),
        ("customer_id=cus_1&event_name=api_call".to_owned(), vec!["d", "a"]),
        ("customer_id=CUS_1".to_owned(), vec![]),
        (format!("meter_id={meter}"), vec!["d", "b", "a"]),
        (format!("meter_id={meter}&event_name=api_call&customer_id=cus_2"), vec!["b"]),
        (format!("start={}", from_now(-25 * 60)), vec!["d", "c"]),
        (format!("end={}", from_now(-25 * 60)), vec!["b", "a"]),
        (format!("start={}&end={}", from_now(-35 * 60), from_now(-15 * 60)), vec!["c", "b"]),
        (format!("start={exact}"), vec!["d", "c"]),
        (format!("end={exact}"), vec!["b", "a"]),
    ] {
        assert_eq!(ids(&client.get(&format!("/events?{query}")).await), expected, "{query}");
    }
    let other = format!("/events?meter_id={meter}&event_name=export");
    client.get(&other).await.refuses(400, "INVALID_QUERY_PARAMS");
    client.get("/events?meter_id=mtr_none").await.refuses(404, "NOT_FOUND");
}

#[tokio::test]
async fn a_meters_list_holds_what_has_its_name_with_a_quantity_or_without() {
    let running = running(Options::default()).await;
    let client = &running.client;
    let carrying = |index: usize, metadata: Value| {
        let timestamp = from_now(index as i64 - 60);
        event_with(&format!("e{index}"), &json!({ "timestamp": timestamp, "metadata": metadata }))
    };
    let events = [
        json!({ "n": 1 }),
        json!({}),
        json!({ "n": "2.5" }),
        json!({ "n": "many" }),
        json!({ "n": true }),
        json!({ "m": 3 }),
        json!({ "n": 0 }),
    ];
    let events = events.into_iter().enumerate();
    client.ingested(events.map(|(index, metadata)| carrying(index, metadata)).collect()).await;
    for kind in ["sum", "max", "last"] {
        let meter = client.meter("api_call", kind, Some("n")).await;
        for (page, expected) in [
            ("", vec!["e6", "e5", "e4", "e3", "e2", "e1", "e0"]),
            ("&page_size=4", vec!["e6", "e5", "e4", "e3"]),
            ("&page_size=4&page_number=1", vec!["e2", "e1", "e0"]),
            ("&page_size=4&page_number=2", vec![]),
        ] {
            let answer = client.get(&format!("/events?meter_id={meter}{page}")).await;
            assert_eq!(ids(&answer), expected, "{kind} {page}");
        }
    }
    let calls = client.meter("api_call", "count", None).await;
    assert_eq!(ids(&client.get(&format!("/events?meter_id={calls}")).await).len(), 7);
}

#[tokio::test]
async fn meters_are_made_listed_archived_and_brought_back() {
    let running = running(Options::default()).await;
    let client = &running.client;
    let mut made = Vec::new();
    for index in 0..12 {
        made.push(client.meter(&format!("name_{index}"), "count", None).await);
    }
    let listed = async |query: &str| -> Vec<String> {
        let answer = client.get(&format!("/meters{query}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let items = answer.json()["items"].as_array().unwrap().clone();
        items.iter().map(|meter| meter["id"].as_str().unwrap().to_owned()).collect()
    };
    made.reverse();
    assert_eq!(listed("").await, made[..10]);
    assert_eq!(listed("?page_number=1").await, made[10..]);
    assert_eq!(listed("?page_size=100").await, made);
    client.get("/meters?page_size=101").await.refuses(400, "INVALID_QUERY_PARAMS");

    let id = &made[0];
    let meter = client.get(&format!("/meters/{id}")).await.json();
    assert!(id.starts_with("mtr_"));
    assert_eq!(meter["event_name"], "name_11");
    assert_eq!(meter["aggregation"]["type"], "count");
    assert_eq!(meter["business_id"], "bus_local");
    assert!(meter["created_at"].is_string() && meter["updated_at"].is_string());

    let archived = client.send("DELETE", &format!("/meters/{id}"), "").await;
    assert_eq!((archived.status, archived.body.as_str()), (204, ""));
    assert_eq!(listed("?page_size=100").await, made[1..]);
    assert_eq!(listed("?archived=true").await, made[..1]);
    assert_eq!(client.get(&format!("/meters/{id}")).await.status, 200);
    assert_eq!(client.send("POST", &format!("/meters/{id}/unarchive"), "").await.status, 200);
    assert_eq!(listed("?page_size=100").await, made);

    client.get("/meters/mtr_none").await.refuses(404, "NOT_FOUND");
    client.get("/meters/mtr_none/usage").await.refuses(404, "NOT_FOUND");
    client.send("DELETE", "/meters/mtr_none", "").await.refuses(404, "NOT_FOUND");
    client.send("POST", "/meters/mtr_none/unarchive", "").await.refuses(404, "NOT_FOUND");
}

#[tokio::test]
async fn meters_that_cannot_count_are_refused() {
    let running = running(Options::default()).await;
    let good = json!({
        "name": "n", "event_name": "e", "measurement_unit": "u", "aggregation": { "type": "count" },
    });
    let condition = json!({ "key": "k", "operator": "equals", "value": 1 });
    for change in [
        json!({ "name": "" }),
        json!({ "event_name": null }),
        json!({ "measurement_unit": "" }),
        json!({ "aggregation": { "type": "average" } }),
        json!({ "aggregation": { "type": "sum" } }),
        json!({ "aggregation": { "type": "max", "key": "" } }),
        json!({ "aggregation": { "type": "last", "key": null } }),
        json!({ "filter": { "conjunction": "nor", "clauses": [condition] } }),
        json!({ "filter": { "conjunction": "and", "clauses": [] } }),
    ] {
        let mut meter = good.clone();
        for (name, value) in change.as_object().unwrap() {
            meter[name] = value.clone();
        }
        running.client.post("/meters", &meter).await.refuses(422, "INVALID_REQUEST_BODY");
    }
    let mut null_filter = good;
    null_filter["filter"] = Value::Null;
    assert_eq!(running.client.post("/meters", &null_filter).await.status, 201);
}

async fn usage(client: &Client, meter: &str, query: &str) -> Value {
    let answer = client.get(&format!("/meters/{meter}/usage{query}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["items"].clone()
}

async fn set_price(client: &Client, meter: &str, price: &Value) -> Answer {
    client.send("PUT", &format!("/_dev/meters/{meter}/price"), &price.to_string()).await
}

#[tokio::test]
async fn each_aggregation_counts_before_and_after_its_meter_was_made() {
    let running = running(Options::default()).await;
    let client = &running.client;
    let bytes = |id: &str, seconds: i64, bytes: Value| {
        let metadata = json!({ "bytes": bytes });
        event_with(id, &json!({ "timestamp": from_now(seconds), "metadata": metadata }))
    };
    client.ingested(vec![bytes("a", -100, json!(0.1)), bytes("b", -10, json!(7))]).await;
    let mut meters = vec![(client.meter("api_call", "count", None).await, "4")];
    for (kind, units) in [("sum", "7.4"), ("max", "7"), ("last", "7")] {
        meters.push((client.meter("api_call", kind, Some("bytes")).await, units));
    }
    client
        .ingested(vec![
            bytes("c", -50, json!(0.2)),
            bytes("d", -60, json!("0.1")),
            event_with("other", &json!({ "event_name": "API_CALL" })),
        ])
        .await;
    // A resend counts nothing.
    client.ingested(vec![bytes("c", -50, json!(1000))]).await;
    for (meter, units) in meters {
        let items = usage(client, &meter, "").await;
        assert_eq!(items[0]["consumed_units"], units, "{items}");
        assert_eq!(items.as_array().unwrap().len(), 1);
        assert_eq!(items[0]["price_per_unit"], Value::Null);
        assert_eq!(items[0]["total_price"], 0);
    }
}

#[tokio::test]
async fn usage_is_priced_after_the_free_threshold() {
    let running = running(Options::default()).await;
    let client = &running.client;
    let meter = client.meter("api_call", "count", None).await;
    let events = (0..150)
        .map(|index| {
            let customer = if index < 130 { "cus_a" } else { "cus_b" };
            event_with(&format!("e{index}"), &json!({ "customer_id": customer }))
        })
        .collect();
    client.ingested(events).await;
    let price = json!({ "price_per_unit": "0.05", "free_threshold": 100, "currency": "EUR" });
    let set = set_price(client, &meter, &price).await;
    assert_eq!(set.status, 200, "{set:?}");
    assert_eq!(set.json()["price_per_unit"], "0.05");

    let items = usage(client, &meter, "").await;
    assert_eq!(
        items,
        json!([
            {
                "customer_id": "cus_a", "consumed_units": "130", "free_threshold": 100,
                "chargeable_units": "30", "price_per_unit": "0.05", "total_price": 2,
            },
            {
                "customer_id": "cus_b", "consumed_units": "20", "free_threshold": 100,
                "chargeable_units": "0", "price_per_unit": "0.05", "total_price": 0,
            },
        ])
    );
    assert_eq!(usage(client, &meter, "?customer_id=cus_b").await, json!([items[1]]));
    assert_eq!(usage(client, &meter, "?customer_id=cus_c").await[0]["consumed_units"], "0");

    set_price(client, "mtr_none", &price).await.refuses(404, "NOT_FOUND");
    let no_text = set_price(client, &meter, &json!({ "price_per_unit": 1 })).await;
    no_text.refuses(422, "INVALID_REQUEST_BODY");
    assert!(no_text.body.contains("price_per_unit: invalid type"), "{no_text:?}");
    let second = client.meter("api_call", "count", None).await;
    set_price(client, &second, &json!({ "price_per_unit": "1" })).await.refuses(409, "CONFLICT");
}

#[tokio::test]
async fn the_currency_is_that_of_the_meters_that_are_billed_and_can_be_changed() {
    let running = running(Options::default()).await;
    let client = &running.client;
    let first = client.meter("api_call", "count", None).await;
    let second = client.meter("api_call", "count", None).await;
    let price = |currency: &str| json!({ "price_per_unit": "1", "currency": currency });
    let remove_price =
        async |meter: &str| client.send("DELETE", &format!("/_dev/meters/{meter}/price"), "").await;
    let currency = async || client.get("/_dev/bill").await.json()["currency"].clone();
    for meter in [&first, &second] {
        assert_eq!(set_price(client, meter, &price("USD")).await.status, 200);
    }
    let refused = set_price(client, &first, &price("EUR")).await;
    refused.refuses(409, "CONFLICT");
    assert!(refused.body.contains("DELETE /_dev/meters/{id}/price"), "{refused:?}");
    for _ in 0..2 {
        assert_eq!(remove_price(&second).await.status, 204);
    }
    client.ingested(vec![event("a")]).await;
    assert_eq!(usage(client, &second, "").await[0]["price_per_unit"], Value::Null);
    assert_eq!(set_price(client, &first, &price("EUR")).await.status, 200);
    assert_eq!((currency().await, running.meter.bill().totals.amount), (json!("EUR"), 1));

    assert_eq!(set_price(client, &second, &price("EUR")).await.status, 200);
    assert_eq!(client.send("DELETE", &format!("/meters/{second}"), "").await.status, 204);
    assert_eq!(set_price(client, &first, &price("GBP")).await.status, 200);
    let unarchive = format!("/meters/{second}/unarchive");
    let refused = client.send("POST", &unarchive, "").await;
    refused.refuses(409, "CONFLICT");
    assert_eq!((currency().await, running.meter.bill().totals.amount), (json!("GBP"), 1));
    assert_eq!(set_price(client, &second, &price("GBP")).await.status, 200);
    assert_eq!(client.send("POST", &unarchive, "").await.status, 200);
    assert_eq!(running.meter.bill().totals.amount, 2);
    remove_price("mtr_none").await.refuses(404, "NOT_FOUND");
}

#[tokio::test]
async fn the_bill_adds_up() {
    let running = running(Options::default()).await;
    let client = &running.client;
    let empty = client.get("/_dev/bill").await.json();
    assert_eq!(empty["customers"], json!([]));
    assert_eq!(empty["currency"], Value::Null);
    assert_eq!(empty["totals"]["p50_ms"], Value::Null);

    let calls = client.meter("api_call", "count", None).await;
    let bytes = client.meter("api_call", "sum", Some("bytes")).await;
    set_price(client, &calls, &json!({ "price_per_unit": "0.5" })).await;
    set_price(client, &bytes, &json!({ "price_per_unit": "0.01" })).await;
    let event = |customer: &str, index: i32, time: i32| {
        event_with(
            &format!("{customer}-{index}"),
            &json!({
                "customer_id": customer,
                "metadata": { "response_time_ms": time, "bytes": 10 },
            }),
        )
    };
    // 100 calls of 1 to 100 ms in any order, and 10 of 200 ms.
    client.ingested((0..100).map(|i| event("cus_a", i, (i * 37) % 100 + 1)).collect()).await;
    client.ingested((0..10).map(|i| event("cus_b", i, 200)).collect()).await;
    client.ingested(vec![event("cus_b", 3, 1)]).await;
    client.ingest(&[]).await;

    let bill = client.get("/_dev/bill").await.json();
    assert_eq!(bill["currency"], "USD");
    assert_eq!(
        bill["customers"],
        json!([
            { "customer_id": "cus_a", "calls": 100, "p50_ms": 50.0, "p95_ms": 95.0, "amount": 60 },
            { "customer_id": "cus_b", "calls": 10, "p50_ms": 200.0, "p95_ms": 200.0, "amount": 6 },
        ])
    );
    assert_eq!(
        bill["totals"],
        json!({
            "customers": 2, "calls": 110, "amount": 66, "p50_ms": 55.0, "p95_ms": 200.0,
            "requests": 4, "requests_refused": 1, "duplicates_ignored": 1,
            "calls_per_request": 27.5,
        })
    );
    assert_eq!(serde_json::to_value(running.meter.bill()).unwrap(), bill);

    client.send("DELETE", &format!("/meters/{bytes}"), "").await;
    assert_eq!(client.get("/_dev/bill").await.json()["totals"]["amount"], 55);
}
