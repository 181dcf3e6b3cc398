"""What the operators' pages say is so, and their program bills dead letters again."""

import json
import os
import re
import subprocess
import sys
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


def test_dead_letters_are_billed_again(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", OPERATING, re.DOTALL)
    with testing.Meter() as meter:
        environment = {
            "DODO_PAYMENTS_API_KEY": "key_of_operators",
            "DODO_PAYMENTS_BASE_URL": meter.url,
            "DODO_PAYMENTS_ENVIRONMENT": "test_mode",
            "DODO_INGESTION_SPOOL_DIR": str(tmp_path / "spool"),
        }
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
        dead_letter(meter, ingestion, "cus_8", place)
        dead_letter(meter, ingestion, "cus_9", place)
        meter.reset()
        late, known = (json.loads(line) for line in place.read_text().splitlines())
        assert names(OPERATING, "Dead letters") == list(late)

        moved = place.rename(namespace / "dead-letters-1.jsonl")
        late["occurred_at"] = "2026-01-31T23:59:59.999Z"
        moved.write_text(f"{json.dumps(late)}\n{json.dumps(known)}\n")
        dead_letter(meter, ingestion, "cus_7", place)  # in a new file
        meter.reset()
        # The API knows one of the events after all.
        track_api_call(ingestion, **known["event"])
        ingestion.close(timeout=60)
        for _ in range(2):
            command = [sys.executable, "-c", program, str(moved)]
            said = subprocess.run(
                command,
                check=True,
                timeout=120,
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                text=True,
            ).stdout
            assert f"billed already: {known['event']['event_id']}\n" in said
        billed = {event.event_id: event for event in meter.events(at_least=2)}
        assert set(billed) == {letter["event"]["event_id"] for letter in (late, known)}
        original = {"endpoint": "/v1/users", "original_timestamp": late["occurred_at"]}
        assert billed[late["event"]["event_id"]].metadata == original
        assert "'dead_lettered': 0" in said
