"""A wrapped client, where its kind matters: it is what the client is, to whoever asks."""

import asyncio
import copy
import inspect
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from pydantic import BaseModel

import models
from conftest import Billing


def test_a_method_that_is_a_coroutine_function_stays_one(billing: Billing) -> None:
    class Embeddings:
        def __init__(self) -> None:
            self.failed = False

        async def create(self) -> dict[str, Any]:
            if not self.failed:
                self.failed = True
                raise ConnectionError
            return {"usage": {"prompt_tokens": 3}}

    async def retried(call: Any) -> Any:  # noqa: ANN401
        assert inspect.iscoroutinefunction(call)
        with pytest.raises(ConnectionError):
            await call()
        return await call()

    create = billing.tracker.wrap(Embeddings(), customer_id=billing.customer_id).create
    assert asyncio.run(retried(create)) == {"usage": {"prompt_tokens": 3}}
    [metadata] = billing.billed()
    assert metadata["inputTokens"] == 3


@pytest.mark.parametrize(
    ("library", "methods"),
    [
        (openai.OpenAI, "embeddings.create chat.completions.create responses.stream"),
        (openai.AsyncOpenAI, "embeddings.create responses.create responses.stream"),
        (anthropic.AsyncAnthropic, "messages.create messages.stream"),
        (genai.Client, "models.generate_content aio.models.generate_content aio.chats.create"),
    ],
)
def test_a_method_is_of_the_kind_that_it_was(library: Any, methods: str, billing: Billing) -> None:  # noqa: ANN401
    client = library(api_key="k")
    wrapped = billing.tracker.wrap(client, customer_id=billing.customer_id)

    def kind(of: Any, method: str) -> bool:  # noqa: ANN401
        for name in method.split("."):
            of = getattr(of, name)
        return inspect.iscoroutinefunction(of)

    for method in methods.split():
        assert kind(wrapped, method) == kind(client, method), method


class Completions:
    def __init__(self) -> None:
        self.tier = "standard"

    def create(self) -> dict[str, Any]:
        return {"usage": {"prompt_tokens": 3}, "tier": self.tier}


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_of_a_wrapped_client_is_billed_and_is_its_own(copied: Any, billing: Billing) -> None:  # noqa: ANN401
    wrapped = billing.tracker.wrap(Completions(), customer_id=billing.customer_id)
    other = copied(wrapped)
    other.tier = "priority"
    assert [client.create()["tier"] for client in (wrapped, other)] == ["standard", "priority"]
    assert [metadata["inputTokens"] for metadata in billing.billed()] == [3, 3]


def test_a_wrapped_client_of_openai_can_be_copied(billing: Billing) -> None:
    with openai.OpenAI(api_key="k") as client:
        other = copy.copy(billing.tracker.wrap(client, customer_id=billing.customer_id))
        assert isinstance(other, openai.OpenAI)
        assert other.api_key == "k"


class Cut(BaseModel):
    answer: int


def test_an_answer_that_is_cut_is_billed(billing: Billing) -> None:
    with models.models() as url:
        connection: dict[str, Any] = {"api_key": "k", "base_url": f"{url}/v1", "max_retries": 0}
        asked: dict[str, Any] = {
            "model": "gpt",
            "messages": [{"role": "user", "content": "Hello?"}],
            "response_format": Cut,
            "max_completion_tokens": 1,
        }
        with openai.OpenAI(**connection) as client:
            wrapped = billing.tracker.wrap(client, customer_id=billing.customer_id)
            with pytest.raises(openai.LengthFinishReasonError):
                wrapped.chat.completions.parse(**asked)

        async def parse() -> None:
            async with openai.AsyncOpenAI(**connection) as client:
                wrapped = billing.tracker.wrap(client, customer_id=billing.customer_id)
                with pytest.raises(openai.LengthFinishReasonError):
                    await wrapped.chat.completions.parse(**asked)

        asyncio.run(parse())
    billed = [(metadata["totalTokens"], metadata["model"]) for metadata in billing.billed()]
    assert billed == [(120, "gpt-test")] * 2


HELLO: Any = {"role": "user", "content": "Hello?"}


def with_middleware(client: anthropic.Anthropic) -> None:
    other = client.with_middleware(lambda request, call_next: call_next(request))
    assert isinstance(other, anthropic.Anthropic)
    other.messages.create(model="claude", max_tokens=9, messages=[HELLO])


def thread(client: anthropic.Anthropic) -> None:
    client.beta.messages.thread(model="claude", max_tokens=9).send(HELLO)


def thread_fork(client: anthropic.Anthropic) -> None:
    client.beta.messages.thread(model="claude", max_tokens=9).fork().parse(HELLO)


def thread_stream(client: anthropic.Anthropic) -> None:
    conversation = client.beta.messages.thread(model="claude", max_tokens=9)
    with conversation.stream(HELLO) as stream:
        assert list(stream.text_stream) == ["Hel", "lo."]


@pytest.mark.parametrize("use", [with_middleware, thread, thread_fork, thread_stream])
def test_what_a_client_leads_to_is_billed(use: Any, billing: Billing) -> None:  # noqa: ANN401
    with (
        models.models() as url,
        anthropic.Anthropic(api_key="k", base_url=url, max_retries=0) as client,
    ):
        use(billing.tracker.wrap(client, customer_id=billing.customer_id))
    assert [metadata["outputTokens"] for metadata in billing.billed()] == [40]
