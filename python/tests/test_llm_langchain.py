"""The tracker, with models that are built like LangChain's."""

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import pytest

from conftest import Billing, Connect, Meter
from dodo_ingestion import create_llm_tracker


@dataclass
class AIMessageChunk:
    """A piece of an answer. Its usage is what came since the piece before."""

    usage_metadata: dict[str, int] | None

    def __add__(self, other: "AIMessageChunk") -> "AIMessageChunk":
        both = [each.usage_metadata or {} for each in (self, other)]
        names = {name for each in both for name in each}
        return AIMessageChunk({name: sum(each.get(name, 0) for each in both) for name in names})


class ChatModel:
    def __init__(self, *counts: tuple[int, int]) -> None:
        self._counts = counts

    def stream(self, _asked: str) -> Iterator[AIMessageChunk]:
        for read, written in self._counts:
            usage = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
            yield AIMessageChunk(usage)
        yield AIMessageChunk(None)

    def invoke(self, asked: str) -> AIMessageChunk:
        first, *others = self.stream(asked)
        return sum(others, start=first)

    async def ainvoke(self, asked: str) -> AIMessageChunk:
        return self.invoke(asked)

    async def astream(self, asked: str) -> AsyncIterator[AIMessageChunk]:
        for piece in self.stream(asked):
            yield piece

    def transform(self, asked: Iterator[str]) -> Iterator[AIMessageChunk]:
        yield from self.stream("".join(asked))

    def batch(self, asked: list[str]) -> list[AIMessageChunk]:
        return [self.invoke(each) for each in asked]

    def bind_tools(self, _tools: list[object]) -> "Bound":
        return Bound(self)

    def with_retry(self) -> "Bound":
        return Bound(self)

    def __or__(self, then: Callable[[AIMessageChunk], object]) -> "Sequence":
        return Sequence(self, then)


@dataclass
class Bound:
    """Asks the model that it was made of."""

    bound: ChatModel

    def invoke(self, asked: str) -> AIMessageChunk:
        return self.bound.invoke(asked)


@dataclass
class Sequence:
    first: ChatModel
    then: Callable[[AIMessageChunk], object]

    def stream(self, asked: str) -> Iterator[object]:
        yield from map(self.then, self.first.transform(iter([asked])))


async def read_async(model: ChatModel) -> None:
    async for _ in model.astream("Hello?"):
        pass


CALLS: dict[str, Callable[[ChatModel], object]] = {
    "invoke": lambda model: model.invoke("Hello?"),
    "ainvoke": lambda model: asyncio.run(model.ainvoke("Hello?")),
    "astream": lambda model: asyncio.run(read_async(model)),
    "batch": lambda model: model.batch(["Hello?"]),
    "bind_tools": lambda model: model.bind_tools([]).invoke("Hello?"),
    "with_retry": lambda model: model.with_retry().invoke("Hello?"),
    "a chain": lambda model: list((model | str).stream("Hello?")),
    "a copy": lambda model: copy.deepcopy(model).invoke("Hello?"),
}


@pytest.mark.parametrize("call", CALLS)
def test_what_a_model_answers_is_billed_once(call: str, billing: Billing) -> None:
    CALLS[call](billing.tracker.wrap(ChatModel((1000, 400)), customer_id=billing.customer_id))
    [metadata] = billing.billed()
    assert [metadata[f"{name}Tokens"] for name in ("input", "output", "total")] == [1000, 400, 1400]


@pytest.mark.parametrize(
    "counts",
    [
        pytest.param([(1000, 100), (0, 100), (0, 100), (0, 100)], id="like Gemini's"),
        pytest.param([(1000, 0), (0, 400)], id="like Anthropic's"),
        pytest.param([(1000, 400)], id="like OpenAI's"),
    ],
)
def test_the_pieces_of_a_stream_are_summed(
    counts: list[tuple[int, int]],
    connect: Connect,
    meter: Meter,
    request: pytest.FixtureRequest,
) -> None:
    ingestion, customer_id = connect(), f"cus_{request.node.name}"
    tracker = create_llm_tracker(ingestion, event_name="llm")
    first, *others = tracker.wrap(ChatModel(*counts), customer_id=customer_id).stream("Hello?")
    whole = sum(others, start=first)
    ingestion.flush(timeout=60)
    [event] = meter.events(customer_id)
    billed = [event["metadata"][f"{name}Tokens"] for name in ("input", "output", "total")]
    assert billed == [1000, 400, 1400]
    assert whole.usage_metadata is not None
    assert [
        whole.usage_metadata[f"{name}_tokens"] for name in ("input", "output", "total")
    ] == billed
