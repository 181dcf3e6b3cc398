"""The shapes in which models tell of their tokens, which are the same for every language."""

import json
from typing import Any

import pytest

from conftest import VECTORS
from dodo_ingestion.llm import Reading

CASES = json.loads((VECTORS / "usage.json").read_text("utf-8"))


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_an_answer_is_read(case: dict[str, Any]) -> None:
    reading = Reading()
    for piece in case["pieces"]:
        reading.add(piece)
    usage = reading.usage()
    told = usage and {key: value for key, value in usage.metadata().items() if value is not None}
    assert told == case["usage"]


def test_a_count_may_be_a_whole_float() -> None:
    reading = Reading()
    reading.add({"meta": {"billed_units": {"input_tokens": 5.0, "output_tokens": 0.5}}})
    usage = reading.usage()
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (5, 0)
    assert type(usage.input_tokens) is int
