"""gRPC servers, with threads and with asyncio, and real clients of them."""

import asyncio
import contextlib
import functools
import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from serving import GRPC, WAITING, WITHIN, eventually, open_client

from conftest import Connect, Meter
from dodo_ingestion import Ingestion
from dodo_ingestion._exchange import current
from dodo_ingestion._grpc_call import http_status
from dodo_ingestion.grpc import AsyncMeterInterceptor, MeterInterceptor, set_customer, set_units

SERVICE = "shop.Orders"
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")

BILLED = threading.Event()
"""Set when the call of a client that has left is billed, for whose handler nobody waits."""


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
        assert BILLED.wait(WITHIN)
    return request


def stream(request: bytes, context: Any) -> Iterator[bytes]:  # noqa: ANN401
    if request == b"denied":
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
    number = 0
    while request == b"endless" or number < 3:
        yield request if request in (b"unserializable", b"at once") else b"part "
        number += 1
        if request != b"at once":
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


async def async_stream(request: bytes, context: Any) -> Any:  # noqa: ANN401
    if request == b"denied":
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
    number = 0
    while request == b"endless" or number < 3:
        yield request if request == b"unserializable" else b"part "
        number += 1
        await asyncio.sleep(0.02)


async def async_collect(requests: Any, _context: Any) -> bytes:  # noqa: ANN401
    return b"".join([each async for each in requests])


async def async_echo(requests: Any, context: Any) -> None:  # noqa: ANN401
    async for each in requests:
        await context.write(each)


SYNC = (unary, stream, collect, echo)
ASYNC = (async_unary, async_stream, async_collect, async_echo)


def serialized(message: bytes) -> bytes:
    if message == b"unserializable":
        raise ValueError("no such message")
    if message == b"at once":
        time.sleep(0.05)
    return message


def handlers(*behaviors: Callable[..., Any]) -> Any:  # noqa: ANN401
    methods = {
        kind: getattr(grpc, f"{kind}_rpc_method_handler")(behavior, response_serializer=serialized)
        for kind, behavior in zip(KINDS, behaviors, strict=True)
    }
    return grpc.method_handlers_generic_handler(SERVICE, methods)


