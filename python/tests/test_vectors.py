import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from conftest import VECTORS, Connect, Meter
from dodo_ingestion import Ingestion, IngestionError, track_api_call


def load() -> list[dict[str, Any]]:
    vectors: list[dict[str, Any]] = json.loads((VECTORS / "events.json").read_text("utf-8"))
    return [vector for vector in vectors if not vector.get("json_only")]


REFUSED = [vector for vector in load() if "error" in vector]
ACCEPTED = [vector for vector in load() if "stored" in vector]


def track(ingestion: Ingestion, vector: dict[str, Any]) -> str:
    offset = vector.get("timestamp_offset_seconds")
    if offset is not None:
        timestamp = datetime.now(timezone.utc) + timedelta(seconds=offset)
        return track_api_call(ingestion, **vector["input"], timestamp=timestamp).event_id
    return track_api_call(ingestion, **vector["input"]).event_id


@pytest.mark.parametrize("vector", REFUSED, ids=lambda vector: vector["name"])
def test_refused(vector: dict[str, Any], connect: Connect) -> None:
    with pytest.raises(IngestionError) as raised:
        track(connect(), vector)
    assert raised.value.kind == vector["error"]["kind"]
    assert raised.value.field == vector["error"]["field"]


def test_accepted(connect: Connect, meter: Meter) -> None:
    ingestion = connect()
    for vector in ACCEPTED:
        assert track(ingestion, vector) == vector["input"]["event_id"]
    ingestion.flush(timeout=60)
    for vector in ACCEPTED:
        billed = meter.event(vector["input"]["event_id"])
        expected = {"metadata": None, **json.loads(vector["stored"])}
        if vector.get("restamped"):
            billed["metadata"].pop("original_timestamp", None)
        assert {key: billed[key] for key in expected} == expected, vector["name"]
        # 1 == 1.0 == True in Python: the types are part of the value.
        for key, value in (expected["metadata"] or {}).items():
            assert type(billed["metadata"][key]) is type(value), (vector["name"], key)
