"""The tracker, with calls beside the common ones."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import openai
import pytest
from google import genai

import models
from conftest import Billing
from dodo_ingestion.llm import Usage

RESPONSE = Usage.of(models.RESPONSE)
INTERACTION = Usage(
    input_tokens=504,
    output_tokens=67,
    total_tokens=571,
    model="gemini-test",
    provider="google",
    cached_input_tokens=8,
    reasoning_tokens=7,
)
BOTH_ROUNDS = Usage(230, 15, 245, model="gemini-test", provider="google")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with models.models() as url:
        yield url


def openai_client(server: str) -> openai.OpenAI:
    return openai.OpenAI(api_key="k", base_url=f"{server}/v1", max_retries=0)


def gemini_client(server: str) -> genai.Client:
    return genai.Client(api_key="k", http_options={"base_url": server})


def image_edit(client: openai.OpenAI) -> None:
    answer = client.images.edit(model="image", image=("a.png", b"x"), prompt="Brighter.")
    assert answer.data is not None


def response_compact(client: openai.OpenAI) -> None:
    assert client.responses.compact(model="gpt", input="Hello?").id == "resp_2"


def response_until_done(client: openai.OpenAI) -> None:
    with client.responses.stream(model="gpt", input="Hello?") as stream:
        assert stream.until_done().get_final_response().output_text == "Hello."


def interaction(client: genai.Client) -> None:
    answer: Any = client.interactions.create(model="gemini", input="Hello?")
    assert answer.status == "completed"


def interaction_stream(client: genai.Client) -> None:
    events = list(client.interactions.create(model="gemini", input="Hello?", stream=True))
    assert events[-1].event_type == "interaction.completed"


def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"rain in {city}"


def functions_stream(client: genai.Client) -> None:
    chat = client.chats.create(model="gemini", config={"tools": [weather]})
    texts = [chunk.text for chunk in chat.send_message_stream("Hello?") if chunk.text]
    assert texts == ["Rain."]


CALLS: dict[str, tuple[Callable[[str], Any], Callable[[Any], None], Usage | None]] = {
    "image_edit": (openai_client, image_edit, Usage(60, 70, 130, "image", "openai")),
    "response_compact": (
        openai_client,
        response_compact,
        Usage(200, 30, 230, "gpt", "openai", reasoning_tokens=10),
    ),
    "response_until_done": (openai_client, response_until_done, RESPONSE),
    "interaction": (gemini_client, interaction, INTERACTION),
    "interaction_stream": (gemini_client, interaction_stream, INTERACTION),
    "functions_stream": (gemini_client, functions_stream, BOTH_ROUNDS),
}


@pytest.mark.parametrize("case", CALLS)
def test_it_answers_as_ever_and_is_billed(case: str, server: str, billing: Billing) -> None:
    make, use, expected = CALLS[case]
    with contextlib.closing(make(server)) as client:
        use(client)
        use(billing.tracker.wrap(client, customer_id=billing.customer_id))
    assert expected is not None
    told = {name: value for name, value in expected.metadata().items() if value is not None}
    assert billing.billed() == [told]


def test_an_async_stream_that_is_done_is_billed(server: str, billing: Billing) -> None:
    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=f"{server}/v1") as plain:
            client = billing.tracker.wrap(plain, customer_id=billing.customer_id)
            async with client.responses.stream(model="gpt", input="Hello?") as stream:
                await stream.until_done()

    asyncio.run(main())
    [metadata] = billing.billed()
    assert metadata["totalTokens"] == 230


class Ollama:
    """A client like Ollama's."""

    ANSWER: ClassVar = {"model": "llama", "prompt_eval_count": 26, "eval_count": 298, "done": True}

    def chat(self, *, stream: bool = False) -> Any:  # noqa: ANN401
        return iter([{"model": "llama"}, self.ANSWER]) if stream else self.ANSWER


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_that_is_a_method_is_billed(stream: bool, billing: Billing) -> None:
    answer = billing.tracker.wrap(Ollama(), customer_id=billing.customer_id).chat(stream=stream)
    assert list(answer)
    [metadata] = billing.billed()
    assert (metadata["inputTokens"], metadata["outputTokens"]) == (26, 298)