@contextlib.contextmanager
def threaded(ingestion: Ingestion, meters: int = 1, **options: Any) -> Iterator[int]:  # noqa: ANN401
    interceptors = [MeterInterceptor(ingestion=ingestion, **options) for _ in range(meters)]
    server = grpc.server(ThreadPoolExecutor(4), interceptors=interceptors)
    server.add_generic_rpc_handlers((handlers(*SYNC),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait(WITHIN)


@contextlib.contextmanager
def with_asyncio(
    behaviors: tuple[Callable[..., Any], ...],
    ingestion: Ingestion,
    meters: int = 1,
    **options: Any,  # noqa: ANN401
) -> Iterator[int]:
    loop = asyncio.new_event_loop()
    reported: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    pool = ThreadPoolExecutor(4, thread_name_prefix=f"handler-{id(loop)}-")

    async def start() -> tuple[Any, int]:
        interceptors = [
            AsyncMeterInterceptor(ingestion=ingestion, **options) for _ in range(meters)
        ]
        server = grpc.aio.server(migration_thread_pool=pool, interceptors=interceptors)
        server.add_generic_rpc_handlers((handlers(*behaviors),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    async def stop() -> None:
        await server.stop(None)
        pool.shutdown(wait=False)
        # A thread whose client has left hands its message to a task that nobody waits for.
        while any(each.name.startswith(f"handler-{id(loop)}-") for each in threading.enumerate()):
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0.01)

    server, port = asyncio.run_coroutine_threadsafe(start(), loop).result(WITHIN)
    yield port
    asyncio.run_coroutine_threadsafe(stop(), loop).result(WITHIN)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(WITHIN)
    loop.close()
    # gRPC waits for no thread whose client has left. What is left of it is reported here, not
    # wherever the garbage is collected: amid a parse of Python the report, a parse itself, fails.
    gc.collect()
    left = (asyncio.CancelledError, grpc.aio.UsageError)
    assert [each for each in reported if not isinstance(each.get("exception"), left)] == []


async def look_up(context: Any) -> str | None:  # noqa: ANN401
    await asyncio.sleep(0.01)
    # Also where the call is over by now.
    assert context.peer().startswith("ipv4:127.0.0.1:")
    assert context.auth_context() is not None
    return dict(context.invocation_metadata()).get("x-customer-id")


# An asyncio server with handlers for threads: of old services, and of each kind of customer.
SERVERS: dict[str, tuple[Any, Any]] = {
    "grpc": (threaded, "x-customer-id"),
    "grpc-aio": (functools.partial(with_asyncio, ASYNC), look_up),
    "grpc-aio-sync": (functools.partial(with_asyncio, SYNC), "x-customer-id"),
    "grpc-aio-sync-asked": (functools.partial(with_asyncio, SYNC), look_up),
}


class Client:
    def __init__(self, channel: Any, name: str, ingestion: Ingestion, meter: Meter) -> None:  # noqa: ANN401
        self.channel = channel
        self.name = name
        self.ingestion = ingestion
        self.meter = meter

    def call(self, kind: str, request: Any, customer: str, method: str = "") -> Any:  # noqa: ANN401
        call = getattr(self.channel, kind)(f"/{SERVICE}/{method or kind}")
        metadata = [("x-customer-id", f"cus_{self.name}_{customer}")] if customer else None
        return call(request, metadata=metadata, timeout=WITHIN)

    def event(self, customer: str) -> dict[str, Any]:
        def look() -> list[dict[str, Any]]:
            self.ingestion.flush(timeout=WITHIN)
            return self.meter.events(customer)

        (event,) = eventually(look)
        assert isinstance(event, dict)
        return event


@contextlib.contextmanager
def opened(name: str, account: str, meter: Meter, **options: Any) -> Iterator[Client]:  # noqa: ANN401
    ingestion = open_client(meter, account)
    server, customer = SERVERS[name]
    with (
        server(ingestion, customer=customer, **options) as port,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield Client(channel, account, ingestion, meter)
    ingestion.close(timeout=WITHIN)


@pytest.fixture(scope="module", params=list(SERVERS))
def client(request: pytest.FixtureRequest, meter: Meter) -> Iterator[Client]:
    with opened(request.param, request.param, meter) as client:
        yield client


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


def test_the_shared_statuses_are_those_of_the_codes() -> None:
    assert list(GRPC) == [str(code.value[0]) for code in grpc.StatusCode]
    assert {code: http_status(int(code)) for code in GRPC} == GRPC


def test_a_stream_that_is_aborted_has_its_code(client: Client) -> None:
    with pytest.raises(grpc.RpcError):
        list(client.call("unary_stream", b"denied", "aborted"))
    event = client.event(f"cus_{client.name}_aborted")
    assert event["event_name"] == "api_error"
    assert event["metadata"]["grpc_status"] == 7
    assert "aborted" not in event["metadata"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_response_that_cannot_be_serialized_is_an_error(kind: str, client: Client) -> None:
    customer = f"unserializable_{kind}"
    request: Any = b"unserializable"
    with pytest.raises(grpc.RpcError) as raised:
        list(client.call(kind, iter([request]) if kind.startswith("stream") else request, customer))
    code = raised.value.code().value[0]
    assert code in (2, 13)
    event = client.event(f"cus_{client.name}_{customer}")
    assert event["event_name"] == "api_error"
    assert event["metadata"]["status_code"] == 500
    assert event["metadata"]["grpc_status"] == code


def test_a_method_that_is_not_there(client: Client) -> None:
    with pytest.raises(grpc.RpcError):
        client.call("unary_unary", b"", "unknown", method="Secret")
    if SERVERS[client.name][1] is look_up:
        # There is no context that the callable could be given: only the next call is billed.
        client.call("unary_unary", b"", "unknown")
        assert client.event(f"cus_{client.name}_unknown")["metadata"]["grpc_status"] == 0
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
    BILLED.clear()
    answer = call.future(b"slow", metadata=metadata)
    assert WAITING.wait(WITHIN)
    answer.cancel()
    event = client.event(f"cus_{client.name}_early")
    BILLED.set()
    assert event["event_name"] == "api_error"
    assert event["metadata"]["aborted"] is True
    assert "status_code" not in event["metadata"]


@pytest.mark.parametrize("name", ["grpc", "grpc-aio-sync", "grpc-aio-sync-asked"])
def test_a_handler_that_is_ahead_of_its_messages(name: str, meter: Meter) -> None:
    account = f"ahead-{name}"
    with opened(name, account, meter) as client:
        for number in range(3):
            received = list(client.call("unary_stream", b"at once", f"{number}"))
            assert received == [b"at once"] * 3
            metadata = client.event(f"cus_{account}_{number}")["metadata"]
            assert metadata["response_bytes"] == 21
            assert (metadata["grpc_status"], metadata.get("aborted")) == (0, None)


@pytest.mark.parametrize("name", SERVERS)
def test_in_development_a_missing_customer_is_an_error(name: str, meter: Meter) -> None:
    account = f"raise-{name}"
    with opened(name, account, meter, on_missing_customer="raise") as client:
        for kind in KINDS:
            request = iter([b"a"]) if kind.startswith("stream") else b"a"
            received: list[Any] = []
            with pytest.raises(grpc.RpcError) as raised:
                received.extend(client.call(kind, request, ""))
            assert raised.value.code() is grpc.StatusCode.UNKNOWN
            assert received == []
            request = iter([b"a"]) if kind.startswith("stream") else b"a"
            assert list(client.call(kind, request, kind))
            assert client.event(f"cus_{account}_{kind}")["event_name"] == "api_call"


def test_a_stream_that_is_thrown_away_leaves_other_calls_alone(connect: Connect) -> None:
    interceptor = MeterInterceptor(ingestion=connect())
    handler = grpc.unary_stream_rpc_method_handler(stream)
    details = SimpleNamespace(method=f"/{SERVICE}/unary_stream", invocation_metadata=())
    context = SimpleNamespace(add_callback=lambda _callback: True, code=lambda: None)
    responses = []
    for _ in range(2):
        metered = interceptor.intercept_service(lambda _details: handler, details)
        responses.append(metered.unary_stream(b"endless", context))
        next(responses[-1])
    serving = current.get()
    responses[0].close()
    assert current.get() is serving is not None
    responses[1].close()
    assert current.get() is None


def test_a_handler_with_a_callback_holds_no_thread(connect: Connect, meter: Meter) -> None:
    """As that of grpc's own health service, whose clients watch for as long as they live."""
    sends: list[Callable[[Any], None]] = []

    def watch(request: bytes, _context: Any, send: Callable[[Any], None]) -> None:  # noqa: ANN401
        sends.append(send)  # before the client has its answer, and goes on
        send(request)

    watch.experimental_non_blocking = True  # type: ignore[attr-defined]
    ingestion = connect()
    meter_of = MeterInterceptor(ingestion=ingestion, customer="x-customer-id")
    server = grpc.server(ThreadPoolExecutor(1), interceptors=[meter_of])
    methods = {"Watch": grpc.unary_stream_rpc_method_handler(watch)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Health", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_stream("/Health/Watch")
        for_all = [
            call(b"up", metadata=[("x-customer-id", f"cus_watch_{number}")], timeout=WITHIN)
            for number in range(3)
        ]
        assert [next(each) for each in for_all] == [b"up"] * 3
        for send in list(sends):
            send(b"down")
            send(None)
        assert [list(each) for each in for_all] == [[b"down"]] * 3
    server.stop(None).wait(WITHIN)
    ingestion.flush(timeout=WITHIN)
    for number in range(3):
        (event,) = meter.events(f"cus_watch_{number}")
        assert event["metadata"]["response_bytes"] == 6
        assert event["metadata"]["grpc_status"] == 0


def test_an_asyncio_handler_may_return_nothing(meter: Meter) -> None:
    async def nothing(_request: bytes, _context: Any) -> None:  # noqa: ANN401
        """Answer as the server does without a meter: with an empty message."""

    async def call() -> bytes:
        interceptor = AsyncMeterInterceptor(ingestion=ingestion, customer="x-customer-id")
        server = grpc.aio.server(interceptors=[interceptor])
        methods = {"Nothing": grpc.unary_unary_rpc_method_handler(nothing)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Shop", methods),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            metadata = (("x-customer-id", "cus_nothing"),)
            answer = await channel.unary_unary("/Shop/Nothing")(b"", metadata=metadata)
        await server.stop(WITHIN)
        return bytes(answer)

    ingestion = open_client(meter, "nothing")
    assert asyncio.run(call()) == b""
    ingestion.close(timeout=WITHIN)
    (event,) = meter.events("cus_nothing")
    assert event["metadata"]["grpc_status"] == 0


@pytest.mark.parametrize("name", SERVERS)
def test_a_call_that_passes_two_meters_makes_one_event(name: str, meter: Meter) -> None:
    account = f"twice-{name}"
    with opened(name, account, meter, meters=2) as client:
        for kind in KINDS:
            request = iter([b"a"]) if kind.startswith("stream") else b"a"
            assert list(client.call(kind, request, kind))
        for kind in KINDS:
            client.event(f"cus_{account}_{kind}")
