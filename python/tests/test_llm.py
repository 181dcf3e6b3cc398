"""The tracker, with the providers' own libraries against a server that answers in their forms."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest
from google import genai

import models
from conftest import Billing, Connect
from dodo_ingestion import ValidationError, create_llm_tracker
from dodo_ingestion.llm import Usage

MESSAGES: Any = [{"role": "user", "content": "Hello?"}]
WITH_USAGE: Any = {"include_usage": True}

OPENAI_CHAT = {
    "inputTokens": 100,
    "outputTokens": 20,
    "totalTokens": 120,
    "model": "gpt-test",
    "provider": "openai",
    "cachedInputTokens": 64,
    "reasoningTokens": 8,
}
OPENAI_RESPONSE = {
    "inputTokens": 200,
    "outputTokens": 30,
    "totalTokens": 230,
    "model": "gpt-test",
    "provider": "openai",
    "reasoningTokens": 10,
}
OPENAI_RUN = {
    "inputTokens": 50,
    "outputTokens": 9,
    "totalTokens": 59,
    "model": "gpt-test",
    "provider": "openai",
}
OPENAI_EMBEDDINGS = {
    "inputTokens": 7,
    "outputTokens": 0,
    "totalTokens": 7,
    "model": "embed-test",
    "provider": "openai",
}
ANTHROPIC = {
    "inputTokens": 300,
    "outputTokens": 40,
    "totalTokens": 340,
    "model": "claude-test",
    "provider": "anthropic",
    "cachedInputTokens": 6,
    "cacheCreationInputTokens": 5,
}
GEMINI = {
    "inputTokens": 400,
    "outputTokens": 53,
    "totalTokens": 453,
    "model": "gemini-test",
    "provider": "google",
    "cachedInputTokens": 9,
    "reasoningTokens": 3,
}
GEMINI_STREAM = {key: value for key, value in GEMINI.items() if key != "cachedInputTokens"}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with models.models() as url:
        yield url


@pytest.fixture
def openai_here(server: str) -> Iterator[openai.OpenAI]:
    with openai_client(server) as client:
        yield client


def openai_client(server: str) -> openai.OpenAI:
    return openai.OpenAI(api_key="k", base_url=f"{server}/v1", max_retries=0)


def async_openai_client(server: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key="k", base_url=f"{server}/v1", max_retries=0)


def anthropic_client(server: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key="k", base_url=server, max_retries=0)


def async_anthropic_client(server: str) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(api_key="k", base_url=server, max_retries=0)


def gemini_client(server: str) -> genai.Client:
    return genai.Client(api_key="k", http_options={"base_url": server})


def chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="gpt", messages=MESSAGES)
    assert answer.choices[0].message.content == "Hello."
    assert type(answer).__name__ == "ChatCompletion"


def chat_parse(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(model="gpt", messages=MESSAGES)
    assert answer.choices[0].message.content == "Hello."


def chat_stream(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="gpt", messages=MESSAGES, stream=True, stream_options=WITH_USAGE
    )
    assert isinstance(stream, openai.Stream)
    chunks = list(stream)
    assert [chunk.choices[0].delta.content for chunk in chunks if chunk.choices] == [
        "Hel",
        "lo.",
        None,
    ]


def chat_stream_block(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="gpt", messages=MESSAGES, stream_options=WITH_USAGE
    ) as stream:
        assert stream.get_final_completion().choices[0].message.content == "Hello."


def response(client: openai.OpenAI) -> None:
    assert client.responses.create(model="gpt", input="Hello?").output_text == "Hello."


def response_stream(client: openai.OpenAI) -> None:
    with client.responses.create(model="gpt", input="Hello?", stream=True) as stream:
        kinds = [event.type for event in stream]
    assert kinds[-1] == "response.completed"


def response_stream_block(client: openai.OpenAI) -> None:
    with client.responses.stream(model="gpt", input="Hello?") as stream:
        assert stream.get_final_response().output_text == "Hello."


def response_stream_events(client: openai.OpenAI) -> None:
    with client.responses.stream(model="gpt", input="Hello?") as stream:
        texts = [event.delta for event in stream if event.type == "response.output_text.delta"]
    assert texts == ["Hello."]


def embeddings(client: openai.OpenAI) -> None:
    assert client.embeddings.create(model="embed", input="x").data[0].embedding == [0.5, 0.25]


def run_polled(client: openai.OpenAI) -> None:
    with pytest.warns(DeprecationWarning, match="Assistants"):
        run = client.beta.threads.runs.create_and_poll(thread_id="thread_1", assistant_id="a")
    assert run.status == "completed"


def run_stream(client: openai.OpenAI) -> None:
    runs = client.beta.threads.runs
    with pytest.warns(DeprecationWarning, match="Assistants"):
        stream = runs.create(thread_id="thread_1", assistant_id="a", stream=True)
    assert [event.event for event in stream][-1] == "thread.run.completed"


def run_stream_block(client: openai.OpenAI) -> None:
    runs = client.beta.threads.runs
    with (
        pytest.warns(DeprecationWarning, match="Assistants"),
        runs.stream(thread_id="thread_1", assistant_id="a") as stream,
    ):
        stream.until_done()


def copied_client(client: openai.OpenAI) -> None:
    assert isinstance(client, openai.OpenAI)
    chat(client.with_options(timeout=60))


def message(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(model="claude", max_tokens=9, messages=MESSAGES)
    block = answer.content[0]
    assert block.type == "text"
    assert block.text == "Hello."


def message_stream(client: anthropic.Anthropic) -> None:
    stream = client.messages.create(model="claude", max_tokens=9, messages=MESSAGES, stream=True)
    assert [event.type for event in stream][-1] == "message_stop"


def message_stream_text(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model="claude", max_tokens=9, messages=MESSAGES) as stream:
        assert list(stream.text_stream) == ["Hel", "lo."]


def message_stream_final(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model="claude", max_tokens=9, messages=MESSAGES) as stream:
        assert stream.get_final_message().usage.output_tokens == 40


def content(client: genai.Client) -> None:
    assert client.models.generate_content(model="gemini", contents="Hello?").text == "Hello."


def content_chat(client: genai.Client) -> None:
    assert client.chats.create(model="gemini").send_message("Hello?").text == "Hello."


def content_stream(client: genai.Client) -> None:
    stream = client.models.generate_content_stream(model="gemini", contents="Hello?")
    assert [chunk.text for chunk in stream] == ["Hel", "Hel"]


SYNC: dict[str, tuple[Callable[[str], Any], Callable[[Any], None], dict[str, Any]]] = {
    "chat": (openai_client, chat, OPENAI_CHAT),
    "chat_parse": (openai_client, chat_parse, OPENAI_CHAT),
    "chat_stream": (openai_client, chat_stream, OPENAI_CHAT),
    "chat_stream_block": (openai_client, chat_stream_block, OPENAI_CHAT),
    "response": (openai_client, response, OPENAI_RESPONSE),
    "response_stream": (openai_client, response_stream, OPENAI_RESPONSE),
    "response_stream_block": (openai_client, response_stream_block, OPENAI_RESPONSE),
    "response_stream_events": (openai_client, response_stream_events, OPENAI_RESPONSE),
    "embeddings": (openai_client, embeddings, OPENAI_EMBEDDINGS),
    "run_polled": (openai_client, run_polled, OPENAI_RUN),
    "run_stream": (openai_client, run_stream, OPENAI_RUN),
    "run_stream_block": (openai_client, run_stream_block, OPENAI_RUN),
    "copied_client": (openai_client, copied_client, OPENAI_CHAT),
    "message": (anthropic_client, message, ANTHROPIC),
    "message_stream": (anthropic_client, message_stream, ANTHROPIC),
    "message_stream_text": (anthropic_client, message_stream_text, ANTHROPIC),
    "message_stream_final": (anthropic_client, message_stream_final, ANTHROPIC),
    "content": (gemini_client, content, GEMINI),
    "content_chat": (gemini_client, content_chat, GEMINI),
    "content_stream": (gemini_client, content_stream, GEMINI_STREAM),
}


@pytest.mark.parametrize("case", SYNC)
def test_a_wrapped_client_answers_as_ever_and_is_billed(
    case: str, server: str, billing: Billing
) -> None:
    make, use, expected = SYNC[case]
    with contextlib.closing(make(server)) as client:
        use(client)
        metadata = {"feature": "chat"}
        use(billing.tracker.wrap(client, customer_id=billing.customer_id, metadata=metadata))
    assert billing.billed() == [{**expected, "feature": "chat"}]


async def async_chat(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="gpt", messages=MESSAGES)
    assert answer.choices[0].message.content == "Hello."


async def async_chat_stream(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="gpt", messages=MESSAGES, stream=True, stream_options=WITH_USAGE
    )
    assert len([chunk async for chunk in stream]) == 4


async def async_response_stream(client: openai.AsyncOpenAI) -> None:
    async with client.responses.stream(model="gpt", input="Hello?") as stream:
        assert (await stream.get_final_response()).output_text == "Hello."


async def async_message(client: anthropic.AsyncAnthropic) -> None:
    async with client as same:
        await same.messages.create(model="claude", max_tokens=9, messages=MESSAGES)


async def async_message_stream(client: anthropic.AsyncAnthropic) -> None:
    async with client.messages.stream(model="claude", max_tokens=9, messages=MESSAGES) as stream:
        assert [text async for text in stream.text_stream] == ["Hel", "lo."]


async def async_content(client: genai.Client) -> None:
    answer = await client.aio.models.generate_content(model="gemini", contents="Hello?")
    assert answer.text == "Hello."


async def async_content_stream(client: genai.Client) -> None:
    stream = await client.aio.models.generate_content_stream(model="gemini", contents="Hello?")
    assert [chunk.text async for chunk in stream] == ["Hel", "Hel"]


ASYNC: dict[str, tuple[Callable[[str], Any], Callable[[Any], Awaitable[None]], dict[str, Any]]] = {
    "async_chat": (async_openai_client, async_chat, OPENAI_CHAT),
    "async_chat_stream": (async_openai_client, async_chat_stream, OPENAI_CHAT),
    "async_response_stream": (async_openai_client, async_response_stream, OPENAI_RESPONSE),
    "async_message": (async_anthropic_client, async_message, ANTHROPIC),
    "async_message_stream": (async_anthropic_client, async_message_stream, ANTHROPIC),
    "async_content": (gemini_client, async_content, GEMINI),
    "async_content_stream": (gemini_client, async_content_stream, GEMINI_STREAM),
}


@pytest.mark.parametrize("case", ASYNC)
def test_a_wrapped_async_client_answers_as_ever_and_is_billed(
    case: str, server: str, billing: Billing
) -> None:
    make, use, expected = ASYNC[case]

    async def main() -> None:
        client = make(server)
        await use(billing.tracker.wrap(client, customer_id=billing.customer_id))
        await (client.aio.aclose() if isinstance(client, genai.Client) else client.close())

    asyncio.run(main())
    assert billing.billed() == [expected]


def test_an_abandoned_stream_is_billed_as_far_as_it_was_told(server: str, billing: Billing) -> None:
    with anthropic_client(server) as client:
        wrapped = billing.tracker.wrap(client, customer_id=billing.customer_id)
        asked: Any = {"model": "claude", "max_tokens": 9, "messages": MESSAGES, "stream": True}
        closed, dropped = (wrapped.messages.create(**asked) for _ in range(2))
        assert next(iter(closed)).type == next(iter(dropped)).type == "message_start"
        closed.close()
        del dropped
    told = {**ANTHROPIC, "outputTokens": 1, "totalTokens": 301}
    assert billing.billed() == [told, told]


def test_a_stream_without_usage_is_logged(
    openai_here: openai.OpenAI, billing: Billing, caplog: pytest.LogCaptureFixture
) -> None:
    client = billing.tracker.wrap(openai_here, customer_id=billing.customer_id)
    chunks = list(client.chat.completions.create(model="gpt", messages=MESSAGES, stream=True))
    assert len(chunks) == 3
    assert any("include_usage" in record.message for record in caplog.records)
    assert billing.billed() == []


@pytest.mark.parametrize("case", ["chat", "chat_stream", "message_stream_text", "content_stream"])
def test_what_is_wrong_with_the_bill_does_not_reach_the_caller(
    case: str, server: str, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    make, use, _ = SYNC[case]
    ingestion = connect()
    ingestion.close()
    with contextlib.closing(make(server)) as client:
        use(create_llm_tracker(ingestion).wrap(client, customer_id="cus_1"))
    assert any("is not billed: the client is closed" in each.message for each in caplog.records)


def test_what_the_provider_raises_reaches_the_caller(billing: Billing) -> None:
    plain = openai_client("http://127.0.0.1:9")
    client = billing.tracker.wrap(plain, customer_id=billing.customer_id)
    with plain, pytest.raises(openai.APIConnectionError):
        client.chat.completions.create(model="gpt", messages=MESSAGES)
    with pytest.raises(AttributeError, match="no_such_part"):
        _ = client.no_such_part  # type: ignore[attr-defined]
    assert billing.billed() == []


def test_what_goes_past_the_wrapped_client_is_not_billed(
    openai_here: openai.OpenAI, billing: Billing, caplog: pytest.LogCaptureFixture
) -> None:
    wrapped = billing.tracker.wrap(openai_here, customer_id=billing.customer_id)
    wrapped.timeout = 5.0
    assert openai_here.timeout == wrapped.timeout == 5.0
    assert repr(wrapped) == repr(openai_here)
    chat(openai_here)
    raw = wrapped.chat.completions.with_raw_response.create(model="gpt", messages=MESSAGES)
    assert raw.parse().choices
    assert billing.billed() == []
    assert "it goes by: with_raw_response" in caplog.text


DICTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "openai chat": (models.CHAT, OPENAI_CHAT),
    "openai responses": (models.RESPONSE, OPENAI_RESPONSE),
    "openai embeddings": (models.EMBEDDINGS, OPENAI_EMBEDDINGS),
    "anthropic": (models.MESSAGE, ANTHROPIC),
    "gemini": (models.CONTENT, GEMINI),
    "bedrock": (
        {"usage": {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}},
        {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7},
    ),
    "bedrock with a cache": (
        {
            "usage": {
                "inputTokens": 3,
                "outputTokens": 4,
                "totalTokens": 18,
                "cacheReadInputTokens": 5,
                "cacheWriteInputTokens": 6,
            }
        },
        {
            "inputTokens": 3,
            "outputTokens": 4,
            "totalTokens": 18,
            "cachedInputTokens": 5,
            "cacheCreationInputTokens": 6,
        },
    ),
    "the usage alone": (
        {"prompt_tokens": 3, "completion_tokens": 4},
        {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7, "provider": "openai"},
    ),
    "numbers that are none": (
        {"usage": {"input_tokens": 3, "output_tokens": None, "cache_read_input_tokens": -1}},
        {"inputTokens": 3, "outputTokens": 0, "totalTokens": 3, "provider": "openai"},
    ),
    "a long model": (
        {"model": "m" * 600, "usage": {"prompt_tokens": 1}},
        {
            "inputTokens": 1,
            "outputTokens": 0,
            "totalTokens": 1,
            "model": "m" * 500,
            "provider": "openai",
        },
    ),
}


@pytest.mark.parametrize("case", DICTS)
def test_a_dict_is_an_answer(case: str, billing: Billing) -> None:
    answer, expected = DICTS[case]
    who = billing.customer_id
    billing.tracker.track(answer, customer_id=who)
    billing.tracker.track(
        json.loads(json.dumps(answer)),
        customer_id=who,
        metadata={"model": "mine", "feature": "search", "outputTokens": None},
    )
    ours = {**expected, "model": "mine", "feature": "search"}
    del ours["outputTokens"]
    as_it_is, with_ours = sorted(billing.billed(), key=lambda metadata: "feature" in metadata)
    assert as_it_is == expected
    assert with_ours == ours


class Answer:
    """An answer as an object, of a library that is built like the providers' own."""

    def __init__(self, **fields: object) -> None:
        self.__dict__.update(fields)


