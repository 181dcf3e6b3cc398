//! The example as a process of its own, billed by a meter.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{PATIENCE, Stage, ask_with};

/// Cargo builds the examples of a package before its tests, and puts them beside the tests' directory.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let name = format!("gateway{}", std::env::consts::EXE_SUFFIX);
    test.parent().unwrap().parent().unwrap().join("examples").join(name)
}

/// The example, which does not outlive the test.
struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
    }
}

impl Gateway {
    async fn ended(&mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn the_example_bills_its_customers() {
    let stage = Stage::new().await;
    let mut command = Command::new(example());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DODO_") {
            command.env_remove(&name);
        }
    }
    let gateway = command
        .env("DODO_PAYMENTS_API_KEY", "sk_test")
        .env("DODO_PAYMENTS_BASE_URL", format!("http://{}", stage.server.address()))
        .env("DODO_INGESTION_SPOOL_DIR", stage.spool.path().join("gateway"))
        .env("GATEWAY_ADDRESS", "127.0.0.1:0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("`cargo test` builds the example, unless it is told to build one test alone");
    let mut gateway = Gateway(gateway);
    let url = BufReader::new(gateway.0.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    let address = url.strip_prefix("http://").unwrap().parse().unwrap();
    for (path, key, status) in [
        ("/v1/users/7", "key_acme", 200),
        ("/v1/reports/2026", "key_globex", 200),
        ("/v1/reports/2027", "key_globex", 500),
        ("/v1/users/7", "key_nobody", 401),
        ("/healthz", "key_acme", 200),
    ] {
        let header = format!("x-api-key: {key}");
        let (head, _) = ask_with(address, &format!("GET {path} HTTP/1.1"), &[&header]).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {head}");
    }
    drop(gateway.0.stdin.take());
    let ended = tokio::time::timeout(PATIENCE, gateway.ended()).await.unwrap();
    assert!(ended.success(), "{ended}");

    let seen: Vec<_> = stage
        .news()
        .await
        .into_iter()
        .map(|event| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let metadata = &event["metadata"];
            let [customer, name] = [&event["customer_id"], &event["event_name"]].map(text);
            (customer, name, text(&metadata["endpoint"]), metadata["units"].as_f64())
        })
        .collect();
    let (acme, globex) = ("cus_acme".to_owned(), "cus_globex".to_owned());
    let [call, error] = ["api_call", "api_error"].map(str::to_owned);
    let [users, reports] = ["/v1/users/{id}", "/v1/reports/{year}"].map(str::to_owned);
    assert_eq!(
        seen,
        [
            (acme, call.clone(), users, None),
            (globex.clone(), call, reports.clone(), Some(2.0)),
            (globex, error, reports, Some(2.0)),
        ]
    );
}
