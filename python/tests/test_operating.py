"""What the operators' pages say is so, and their program bills dead letters again."""

import json
import os
import re
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from dodo_ingestion import Ingestion, testing, track_api_call
from dodo_ingestion._native import ERROR_KINDS

ROOT = Path(__file__).parents[2]
OPERATING = (ROOT / "docs/operating.md").read_text("utf-8")
ALARMS = (ROOT / "docs/alarms.md").read_text("utf-8")
ALARM_RS = (ROOT / "crates/dodo-ingestion/src/alarm.rs").read_text("utf-8")


def section(page: str, heading: str) -> str:
    return page.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def names(page: str, heading: str) -> list[str]:
    """Give the names in the first column of a section's table."""
    rows: list[str] = re.findall(r"^\| (`.*?`) \|", section(page, heading), re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


def test_every_kind_is_explained() -> None:
    assert names(ALARMS, "Alarms") == re.findall(r'^    \w+ = "(\w+)",', ALARM_RS, re.MULTILINE)
    assert names(ALARMS, "Errors") == list(ERROR_KINDS)


def dead_letter(meter: testing.Meter, ingestion: Ingestion, customer: str, place: Path) -> None:
    """Have the billing API refuse a call: its letter is the next line of the file."""
    letters = len(place.read_text().splitlines()) if place.exists() else 0
    meter.fault(f"unknown_customer={customer}")
    receipt = track_api_call(ingestion, customer_id=customer, metadata={"endpoint": "/v1/users"})
    ingestion.flush(timeout=60)
    assert len(place.read_text().splitlines()) == letters + 1, receipt.event_id


def program() -> str:
    (found,) = re.findall(r"```python\n(.*?)```", OPERATING, re.DOTALL)
    assert isinstance(found, str)
    return found


def variables(url: str, spool: Path) -> dict[str, str]:
    return {
        "DODO_PAYMENTS_API_KEY": "key_of_operators",
        "DODO_PAYMENTS_BASE_URL": url,
        "DODO_PAYMENTS_ENVIRONMENT": "test_mode",
        "DODO_INGESTION_SPOOL_DIR": str(spool),
    }


def replay(letters: Path, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program(), str(letters)],
        check=False,
        timeout=120,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_dead_letters_are_billed_again(tmp_path: Path) -> None:
    with testing.Meter() as meter:
        environment = variables(meter.url, tmp_path / "spool")
        ingestion = Ingestion(
            api_key=environment["DODO_PAYMENTS_API_KEY"],
            base_url=meter.url,
            environment="test_mode",
            event_name="api_call",
            spool_dir=tmp_path / "spool",
            on_alarm=lambda _kind, _message: None,
        )
        assert names(OPERATING, "Where the money is") != []
        assert set(names(OPERATING, "Where the money is")) == set(ingestion.stats())
        (namespace,) = (tmp_path / "spool" / "dodo-ingestion").iterdir()
        place = namespace / "dead-letters.jsonl"
        for customer in ("cus_8", "cus_9", "cus_10"):
            dead_letter(meter, ingestion, customer, place)
        meter.reset()
        letters = [json.loads(line) for line in place.read_text().splitlines()]
        late, fresh, known = letters
        assert names(OPERATING, "Dead letters") == list(late)

        moved = place.rename(namespace / "dead-letters-1.jsonl")
        late["occurred_at"] = "2026-01-31T23:59:59.999Z"
        happened = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(minutes=30)
        fresh["occurred_at"] = happened.isoformat().replace("+00:00", "Z")
        moved.write_text("".join(f"{json.dumps(letter)}\n" for letter in letters))
        dead_letter(meter, ingestion, "cus_7", place)  # in a new file
        meter.reset()
        # The API knows one of the events after all.
        track_api_call(ingestion, **known["event"])
        ingestion.close(timeout=60)
        for tracked in ([late, fresh], []):
            done = replay(moved, environment)
            assert done.returncode == 0, done.stderr
            for letter in letters:
                line = f"billed already: {letter['event']['event_id']}\n"
                assert (line in done.stdout) == (letter not in tracked)
            for count in ("accepted", "billed"):
                assert f"'{count}': {len(tracked)}," in done.stdout
            assert "'dead_lettered': 0" in done.stdout
        billed = {event.event_id: event for event in meter.events(at_least=3, timeout=60)}
        assert set(billed) == {letter["event"]["event_id"] for letter in letters}
        again = billed[late["event"]["event_id"]]
        own = {"endpoint": "/v1/users"}
        assert again.metadata == {**own, "original_timestamp": late["occurred_at"]}
        assert again.timestamp > happened
        in_time = billed[fresh["event"]["event_id"]]
        assert (in_time.metadata, in_time.timestamp) == (own, happened)


def test_a_redirect_gets_no_key(tmp_path: Path) -> None:
    asked: list[tuple[str, str | None]] = []

    class Redirecting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.headers["Host"], self.headers["Authorization"]))
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{elsewhere.server_port}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    letters = tmp_path / "dead-letters-1.jsonl"
    event = {"event_id": "e1", "customer_id": "cus_1", "event_name": "api_call"}
    letters.write_text(json.dumps({"event": event, "occurred_at": "2026-01-31T23:59:59.999Z"}))
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Redirecting) as first,
        ThreadingHTTPServer(("127.0.0.1", 0), Redirecting) as elsewhere,
    ):
        for server in (first, elsewhere):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{first.server_port}"
        done = replay(letters, variables(f"http://{address}", tmp_path / "spool"))
        for server in (first, elsewhere):
            server.shutdown()
    assert asked == [(address, "Bearer key_of_operators")]
    assert "HTTP Error 302" in done.stderr
    assert done.returncode == 1
