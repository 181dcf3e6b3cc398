//! Filters, usage of a period and of a customer, over real HTTP.

use crate::support::{Client, event_with, from_now, running};
use dodometer_server::{Data, Meter, Options};
use serde_json::{Value, json};

async fn meter(client: &Client, aggregation: Value, filter: Value) -> String {
    let answer = client
        .post(
            "/meters",
            &json!({
                "name": "A meter", "event_name": "api_call", "measurement_unit": "units",
                "aggregation": aggregation, "filter": filter,
            }),
        )
        .await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.json()["filter"], filter);
    answer.json()["id"].as_str().unwrap().to_owned()
}

async fn units(client: &Client, meter: &str, query: &str) -> Value {
    let answer = client.get(&format!("/meters/{meter}/usage?{query}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let items = answer.json()["items"].as_array().unwrap().clone();
    items
        .iter()
        .map(|item| {
            let customer = item["customer_id"].as_str().unwrap().to_owned();
            (customer, item["consumed_units"].clone())
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn call(id: &str, minutes_ago: i64, customer: &str, metadata: &Value) -> Value {
    let timestamp = from_now(-60 * minutes_ago);
    let fields = json!({ "timestamp": timestamp, "customer_id": customer, "metadata": metadata });
    event_with(id, &fields)
}

async fn listed(client: &Client, query: &str) -> Vec<String> {
    let answer = client.get(&format!("/events?{query}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let items = answer.json()["items"].as_array().unwrap().clone();
    items.iter().map(|item| item["event_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_filter_decides_what_is_counted_listed_and_billed() {
    let folder = tempfile::tempdir().unwrap();
    let data = || Data::File(folder.path().join("meter.db"));
    let first = running(Options { data: data(), ..Options::default() }).await;
    let client = &first.client;
    // A billable call is a success under /v1 that no bot made.
    let filter = json!({ "conjunction": "and", "clauses": [
        { "conjunction": "and", "clauses": [
            { "key": "endpoint", "operator": "contains", "value": "/v1/" },
            { "key": "agent", "operator": "does_not_contain", "value": "bot" },
        ] },
        { "conjunction": "or", "clauses": [
            { "conjunction": "and", "clauses": [
                { "key": "status_code", "operator": "greater_than_or_equals", "value": 200 },
                { "key": "status_code", "operator": "less_than", "value": 300 },
            ] },
            { "conjunction": "and", "clauses": [
                { "key": "cached", "operator": "equals", "value": true },
            ] },
        ] },
    ] });
    let call = |id: &str, minutes: i64, endpoint: &str, status: Value, agent: &str| {
        let metadata = json!({ "endpoint": endpoint, "status_code": status, "agent": agent });
        call(id, minutes, "cus_1", &metadata)
    };
    client.ingested(vec![call("before", 9, "/v1/a", json!(200), "curl")]).await;
    let count = meter(client, json!({ "type": "count" }), filter.clone()).await;
    let max = json!({ "type": "max", "key": "status_code" });
    let max = meter(client, max, filter.clone()).await;
    client
        .ingested(vec![
            call("text", 8, "/v1/a", json!("204"), "curl"),
            call("failed", 7, "/v1/a", json!(500), "curl"),
            call("bot", 6, "/v1/a", json!(200), "a bot"),
            call("elsewhere", 5, "/v2/a", json!(200), "curl"),
            json!({ "event_id": "bare", "customer_id": "cus_2", "event_name": "api_call" }),
            call("last", 3, "/v1/b", json!(299), "curl"),
        ])
        .await;
    let price = json!({ "price_per_unit": "1" }).to_string();
    client.send("PUT", &format!("/_dev/meters/{count}/price"), &price).await;
    let expect = async |client: &Client, amount: i64| {
        assert_eq!(units(client, &count, "").await, json!({ "cus_1": "3" }));
        assert_eq!(units(client, &max, "").await, json!({ "cus_1": "299" }));
        let list = async |query: &str| listed(client, &format!("meter_id={count}{query}")).await;
        assert_eq!(list("").await, ["last", "text", "before"]);
        assert_eq!(list("&page_size=2&page_number=1").await, ["before"]);
        assert_eq!(list("&page_size=2&page_number=2").await, [""; 0]);
        assert_eq!(list("&customer_id=cus_2").await, [""; 0]);
        assert_eq!(client.get("/_dev/bill").await.json()["totals"]["amount"], amount);
    };
    expect(client, 3).await;

    first.server.shutdown().await;
    drop(first.meter);
    let again = running(Options { data: data(), ..Options::default() }).await;
    expect(&again.client, 3).await;
    assert_eq!(again.client.get(&format!("/meters/{max}")).await.json()["filter"], filter);
}

#[tokio::test]
async fn a_bad_filter_is_told_what_is_wrong_with_it() {
    let running = running(Options::default()).await;
    let clause =
        |operator: &str, value: Value| json!({ "key": "k", "operator": operator, "value": value });
    for (clauses, told) in [
        (
            json!([clause("equals", json!(1)), clause("like", json!(1))]),
            "clauses[1]: unknown variant `like`",
        ),
        (json!([clause("equals", Value::Null)]), "a string, a number or a boolean"),
        (json!([]), "must not be empty"),
    ] {
        let meter = json!({
            "name": "n", "event_name": "e", "measurement_unit": "u", "aggregation": { "type": "count" },
            "filter": { "conjunction": "and", "clauses": clauses },
        });
        let answer = running.client.post("/meters", &meter).await;
        answer.refuses(422, "INVALID_REQUEST_BODY");
        assert!(answer.body.contains(told), "{answer:?}");
    }
    // An array of a struct's fields is no object.
    let count = json!({ "type": "count" });
    for (aggregation, filter) in [
        (json!(["count"]), Value::Null),
        (count.clone(), json!(["and", [clause("equals", json!(1))]])),
        (count.clone(), json!({ "conjunction": "and", "clauses": [["k", "equals", 1]] })),
    ] {
        let meter = json!({
            "name": "n", "event_name": "e", "measurement_unit": "u", "aggregation": aggregation,
            "filter": filter,
        });
        let answer = running.client.post("/meters", &meter).await;
        answer.refuses(422, "INVALID_REQUEST_BODY");
        assert!(answer.body.contains("expected an object"), "{answer:?}");
    }
    let meter = json!(["n", null, "e", "u", count]);
    running.client.post("/meters", &meter).await.refuses(422, "INVALID_REQUEST_BODY");
}

#[tokio::test]
async fn usage_of_a_period_is_added_up_from_its_events() {
    let running = running(Options::default()).await;
    let client = &running.client;
    let with = |aggregation: &str| json!({ "type": aggregation, "key": "n" });
    let count = meter(client, json!({ "type": "count" }), Value::Null).await;
    let sum = meter(client, with("sum"), Value::Null).await;
    let last = meter(client, with("last"), Value::Null).await;
    let large = json!({ "conjunction": "or", "clauses": [
        { "key": "n", "operator": "greater_than", "value": 4 },
    ] });
    let large = meter(client, json!({ "type": "count" }), large).await;
    // They arrive in another order than they took place.
    for (minutes, customer, n) in
        [(10, "cus_1", 1), (40, "cus_1", 5), (30, "cus_2", 7), (20, "cus_1", 3)]
    {
        let id = format!("e{minutes}");
        client.ingested(vec![call(&id, minutes, customer, &json!({ "n": n }))]).await;
    }
    let (early, late) = (from_now(-35 * 60), from_now(-15 * 60));
    // A period that holds few of the events is read in another way than one that holds many.
    for others in [1, 100] {
        let other = |n: i64| {
            let fields = json!({ "event_name": "other", "timestamp": from_now(-3000 - n) });
            event_with(&format!("other{n}"), &fields)
        };
        client.ingested((0..others).map(other).collect()).await;
        for (meter, query, expected) in [
            (&count, String::new(), json!({ "cus_1": "3", "cus_2": "1" })),
            (&count, format!("start={early}"), json!({ "cus_1": "2", "cus_2": "1" })),
            (&count, format!("end={late}"), json!({ "cus_1": "2", "cus_2": "1" })),
            (
                &count,
                format!("start={early}&end=9999-12-31T23:59:59Z"),
                json!({ "cus_1": "2", "cus_2": "1" }),
            ),
            (
                &count,
                format!("start={early}&end={late}&customer_id=cus_1"),
                json!({ "cus_1": "1" }),
            ),
            (&count, format!("start={late}&end={early}"), json!({})),
            (&count, format!("start={late}&customer_id=cus_3"), json!({ "cus_3": "0" })),
            (&sum, format!("start={early}"), json!({ "cus_1": "4", "cus_2": "7" })),
            (&last, format!("end={late}"), json!({ "cus_1": "3", "cus_2": "7" })),
            (&last, String::new(), json!({ "cus_1": "1", "cus_2": "7" })),
            (&large, format!("end={early}"), json!({ "cus_1": "1" })),
        ] {
            assert_eq!(units(client, meter, &query).await, expected, "{query}");
        }
    }
    let answer = client.get(&format!("/meters/{count}/usage?start={early}")).await.json();
    assert_eq!(answer["meter_id"], count.as_str());
    assert_eq!(answer["start"].as_str().unwrap()[..19], early[..19]);
    assert_eq!(answer["end"], Value::Null);
    let bad = client.get(&format!("/meters/{count}/usage?start=today")).await;
    bad.refuses(400, "INVALID_QUERY_PARAMS");

    let price = json!({ "price_per_unit": "2", "free_threshold": 1 }).to_string();
    for meter in [&count, &sum] {
        client.send("PUT", &format!("/_dev/meters/{meter}/price"), &price).await;
    }
    client.send("DELETE", &format!("/meters/{last}"), "").await;
    for (query, consumed, total) in [
        (String::new(), ["3", "9", "1"], 4 + 16),
        (format!("&start={early}"), ["2", "4", "0"], 2 + 6),
    ] {
        let answer = client.get(&format!("/_dev/usage?customer_id=cus_1{query}")).await.json();
        let items = answer["items"].as_array().unwrap();
        let units: Vec<_> = items.iter().map(|item| item["consumed_units"].clone()).collect();
        assert_eq!(units, consumed, "{answer}");
        assert_eq!((&answer["total_price"], &answer["currency"]), (&json!(total), &json!("USD")));
        assert_eq!(items[0]["meter_id"], count.as_str());
        assert_eq!(
            items[0]["chargeable_units"],
            (consumed[0].parse::<i64>().unwrap() - 1).to_string()
        );
    }
    client.get("/_dev/usage").await.refuses(400, "INVALID_QUERY_PARAMS");
}

#[tokio::test]
async fn the_last_of_a_microsecond_is_what_arrived_last_live_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        || Options { data: Data::File(folder.path().join("meter.db")), ..Options::default() };
    let first = running(options()).await;
    let client = &first.client;
    let last = meter(client, json!({ "type": "last", "key": "n" }), Value::Null).await;
    let price = json!({ "price_per_unit": "1" }).to_string();
    client.send("PUT", &format!("/_dev/meters/{last}/price"), &price).await;
    let second = &from_now(-60)[..19];
    let at = |nanos: u32, n: i64| {
        let timestamp = format!("{second}.{nanos:09}Z");
        event_with(&n.to_string(), &json!({ "timestamp": timestamp, "metadata": { "n": n } }))
    };
    client.ingested(vec![at(123_456_900, 100), at(123_456_100, 7)]).await;
    let shown = async |client: &Client| client.get(&format!("/meters/{last}")).await.json();
    let made = shown(client).await;
    let expect = async |client: &Client| {
        assert_eq!(client.get("/_dev/bill").await.json()["totals"]["amount"], 7);
        for query in ["", "start=2020-01-01T00:00:00Z"] {
            assert_eq!(units(client, &last, query).await, json!({ "cus_1": "7" }), "{query}");
        }
        assert_eq!(shown(client).await, made);
    };
    expect(client).await;
    first.server.shutdown().await;
    drop(first.meter);
    expect(&running(options()).await.client).await;
}

#[tokio::test]
async fn a_file_of_the_version_before_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meter.db");
    let open = || Meter::open(Options { data: Data::File(path.clone()), ..Options::default() });
    let (meter_id, bill) = {
        let old = running(Options { data: Data::File(path.clone()), ..Options::default() }).await;
        old.client.ingested(vec![call("a", 1, "cus_1", &json!({}))]).await;
        let id = meter(&old.client, json!({ "type": "count" }), Value::Null).await;
        old.server.shutdown().await;
        (id, old.meter.bill())
    };
    let version =
        |sql: &str| rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    version("ALTER TABLE meter DROP COLUMN filter; PRAGMA user_version = 2;");
    let now = running(Options { data: Data::File(path.clone()), ..Options::default() }).await;
    assert_eq!(now.meter.bill(), bill);
    let answer = now.client.get(&format!("/meters/{meter_id}")).await.json();
    assert_eq!(answer["filter"], Value::Null);
    let filter = json!({ "conjunction": "and", "clauses": [
        { "key": "k", "operator": "equals", "value": "v" },
    ] });
    meter(&now.client, json!({ "type": "count" }), filter).await;
    now.server.shutdown().await;
    drop(now.meter);
    drop(open().unwrap());

    for (number, told) in [(4, "newer version"), (1, "too old")] {
        version(&format!("PRAGMA user_version = {number}"));
        let error = open().unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}