def as_objects(answer: dict[str, Any]) -> Any:  # noqa: ANN401
    return json.loads(json.dumps(answer), object_hook=lambda fields: Answer(**fields))


@pytest.mark.parametrize("case", DICTS)
def test_an_object_is_an_answer(case: str, billing: Billing) -> None:
    answer, expected = DICTS[case]
    billing.tracker.track(as_objects(answer), customer_id=billing.customer_id)
    assert billing.billed() == [expected]


class Completions:
    def create(self, *, model: str, stream: bool = False) -> Any:  # noqa: ANN401
        assert model == "gpt"
        answer = as_objects(models.CHAT)
        return iter([Answer(model="gpt-test", choices=[]), answer]) if stream else answer


class Compatible:
    """A client of another library, of the same form."""

    def __init__(self) -> None:
        self.chat: Any = Answer(completions=Completions())


def test_a_client_that_is_built_like_them_is_billed(billing: Billing) -> None:
    client = billing.tracker.wrap(Compatible(), customer_id=billing.customer_id)
    assert client.chat.completions.create(model="gpt").choices[0].message.content == "Hello."
    assert len(list(client.chat.completions.create(model="gpt", stream=True))) == 2
    expected = {**OPENAI_CHAT, "provider": "test_llm"}
    assert billing.billed() == [expected, expected]


@pytest.mark.parametrize(
    "answer", [{}, {"usage": {}}, {"usage": {"prompt_tokens": "5"}}, None, "x"]
)
def test_an_answer_without_usage_is_refused(answer: object, billing: Billing) -> None:
    assert Usage.of(answer) is None
    with pytest.raises(ValidationError) as raised:
        billing.tracker.track(answer, customer_id=billing.customer_id)
    assert raised.value.field == "response"


def test_an_id_is_billed_once(billing: Billing) -> None:
    for _ in range(2):
        billing.tracker.track(Usage(1, 2, 3), customer_id=billing.customer_id, event_id="llm-once")
    assert billing.billed() == [{"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}]
