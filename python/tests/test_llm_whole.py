"""The tracker, with answers of which all tokens are billed, once, or it is logged."""

import asyncio
import json
from collections.abc import Callable, Iterable
from typing import Any

import anthropic
import httpx2
import openai
import pytest

import models
from conftest import Billing, logged
from dodo_ingestion import ValidationError
from dodo_ingestion.llm import Usage

NO_USAGE = "an answer of a language model has no token usage and is not billed"
NO_USAGE_OF_A_STREAM = (
    "a stream of a language model has ended without token usage and is not billed"
)
MESSAGES: Any = [{"role": "user", "content": "Hello?"}]
QUEUED = {**models.RUN, "status": "queued", "usage": None}


def sent(events: Iterable[dict[str, Any]]) -> str:
    return "".join(
        f"event: {event.get('event') or event['type']}\n"
        f"data: {json.dumps(event.get('data') or event)}\n\n"
        for event in events
    )


def answering(whole: object, *streams: Iterable[dict[str, Any]]) -> Callable[[Any], Any]:
    """Answer with `whole`, or with one of the streams after the other."""
    bodies = [sent(events) for events in streams]

    def answer(request: httpx2.Request) -> httpx2.Response:
        if b'"stream":true' in request.content or request.url.path.endswith("/stream"):
            headers = {"content-type": "text/event-stream"}
            return httpx2.Response(200, headers=headers, content=bodies.pop(0))
        return httpx2.Response(200, json=whole)

    return answer


def openai_client(whole: object, *streams: Iterable[dict[str, Any]]) -> openai.OpenAI:
    transport = httpx2.MockTransport(answering(whole, *streams))
    return openai.OpenAI(api_key="k", http_client=httpx2.Client(transport=transport))


def anthropic_client(whole: object, *streams: Iterable[dict[str, Any]]) -> anthropic.Anthropic:
    transport = httpx2.MockTransport(answering(whole, *streams))
    return anthropic.Anthropic(api_key="k", http_client=httpx2.Client(transport=transport))


def session_events(read: int, written: int) -> list[dict[str, Any]]:
    head = {"id": "event_1", "processed_at": "2026-01-01T00:00:00Z"}
    usage = {"input_tokens": read, "output_tokens": written}
    return [
        {**head, "type": "session.usage", "usage": usage},
        {**head, "type": "session.status_idle", "stop_reason": {"type": "end_turn"}},
    ]


def test_a_session_that_is_watched_is_not_billed(
    billing: Billing, caplog: pytest.LogCaptureFixture
) -> None:
    plain = anthropic_client(None, session_events(100, 10), session_events(250, 30))
    client: Any = billing.tracker.wrap(plain, customer_id=billing.customer_id)
    for _ in range(2):
        with client.beta.sessions.events.stream("session_1") as stream:
            assert len(list(stream)) == 2
    assert billing.billed() == []
    assert logged(caplog) == []


CACHED = {"cached_tokens": 100, "cache_write_tokens": 800}
THOUGHT = {"output_tokens": 500, "output_tokens_details": {"thinking_tokens": 400}}
COMPACTED = {
    "input_tokens": 10,
    "output_tokens": 5,
    "cache_read_input_tokens": 1,
    "cache_creation_input_tokens": 2,
    "iterations": [
        {
            "type": "compaction",
            "input_tokens": 1800,
            "output_tokens": 350,
            "cache_read_input_tokens": 30,
            "cache_creation_input_tokens": 40,
        },
        {"type": "advisor_message", "model": "other", "input_tokens": 900, "output_tokens": 60},
        {
            "type": "message",
            "input_tokens": 10,
            "output_tokens": 5,
            "cache_read_input_tokens": 1,
            "cache_creation_input_tokens": 2,
        },
    ],
}
WHOLE = Usage(
    input_tokens=1810,
    output_tokens=355,
    total_tokens=2165,
    model="claude-test",
    provider="anthropic",
    cached_input_tokens=31,
    cache_creation_input_tokens=42,
)
DETAILS: dict[str, tuple[dict[str, Any], Usage]] = {
    "what OpenAI's chat has put into a cache": (
        {"usage": {"prompt_tokens": 1000, "prompt_tokens_details": CACHED}},
        Usage(1000, 0, 1000, None, "openai", 100, 800),
    ),
    "what OpenAI's responses have put into a cache": (
        {"usage": {"input_tokens": 1000, "input_tokens_details": CACHED}},
        Usage(1000, 0, 1000, None, "openai", 100, 800),
    ),
    "what Anthropic's has thought": (
        {"type": "message", "usage": {"input_tokens": 10, **THOUGHT}},
        Usage(10, 500, 510, None, "anthropic", reasoning_tokens=400),
    ),
    "what Anthropic's has compacted": ({**models.MESSAGE, "usage": COMPACTED}, WHOLE),
}


