"""The tracker, with calls beside the common ones."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

import models
from conftest import Billing
from dodo_ingestion.llm import Usage


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with models.models() as url:
        yield url


def openai_client(server: str) -> openai.OpenAI:
    return openai.OpenAI(api_key="k", base_url=f"{server}/v1", max_retries=0)


def image_edit(client: openai.OpenAI) -> None:
    answer = client.images.edit(model="image", image=("a.png", b"x"), prompt="Brighter.")
    assert answer.data is not None


def response_compact(client: openai.OpenAI) -> None:
    assert client.responses.compact(model="gpt", input="Hello?").id == "resp_2"


CALLS: dict[str, tuple[Callable[[str], Any], Callable[[Any], None], Usage]] = {
    "image_edit": (openai_client, image_edit, Usage(60, 70, 130, "image", "openai")),
    "response_compact": (
        openai_client,
        response_compact,
        Usage(200, 30, 230, "gpt", "openai", reasoning_tokens=10),
    ),
}


@pytest.mark.parametrize("case", CALLS)
def test_it_answers_as_ever_and_is_billed(case: str, server: str, billing: Billing) -> None:
    make, use, expected = CALLS[case]
    with contextlib.closing(make(server)) as client:
        use(client)
        use(billing.tracker.wrap(client, customer_id=billing.customer_id))
    told = {name: value for name, value in expected.metadata().items() if value is not None}
    assert billing.billed() == [told]
