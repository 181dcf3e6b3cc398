"""schemathesis against `/openapi.json`: what the document says is what the server does."""

import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hypothesis
import schemathesis
from conftest import KEY
from hypothesis import strategies as st

DOCUMENT = Path(__file__).parents[3] / "crates/dodometer-server/src/openapi.json"
HEADERS = {"Authorization": f"Bearer {KEY}"}

# JSON Schema cannot say that a time has to lie in the window.
schemathesis.openapi.format(
    "date-time",
    st.integers(-50, 4).map(
        lambda minutes: (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()
    ),
)

# Without what has the meter misbehave, forget or wait.
schema = schemathesis.openapi.from_path(DOCUMENT).exclude(
    path_regex="^/_dev/(clock|events|faults|reset)$"
)
# The header with the key is ours to send, and what is not known in a query is ignored.
schema.config.generation.update(with_security_parameters=False, allow_extra_parameters=False)
# A meter that is deleted is archived, and still there.
schema.config.checks.update(excluded_check_names=["use_after_free"])
settings = hypothesis.settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=25,
    suppress_health_check=list(hypothesis.HealthCheck),
)


def test_the_document_is_served_as_it_was_written(meter_url: str) -> None:
    with urllib.request.urlopen(f"{meter_url}/openapi.json", timeout=10) as response:
        assert response.read() == DOCUMENT.read_bytes()


def say_what_the_schema_cannot(case: schemathesis.Case) -> None:
    """Correct what is right by the schema and wrong by a rule that it cannot express."""
    # A meter's events have its name.
    if isinstance(case.query, dict) and "meter_id" in case.query:
        case.query.pop("event_name", None)
    if not isinstance(case.body, dict):
        return
    body = case.body = {**case.body}
    # JSON Schema takes 1.0 for an integer, and the server does not.
    if isinstance(body.get("free_threshold"), float) and body["free_threshold"].is_integer():
        body["free_threshold"] = int(body["free_threshold"])
    # An id is in a request once.
    if isinstance(body.get("events"), list):
        body["events"] = [
            {**event, "event_id": f"{event['event_id']}{index}"}
            if isinstance(event, dict) and event.get("event_id")
            else event
            for index, event in enumerate(body["events"])
        ]


@schema.parametrize()
@settings
def test_each_operation(case: schemathesis.Case, meter_url: str) -> None:
    say_what_the_schema_cannot(case)
    case.call_and_validate(base_url=meter_url, headers=HEADERS)


def test_operations_one_after_another(meter_url: str) -> None:
    class Machine(schema.as_state_machine()):  # type: ignore[misc]
        def before_call(self, case: schemathesis.Case) -> None:
            say_what_the_schema_cannot(case)

        def get_call_kwargs(self, case: schemathesis.Case) -> dict[str, Any]:
            return {"base_url": meter_url, "headers": HEADERS}

    Machine.run(settings=hypothesis.settings(settings, max_examples=10, stateful_step_count=6))
