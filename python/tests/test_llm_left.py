"""Streams and clients of language models that are left, wrong or without usage."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

import models
from conftest import Billing, Meter, logged
from dodo_ingestion import ValidationError

WITHIN = 120.0
MESSAGES: Any = [{"role": "user", "content": "Hello?"}]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with models.models() as url:
        yield url


@pytest.fixture
def openai_here(server: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="k", base_url=f"{server}/v1", max_retries=0) as client:
        yield client


LEFT = {
    "the program ends": """
        stream = client.messages.create(**ASKED)
        assert next(iter(stream)).type == "message_start"
        """,
    "it is told all before the client is closed": """
        with ingestion:
            stream = client.messages.create(**ASKED)
            for event in stream:
                if event.type == "message_stop":
                    break
        """,
    "a child ends": """
        stream = client.messages.create(**ASKED)
        next(iter(stream))
        pid = os.fork()
        if pid == 0:
            del stream
            sys.exit()
        assert os.waitpid(pid, 0)[1] == 0
        """,
}


@pytest.mark.parametrize(("how", "tokens"), [*zip(LEFT, (301, 340, 301), strict=True)])
def test_a_stream_that_is_left_is_billed_once(
    how: str, tokens: int, server: str, meter: Meter, tmp_path: Path
) -> None:
    if "child" in how and not hasattr(os, "fork"):
        pytest.skip("no fork here")
    customer = f"cus_left_{how.replace(' ', '_')}"
    program = f"""
        import os, sys
        import anthropic
        from dodo_ingestion import Ingestion, create_llm_tracker
        ingestion = Ingestion(
            api_key="k", environment="test_mode", base_url={meter.url!r}, event_name="llm",
            spool_dir={str(tmp_path)!r}, exit_timeout=60,
        )
        plain = anthropic.Anthropic(api_key="k", base_url={server!r}, max_retries=0)
        client = create_llm_tracker(ingestion).wrap(plain, customer_id={customer!r})
        ASKED = dict(model="claude", max_tokens=9, messages={MESSAGES!r}, stream=True)
    """
    quiet = ["-W", "ignore:This process:DeprecationWarning"]
    done = subprocess.run(
        [sys.executable, *quiet, "-c", textwrap.dedent(program) + textwrap.dedent(LEFT[how])],
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [each["metadata"]["totalTokens"] for each in meter.events(customer)] == [tokens]


def test_a_stream_that_is_left_before_its_usage_is_told_from_one_without(
    openai_here: openai.OpenAI, billing: Billing, caplog: pytest.LogCaptureFixture
) -> None:
    client = billing.tracker.wrap(openai_here, customer_id=billing.customer_id)
    stream = client.chat.completions.create(
        model="gpt", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    next(iter(stream))
    stream.close()
    (told,) = logged(caplog)
    assert "was left before it told its token usage" in told
    assert billing.billed() == []


def unseen(kind: str) -> str:
    return f"client: a {kind}, whose answers cannot be seen; wrap a client, as in wrap(OpenAI(), …)"


CUSTOMERS = ("no customer", "empty", "long")
WRONG: dict[str, tuple[Callable[[openai.OpenAI], object], Any, Any, str]] = {
    "a module": (lambda _: openai, "c", None, unseen("module")),
    "a class": (lambda _: openai.OpenAI, "c", None, unseen("type")),
    "a method": (lambda it: it.chat.completions.create, "c", None, unseen("method")),
    "no customer": (lambda it: it, None, None, "customer_id: a NoneType is not a str"),
    "empty": (lambda it: it, "", None, "customer_id: is empty; the billing API requires it"),
    "long": (lambda it: it, "c" * 256, None, "customer_id: 256 characters; at most 255"),
    "no mapping": (lambda it: it, "c", ["a"], "metadata: a list is not a mapping"),
    "a list": (
        lambda it: it,
        "c",
        {"x": [1]},
        "metadata.x: a value of type list; text, integers, doubles and booleans are taken",
    ),
    "no text": (
        lambda it: it,
        "c",
        {5: 1},
        "metadata: the key 5 is not a string of Unicode characters",
    ),
    "a long key": (
        lambda it: it,
        "c",
        {"k" * 101: 1},
        'metadata: key "kkkkkkkkkkkkkkkkkkkk…": 101 characters; at most 100',
    ),
    "too much": (
        lambda it: it,
        "c",
        {f"k{number}": 1 for number in range(43)},
        "metadata: 51 pairs; at most 50",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_could_never_be_billed_is_refused(
    case: str, openai_here: openai.OpenAI, billing: Billing
) -> None:
    what, customer, metadata, message = WRONG[case]
    with pytest.raises(ValidationError) as raised:
        billing.tracker.wrap(what(openai_here), customer_id=customer, metadata=metadata)
    assert str(raised.value) == message
    assert raised.value.field == message.partition(":")[0]


@pytest.mark.parametrize("case", [*CUSTOMERS, "a list", "no text", "a long key"])
def test_it_is_refused_in_the_words_of_a_call_s(case: str, billing: Billing) -> None:
    _, customer, metadata, message = WRONG[case]
    with pytest.raises(ValidationError) as raised:
        billing.tracker.track(models.CHAT, customer_id=customer, metadata=metadata)
    assert str(raised.value) == message


def test_a_pair_that_breaks_a_limit_costs_itself(
    openai_here: openai.OpenAI, billing: Billing, caplog: pytest.LogCaptureFixture
) -> None:
    metadata: Any = {"feature": "chat", "long": "x" * 501, "big": 2**63}
    client = billing.tracker.wrap(openai_here, customer_id=billing.customer_id, metadata=metadata)
    client.embeddings.create(model="embed", input="x")
    (billed,) = billing.billed()
    assert billed["feature"] == "chat"
    assert billed["totalTokens"] == 7
    assert not billed.keys() & {"long", "big"}
    told = [each for each in logged(caplog) if each.startswith("metadata was changed: left out")]
    assert len(told) == 2


class Models:
    def embed_content(self, *, model: str) -> object:
        return {"model": model, "embeddings": []}


class Caches:
    def create(self, *, model: str) -> object:
        return {"model": model, "usage_metadata": {"total_token_count": 5000}}


class Library:
    """A client of another library, of the form of Gemini's."""

    models = Models()
    caches = Caches()


def test_an_answer_without_usage_is_logged(
    billing: Billing, caplog: pytest.LogCaptureFixture
) -> None:
    client = billing.tracker.wrap(Library(), customer_id=billing.customer_id)
    assert client.models.embed_content(model="m") == {"model": "m", "embeddings": []}
    assert logged(caplog) == ["an answer of a language model has no token usage and is not billed"]
    assert billing.billed() == []


def test_what_a_cache_holds_is_no_answer(
    billing: Billing, caplog: pytest.LogCaptureFixture
) -> None:
    client = billing.tracker.wrap(Library(), customer_id=billing.customer_id)
    client.caches.create(model="m")
    assert billing.billed() == []
    assert logged(caplog) == []
