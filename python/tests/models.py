"""A server that answers as providers of language models do, in the forms that they publish."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CHAT: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-test",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Hello."},
            "logprobs": None,
        }
    ],
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 64},
        "completion_tokens_details": {"reasoning_tokens": 8},
    },
}

RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "model": "gpt-test",
    "output": [
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Hello.", "annotations": []}],
        }
    ],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 200,
        "output_tokens": 30,
        "total_tokens": 230,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 10},
    },
}

RUN = {
    "id": "run_1",
    "object": "thread.run",
    "created_at": 1,
    "thread_id": "thread_1",
    "assistant_id": "a",
    "status": "completed",
    "model": "gpt-test",
    "instructions": "",
    "parallel_tool_calls": True,
    "tools": [],
    "metadata": {},
    "usage": {"prompt_tokens": 50, "completion_tokens": 9, "total_tokens": 59},
}

EMBEDDINGS = {
    "object": "list",
    "model": "embed-test",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}],
    "usage": {"prompt_tokens": 7, "total_tokens": 7},
}

MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-test",
    "content": [{"type": "text", "text": "Hello."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 300,
        "output_tokens": 40,
        "cache_creation_input_tokens": 5,
        "cache_read_input_tokens": 6,
    },
}

CONTENT = {
    "candidates": [
        {"content": {"role": "model", "parts": [{"text": "Hello."}]}, "finishReason": "STOP"}
    ],
    "modelVersion": "gemini-test",
    "usageMetadata": {
        "promptTokenCount": 400,
        "candidatesTokenCount": 50,
        "thoughtsTokenCount": 3,
        "cachedContentTokenCount": 9,
        "totalTokenCount": 453,
    },
}

COMPACTED = {
    "id": "resp_2",
    "object": "response.compaction",
    "created_at": 1,
    "output": [],
    "usage": RESPONSE["usage"],
}

IMAGES = {
    "created": 1,
    "data": [{"b64_json": "eA=="}],
    "usage": {
        "input_tokens": 60,
        "output_tokens": 70,
        "total_tokens": 130,
        "input_tokens_details": {"image_tokens": 50, "text_tokens": 10},
    },
}

INTERACTION: dict[str, Any] = {
    "id": "interaction_1",
    "object": "interaction",
    "created": "2026-01-01T00:00:00Z",
    "updated": "2026-01-01T00:00:00Z",
    "status": "completed",
    "model": "gemini-test",
    "steps": [{"type": "model_output", "content": [{"type": "text", "text": "Hello."}]}],
    "usage": {
        "total_input_tokens": 500,
        "total_output_tokens": 60,
        "total_thought_tokens": 7,
        "total_tool_use_tokens": 4,
        "total_cached_tokens": 8,
        "total_tokens": 571,
    },
}


def chat_chunks(*, with_usage: bool) -> Iterator[dict[str, Any]]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1}
    head["model"] = "gpt-test"
    for text in ("Hel", "lo."):
        delta = {"role": "assistant", "content": text}
        yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    if with_usage:
        yield {**head, "choices": [], "usage": CHAT["usage"]}


def response_events() -> Iterator[dict[str, Any]]:
    begun = {**RESPONSE, "status": "in_progress", "output": [], "usage": None}
    item = RESPONSE["output"][0]
    part = item["content"][0]
    place = {"output_index": 0, "item_id": "msg_1", "content_index": 0}
    empty = {**item, "status": "in_progress", "content": []}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": empty},
        {"type": "response.content_part.added", **place, "part": {**part, "text": ""}},
        {"type": "response.output_text.delta", **place, "delta": "Hello.", "logprobs": []},
        {"type": "response.output_text.done", **place, "text": "Hello.", "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": RESPONSE},
    ]
    for number, event in enumerate(events):
        yield {**event, "sequence_number": number}


def message_events() -> Iterator[dict[str, Any]]:
    usage = {**MESSAGE["usage"], "output_tokens": 1}
    begun = {**MESSAGE, "content": [], "stop_reason": None, "usage": usage}
    yield {"type": "message_start", "message": begun}
    block = {"type": "text", "text": ""}
    yield {"type": "content_block_start", "index": 0, "content_block": block}
    for text in ("Hel", "lo."):
        delta = {"type": "text_delta", "text": text}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    delta = {"stop_reason": "end_turn", "stop_sequence": ""}
    yield {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 40}}
    yield {"type": "message_stop"}


def content_chunks() -> Iterator[dict[str, Any]]:
    for written, reason in ((10, None), (50, "STOP")):
        content = {"role": "model", "parts": [{"text": "Hel"}]}
        yield {
            "candidates": [{"content": content, "finishReason": reason}],
            "modelVersion": "gemini-test",
            "usageMetadata": {
                "promptTokenCount": 400,
                "candidatesTokenCount": written,
                "thoughtsTokenCount": 3,
                "totalTokenCount": 403 + written,
            },
        }


def interaction_events() -> Iterator[dict[str, Any]]:
    begun = {**INTERACTION, "status": "in_progress", "steps": [], "usage": None}
    yield {"event_type": "interaction.created", "interaction": begun}
    yield {"event_type": "interaction.completed", "interaction": INTERACTION}


def function_chunks(*, called: bool) -> Iterator[dict[str, Any]]:
    """Ask for a function to be called, and say what has come of it."""
    call = {"functionCall": {"name": "weather", "args": {"city": "Bergen"}}}
    part, read, written = ({"text": "Rain."}, 130, 5) if called else (call, 100, 10)
    for so_far in (1, written):
        yield {
            "responseId": "called" if called else "call",
            "candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}],
            "modelVersion": "gemini-test",
            "usageMetadata": {
                "promptTokenCount": read,
                "candidatesTokenCount": so_far,
                "totalTokenCount": read + so_far,
            },
        }
        part = {"text": ""}


def run_events() -> Iterator[dict[str, Any]]:
    for status, usage in (("queued", None), ("completed", RUN["usage"])):
        run = {**RUN, "status": status, "usage": usage}
        yield {"event": f"thread.run.{status}", "data": run}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(RUN, False)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.partition("?")[0]
        if path.endswith("/images/edits"):  # a form, that has the image
            self._answer(IMAGES, False)
            return
        asked = json.loads(body)
        stream = bool(asked.get("stream")) or path.endswith(":streamGenerateContent")
        if path.endswith("/chat/completions"):
            with_usage = (asked.get("stream_options") or {}).get("include_usage", False)
            [choice] = CHAT["choices"]
            cut = asked.get("max_completion_tokens") == 1
            chat = {**CHAT, "choices": [{**choice, "finish_reason": "length"}]} if cut else CHAT
            self._answer(chat, stream and chat_chunks(with_usage=with_usage), done=True)
        elif path.endswith("/responses"):
            self._answer(RESPONSE, stream and response_events())
        elif path.endswith("/responses/compact"):
            self._answer(COMPACTED, False)
        elif path.endswith("/interactions"):
            self._answer(INTERACTION, stream and interaction_events())
        elif asked.get("tools"):
            called = "functionResponse" in json.dumps(asked["contents"])
            self._answer(CONTENT, stream and function_chunks(called=called))
        elif path.endswith("/runs"):
            self._answer({**RUN, "status": "queued", "usage": None}, stream and run_events())
        elif path.endswith("/embeddings"):
            self._answer(EMBEDDINGS, False)
        elif path.endswith("/messages"):
            self._answer(MESSAGE, stream and message_events())
        else:
            self._answer(CONTENT, stream and content_chunks())

    def _answer(
        self, whole: object, events: Iterator[dict[str, Any]] | bool, *, done: bool = False
    ) -> None:
        if isinstance(events, bool):
            kind, body = "application/json", json.dumps(whole)
        else:
            kind = "text/event-stream"
            body = "".join(
                (f"event: {event['type']}\n" if "type" in event else "")
                + f"data: {json.dumps(event)}\n\n"
                if "event" not in event
                else f"event: {event['event']}\ndata: {json.dumps(event['data'])}\n\n"
                for event in events
            )
            body += "data: [DONE]\n\n" if done else ""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextlib.contextmanager
def models() -> Iterator[str]:
    """Serve, and give the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