@pytest.mark.parametrize("case", DETAILS)
def test_all_that_an_answer_tells_is_counted(case: str) -> None:
    answer, expected = DETAILS[case]
    assert Usage.of(answer) == expected


def test_a_compaction_in_a_stream_is_counted_once(billing: Billing) -> None:
    first, *others, delta, last = models.message_events()
    told = {**delta, "usage": {**delta["usage"], **COMPACTED}}
    plain = anthropic_client(None, [first, *others, told, told, last])
    client = billing.tracker.wrap(plain, customer_id=billing.customer_id)
    asked: Any = {"model": "claude", "max_tokens": 9, "messages": MESSAGES}
    with client.beta.messages.stream(**asked) as stream:
        stream.until_done()
    expected = {key: value for key, value in WHOLE.metadata().items() if value is not None}
    assert billing.billed() == [expected]


def without_usage(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key != "usage"}


def chat(client: openai.OpenAI) -> object:
    return client.chat.completions.create(model="gpt", messages=MESSAGES)


def response(client: openai.OpenAI) -> object:
    return client.responses.create(model="gpt", input="Hello?")


def embeddings(client: openai.OpenAI) -> object:
    return client.embeddings.create(model="embed", input="x", encoding_format="float")


def message(client: anthropic.Anthropic) -> object:
    return client.messages.create(model="claude", max_tokens=9, messages=MESSAGES)


def file(client: openai.OpenAI) -> object:
    return client.files.create(file=("a.txt", b"x"), purpose="assistants")


def thread_message(client: openai.OpenAI) -> object:
    with pytest.warns(DeprecationWarning, match="Assistants"):
        return client.beta.threads.messages.create("thread_1", role="assistant", content="Hello.")


def run(client: openai.OpenAI) -> object:
    with pytest.warns(DeprecationWarning, match="Assistants"):
        return client.beta.threads.create_and_run(assistant_id="a")


def outputs(client: openai.OpenAI) -> object:
    asked: Any = {"thread_id": "thread_1", "tool_outputs": []}
    with pytest.warns(DeprecationWarning, match="Assistants"):
        return client.beta.threads.runs.submit_tool_outputs("run_1", **asked)


FILE = {"id": "file_1", "object": "file", "bytes": 1, "filename": "a.txt", "status": "processed"}
THREAD_MESSAGE = {
    "id": "msg_1",
    "object": "thread.message",
    "role": "assistant",
    "content": [{"type": "text", "text": {"value": "Hello.", "annotations": []}}],
}
IN_BACKGROUND = {**models.RESPONSE, "status": "queued", "output": [], "usage": None}
UNTOLD: dict[str, tuple[Callable[..., Any], Callable[[Any], object], dict[str, Any], bool]] = {
    "chat": (openai_client, chat, without_usage(models.CHAT), True),
    "response": (openai_client, response, without_usage(models.RESPONSE), True),
    "embeddings": (openai_client, embeddings, without_usage(models.EMBEDDINGS), True),
    "message": (anthropic_client, message, without_usage(models.MESSAGE), True),
    "in background": (openai_client, response, IN_BACKGROUND, False),
    "file": (openai_client, file, FILE, False),
    "thread message": (openai_client, thread_message, THREAD_MESSAGE, False),
    "run": (openai_client, run, QUEUED, False),
    "outputs": (openai_client, outputs, QUEUED, False),
}


@pytest.mark.parametrize("case", UNTOLD)
def test_only_an_answer_without_usage_is_logged(
    case: str, billing: Billing, caplog: pytest.LogCaptureFixture
) -> None:
    make, use, answer, is_logged = UNTOLD[case]
    with make(answer) as plain:
        client = billing.tracker.wrap(plain, customer_id=billing.customer_id)
        assert type(use(client)) is type(use(plain))
    assert logged(caplog) == [NO_USAGE] * is_logged
    assert billing.billed() == []


def run_at_once(threads: Any) -> None:  # noqa: ANN401
    assert threads.create_and_run(assistant_id="a").status == "completed"


def run_streamed(threads: Any) -> None:  # noqa: ANN401
    assert len(list(threads.create_and_run(assistant_id="a", stream=True))) == 2


def run_stream(threads: Any) -> None:  # noqa: ANN401
    with threads.create_and_run_stream(assistant_id="a") as stream:
        stream.until_done()


