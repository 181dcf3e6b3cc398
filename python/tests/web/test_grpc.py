"""gRPC servers, with threads and with asyncio, and real clients of them."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from serving import WAITING, WITHIN, eventually, open_client

from conftest import Meter
from dodo_ingestion import Ingestion
from dodo_ingestion.grpc import AsyncMeterInterceptor, MeterInterceptor, set_customer, set_units

SERVICE = "shop.Orders"


def unary(request: bytes, context: Any) -> bytes:  # noqa: ANN401
    if request == b"not found":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such order")
    if request == b"denied":
        context.set_code(grpc.StatusCode.PERMISSION_DENIED)
    if request == b"boom":
        raise RuntimeError("boom")
    if request == b"marked":
        set_customer(context, "cus_grpc_marked")
        set_units(5)
    if request == b"slow":
        WAITING.set()
        time.sleep(1)
    return request


def stream(request: bytes, _context: Any) -> Iterator[bytes]:  # noqa: ANN401
    number = 0
    while request == b"endless" or number < 3:
        yield b"part "
        number += 1
        time.sleep(0.02)


def collect(requests: Iterator[bytes], _context: Any) -> bytes:  # noqa: ANN401
    return b"".join(requests)


def echo(requests: Iterator[bytes], _context: Any) -> Iterator[bytes]:  # noqa: ANN401
    yield from requests


async def async_unary(request: bytes, context: Any) -> bytes:  # noqa: ANN401
    if request == b"not found":
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such order")
    if request == b"slow":
        WAITING.set()
        await asyncio.sleep(60)
    return unary(request, context)


async def async_stream(request: bytes, _context: Any) -> Any:  # noqa: ANN401
    number = 0
    while request == b"endless" or number < 3:
        yield b"part "
        number += 1
        await asyncio.sleep(0.02)


async def async_collect(requests: Any, _context: Any) -> bytes:  # noqa: ANN401
    return b"".join([each async for each in requests])


async def async_echo(requests: Any, context: Any) -> None:  # noqa: ANN401
    async for each in requests:
        await context.write(each)


def handlers(*behaviors: Callable[..., Any]) -> Any:  # noqa: ANN401
    kinds = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
    methods = {
        kind: getattr(grpc, f"{kind}_rpc_method_handler")(behavior)
        for kind, behavior in zip(kinds, behaviors, strict=True)
    }
    return grpc.method_handlers_generic_handler(SERVICE, methods)


def threaded(ingestion: Ingestion) -> Iterator[int]:
    meter = MeterInterceptor(ingestion=ingestion, customer="x-customer-id")
    server = grpc.server(ThreadPoolExecutor(4), interceptors=[meter])
    server.add_generic_rpc_handlers((handlers(unary, stream, collect, echo),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait(WITHIN)


def with_asyncio(ingestion: Ingestion) -> Iterator[int]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> tuple[Any, int]:
        async def customer(context: Any) -> str | None:  # noqa: ANN401
            await asyncio.sleep(0)
            return dict(context.invocation_metadata()).get("x-customer-id")

        meter = AsyncMeterInterceptor(ingestion=ingestion, customer=customer)
        server = grpc.aio.server(interceptors=[meter])
        behaviors = (async_unary, async_stream, async_collect, async_echo)
        server.add_generic_rpc_handlers((handlers(*behaviors),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    server, port = asyncio.run_coroutine_threadsafe(start(), loop).result(WITHIN)
    yield port
    asyncio.run_coroutine_threadsafe(server.stop(None), loop).result(WITHIN)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(WITHIN)


class Client:
    def __init__(self, channel: Any, name: str, ingestion: Ingestion, meter: Meter) -> None:  # noqa: ANN401
        self.channel = channel
        self.name = name
        self.ingestion = ingestion
        self.meter = meter

    def call(self, kind: str, request: Any, customer: str, method: str = "") -> Any:  # noqa: ANN401
        call = getattr(self.channel, kind)(f"/{SERVICE}/{method or kind}")
        metadata = [("x-customer-id", f"cus_{self.name}_{customer}")]
        return call(request, metadata=metadata, timeout=WITHIN)

    def event(self, customer: str) -> dict[str, Any]:
        def look() -> list[dict[str, Any]]:
            self.ingestion.flush(timeout=WITHIN)
            return self.meter.events(customer)

        (event,) = eventually(look)
        assert isinstance(event, dict)
        return event


@pytest.fixture(scope="module", params=["grpc", "grpc-aio"])
def client(request: pytest.FixtureRequest, meter: Meter) -> Iterator[Client]:
    ingestion = open_client(meter, request.param)
    serving = threaded(ingestion) if request.param == "grpc" else with_asyncio(ingestion)
    port = next(serving)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Client(channel, request.param, ingestion, meter)
    next(serving, None)
    ingestion.close(timeout=WITHIN)


def test_each_kind_of_call_is_billed(client: Client) -> None:
    assert client.call("unary_unary", b"hello", "uu") == b"hello"
    assert b"".join(client.call("unary_stream", b"go", "us")) == b"part part part "
    assert client.call("stream_unary", iter([b"a", b"b"]), "su") == b"ab"
    assert b"".join(client.call("stream_stream", iter([b"a", b"b"]), "ss")) == b"ab"
    kinds = {"uu": "unary_unary", "us": "unary_stream", "su": "stream_unary", "ss": "stream_stream"}
    sizes = {"uu": 5, "us": 15, "su": 2, "ss": 2}
    for short, kind in kinds.items():
        event = client.event(f"cus_{client.name}_{short}")
        metadata = event["metadata"]
        assert event["event_name"] == "api_call"
        assert metadata["endpoint"] == f"/{SERVICE}/{kind}"
        assert (metadata["method"], metadata["status_code"]) == ("POST", 200)
        assert metadata["grpc_status"] == 0
        assert metadata["response_bytes"] == sizes[short]
        assert metadata["ttfb_ms"] <= metadata["response_time_ms"]
        assert "aborted" not in metadata


@pytest.mark.parametrize(
    ("request_", "code", "status", "name"),
    [
        (b"not found", 5, 404, "api_call"),
        (b"denied", 7, 403, "api_error"),
        (b"boom", 2, 500, "api_error"),
    ],
)
def test_a_code_counts_as_its_http_status(
    request_: bytes, code: int, status: int, name: str, client: Client
) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        client.call("unary_unary", request_, f"code_{code}")
    assert raised.value.code().value[0] == code
    event = client.event(f"cus_{client.name}_code_{code}")
    assert event["event_name"] == name
    assert event["metadata"]["status_code"] == status
    assert event["metadata"]["grpc_status"] == code


def test_a_method_that_is_not_there(client: Client) -> None:
    with pytest.raises(grpc.RpcError):
        client.call("unary_unary", b"", "unknown", method="Secret")
    if client.name == "grpc-aio":
        # Its customer is a callable's to say, and there is no context to ask it with.
        return
    event = client.event(f"cus_{client.name}_unknown")
    assert event["event_name"] == "api_error"
    assert event["metadata"]["grpc_status"] == 12
    assert "endpoint" not in event["metadata"]


def test_a_handler_speaks_of_its_call(client: Client) -> None:
    client.meter.get("/events", customer_id="x")
    before = len(client.meter.events("cus_grpc_marked"))
    client.call("unary_unary", b"marked", "not_this_one")

    def look() -> list[dict[str, Any]]:
        client.ingestion.flush(timeout=WITHIN)
        return client.meter.events("cus_grpc_marked")[before:]

    (event,) = eventually(look)
    assert event["metadata"]["units"] == 5


def test_a_client_that_leaves_a_stream(client: Client) -> None:
    responses = client.call("unary_stream", b"endless", "left")
    next(responses)
    responses.cancel()
    event = client.event(f"cus_{client.name}_left")
    assert event["event_name"] == "api_call"
    assert event["metadata"]["aborted"] is True


def test_a_client_that_leaves_before_an_answer(client: Client) -> None:
    call = client.channel.unary_unary(f"/{SERVICE}/unary_unary")
    metadata = [("x-customer-id", f"cus_{client.name}_early")]
    WAITING.clear()
    answer = call.future(b"slow", metadata=metadata)
    assert WAITING.wait(WITHIN)
    answer.cancel()
    event = client.event(f"cus_{client.name}_early")
    assert event["event_name"] == "api_error"
    assert event["metadata"]["aborted"] is True
    assert "status_code" not in event["metadata"]