def run_of_a_thread_stream(threads: Any) -> None:  # noqa: ANN401
    with threads.runs.create_and_stream(thread_id="thread_1", assistant_id="a") as stream:
        stream.until_done()


OUTPUTS: Any = {"thread_id": "thread_1", "run_id": "run_1", "tool_outputs": []}


def outputs_at_once(threads: Any) -> None:  # noqa: ANN401
    assert threads.runs.submit_tool_outputs(**OUTPUTS).status == "completed"


def outputs_streamed(threads: Any) -> None:  # noqa: ANN401
    assert len(list(threads.runs.submit_tool_outputs(**OUTPUTS, stream=True))) == 2


def outputs_stream(threads: Any) -> None:  # noqa: ANN401
    with threads.runs.submit_tool_outputs_stream(**OUTPUTS) as stream:
        stream.until_done()


RUNS = (
    run_at_once,
    run_streamed,
    run_stream,
    run_of_a_thread_stream,
    outputs_at_once,
    outputs_streamed,
    outputs_stream,
)


@pytest.mark.filterwarnings("ignore:The Assistants API:DeprecationWarning")
@pytest.mark.parametrize("use", RUNS)
def test_a_run_is_billed(use: Callable[[Any], None], billing: Billing) -> None:
    with openai_client(models.RUN, models.run_events()) as plain:
        use(billing.tracker.wrap(plain, customer_id=billing.customer_id).beta.threads)
    assert [metadata["totalTokens"] for metadata in billing.billed()] == [59]


@pytest.mark.filterwarnings("ignore:The Assistants API:DeprecationWarning")
def test_a_run_of_an_async_client_is_billed(billing: Billing) -> None:
    async def main() -> None:
        transport = httpx2.MockTransport(answering(models.RUN, models.run_events()))
        connection = httpx2.AsyncClient(transport=transport)
        async with openai.AsyncOpenAI(api_key="k", http_client=connection) as plain:
            client = billing.tracker.wrap(plain, customer_id=billing.customer_id)
            await client.beta.threads.create_and_run(assistant_id="a")
            async with client.beta.threads.runs.submit_tool_outputs_stream(**OUTPUTS) as stream:
                await stream.until_done()

    asyncio.run(main())
    assert [metadata["totalTokens"] for metadata in billing.billed()] == [59, 59]


@pytest.mark.filterwarnings("ignore:The Assistants API:DeprecationWarning")
def test_a_run_that_waits_for_outputs_is_billed_when_it_has_them(
    billing: Billing, caplog: pytest.LogCaptureFixture
) -> None:
    step = {"id": "step_1", "object": "thread.run.step", "usage": {"prompt_tokens": 20}}
    waiting = [
        {"event": "thread.run.step.completed", "data": step},
        {"event": "thread.run.requires_action", "data": {**QUEUED, "status": "requires_action"}},
    ]
    with openai_client(None, waiting, models.run_events()) as plain:
        threads = billing.tracker.wrap(plain, customer_id=billing.customer_id).beta.threads
        run_streamed(threads)
        outputs_streamed(threads)
    assert [metadata["totalTokens"] for metadata in billing.billed()] == [59]
    assert logged(caplog) == []


def test_a_client_that_is_wrapped_is_not_wrapped_again(billing: Billing) -> None:
    client = billing.tracker.wrap(openai_client(models.CHAT), customer_id=billing.customer_id)
    parts: list[Any] = [client, client.chat.completions]
    for part in parts:
        with pytest.raises(ValidationError) as raised:
            billing.tracker.wrap(part, customer_id="cus_other")
        assert str(raised.value) == "client: is wrapped already; wrap the client itself"
        assert raised.value.field == "client"
    chat(client)
    assert [metadata["provider"] for metadata in billing.billed()] == ["openai"]


def test_a_stream_that_fails_is_told_from_one_that_is_left(
    billing: Billing, caplog: pytest.LogCaptureFixture
) -> None:
    begun, *_, completed = models.response_events()
    failed = {**completed["response"], "status": "failed", "usage": None}
    events = [begun, {**completed, "type": "response.failed", "response": failed}]
    with openai_client(None, events) as plain:
        client = billing.tracker.wrap(plain, customer_id=billing.customer_id)
        stream = client.responses.create(model="gpt", input="Hello?", stream=True)
        assert [event.type for event in stream] == ["response.created", "response.failed"]
    assert logged(caplog) == [NO_USAGE_OF_A_STREAM]
    assert billing.billed() == []
