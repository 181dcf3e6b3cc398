"""Calls whose task is cancelled, in the handler or while it is looked up who is billed for them."""

import asyncio
import contextvars
import http.client
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import anyio
import django_site  # noqa: F401 - the settings
import pytest
import trio
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from anyio import to_thread
from django.conf import settings
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from serving import WAITING, WITHIN, Site, aiohttp_server, billed

from conftest import Connect, Meter
from dodo_ingestion import aiohttp, django
from dodo_ingestion._exchange import Exchange
from dodo_ingestion._metering import Metering
from dodo_ingestion.asgi import MeterMiddleware


async def the_rest() -> None:
    """Wait for the other tasks."""
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))


def test_a_cancelled_call_waits_for_its_customer(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="cancelled")

    async def customer(_scope: object) -> str:
        await asyncio.sleep(0.01)
        return "cus_cancelled"

    async def app(_scope: Any, _receive: Any, send: Any) -> None:  # noqa: ANN401
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"some", "more_body": True})
        await asyncio.sleep(60)

    metered: Any = MeterMiddleware(app, ingestion=ingestion, customer=customer)

    async def main() -> None:
        async def send(_message: object) -> None:
            pass

        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        task = asyncio.create_task(metered(scope, None, send))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await the_rest()

    asyncio.run(main())
    (event,) = billed(meter, ingestion, "cus_cancelled")
    assert event["metadata"]["aborted"] is True
    assert event["event_name"] == "api_call"


class Slow:
    """A look-up that takes long, the first time or each time."""

    def __init__(self, customer: str, sleep: Callable[[float], Awaitable[object]]) -> None:
        self.customer = customer
        self.sleep = sleep
        self.asked = 0

    async def __call__(self, _request: object) -> str:
        self.asked += 1
        WAITING.set()
        await self.sleep(60 if self.asked == 1 else 0.01)
        return self.customer


async def answered(_scope: Any, _receive: Any, send: Any) -> None:  # noqa: ANN401
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"all"})


async def nowhere(_message: object) -> None:
    pass


def scope() -> dict[str, Any]:
    return {"type": "http", "method": "GET", "path": "/", "headers": []}


def test_a_look_up_that_is_cancelled_is_made_again(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="again")
    customer = Slow("cus_again", asyncio.sleep)
    metered: Any = MeterMiddleware(answered, ingestion=ingestion, customer=customer)

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(metered(scope(), None, nowhere), 0.05)
        await the_rest()

    asyncio.run(main())
    (event,) = billed(meter, ingestion, "cus_again")
    assert customer.asked == 2
    assert event["event_name"] == "api_call"
    assert event["metadata"]["aborted"] is True


def test_a_look_up_that_the_end_of_the_loop_cancels(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="loop-ends")
    default: Any = {"default": "cus_loop_ends"}

    async def customer(_scope: object) -> str:
        await asyncio.sleep(60)
        return "cus_never"

    metered: Any = MeterMiddleware(
        answered, ingestion=ingestion, customer=customer, on_missing_customer=default
    )

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(metered(scope(), None, nowhere), 0.05)

    asyncio.run(main())
    assert len(billed(meter, ingestion, "cus_loop_ends")) == 1


def test_a_task_that_is_cancelled_before_it_begins(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="unbegun")
    default: Any = {"default": "cus_unbegun"}

    async def customer(_scope: object) -> str:
        await asyncio.sleep(60)
        return "cus_never"

    options = {"customer": customer, "on_missing_customer": default}
    metering = Metering(ingestion, options, header=lambda _: lambda _: None, asynchronous=True)

    async def main() -> None:
        call = Exchange(metering, scope(), "GET", "/")
        call.begin(200)
        metering.finish_later(call)
        assert call.finishing is not None
        call.finishing.cancel()

    asyncio.run(main())
    assert len(billed(meter, ingestion, "cus_unbegun")) == 1


async def endless(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401
    """Answer for ever, in a task within, as Starlette's `BaseHTTPMiddleware` does."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return

    async def answer() -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        WAITING.set()
        await anyio.sleep(60)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_the_end_of_a_server_waits_for_the_calls_that_it_cancels(
    loop: str, connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="server-ends", linger=300, exit_timeout=WITHIN)
    name = f"cus_server_ends_{loop}"

    async def customer(_scope: object) -> str:
        await anyio.sleep(0.1)
        return name

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.shutdown"}

    metered: Any = MeterMiddleware(endless, ingestion=ingestion, customer=customer)
    WAITING.clear()

    async def on_asyncio() -> None:
        task = asyncio.create_task(metered(scope(), receive, nowhere))
        assert await to_thread.run_sync(WAITING.wait, WITHIN)
        # As uvicorn does when its graceful time is over.
        task.cancel()
        await metered({"type": "lifespan"}, receive, nowhere)

    async def on_trio() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(metered, scope(), receive, nowhere)
            assert await to_thread.run_sync(WAITING.wait, WITHIN)
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await metered({"type": "lifespan"}, receive, nowhere)

    if loop == "asyncio":
        asyncio.run(on_asyncio())
    else:
        trio.run(on_trio)
    (event,) = meter.events(name)
    assert event["metadata"]["aborted"] is True


def test_a_call_that_does_not_end_leaves_time_to_bill_the_others(
    connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="never-ends", linger=300, exit_timeout=16)
    ingestion.track(customer_id="cus_never_ends")

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.shutdown"}

    metered: Any = MeterMiddleware(endless, ingestion=ingestion)
    WAITING.clear()

    async def main() -> None:
        task = asyncio.create_task(metered(scope(), receive, nowhere))
        assert await to_thread.run_sync(WAITING.wait, WITHIN)
        await metered({"type": "lifespan"}, receive, nowhere)
        task.cancel()

    asyncio.run(main())
    assert len(meter.events("cus_never_ends")) == 1


@pytest.mark.parametrize("begun", [False, True])
def test_a_call_that_trio_cancels(begun: bool, connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="trio")
    name = f"cus_trio_{begun}"

    async def app(_scope: Any, _receive: Any, send: Any) -> None:  # noqa: ANN401
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await trio.sleep(60)

    async def customer(_scope: object) -> str:
        await trio.sleep(0.01)
        return name

    metered: Any = MeterMiddleware(app, ingestion=ingestion, customer=customer)

    async def main() -> None:
        with trio.move_on_after(0.05) as cancelling:
            await metered(scope(), None, nowhere)
        assert cancelling.cancelled_caught

    trio.run(main)
    (event,) = billed(meter, ingestion, name)
    assert event["event_name"] == ("api_call" if begun else "api_error")
    assert event["metadata"]["aborted"] is True
    assert event["metadata"].get("status_code") == (200 if begun else None)


def test_a_look_up_that_trio_cancels_is_made_again(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="trio-again")
    customer = Slow("cus_trio_again", trio.sleep)
    metered: Any = MeterMiddleware(answered, ingestion=ingestion, customer=customer)

    async def main() -> None:
        with trio.move_on_after(0.05):
            await metered(scope(), None, nowhere)

    trio.run(main)
    assert len(billed(meter, ingestion, "cus_trio_again")) == 1


@pytest.mark.parametrize("name", ["cus_django_look_up", "cus_django_handler"])
def test_a_call_of_django_s_that_is_cancelled(name: str, connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="django-cancelled")
    customer = Slow(name, asyncio.sleep)
    settings.DODO_INGESTION = {"ingestion": ingestion, "customer": customer}

    async def answer(_request: HttpRequest) -> HttpResponse:
        if name == "cus_django_handler":
            customer.asked += 1
            await asyncio.sleep(60)
        return HttpResponse(b"ok")

    metered: Any = django.MeterMiddleware(answer)
    request = HttpRequest()
    request.method, request.path_info = "GET", "/"

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(metered(request), 0.05)
        await the_rest()

    asyncio.run(main())
    (event,) = billed(meter, ingestion, name)
    assert event["metadata"]["aborted"] is True
    in_handler = name == "cus_django_handler"
    assert event["metadata"].get("status_code") == (None if in_handler else 200)


def test_a_client_of_aiohttp_that_leaves_during_the_look_up(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="aiohttp-cancelled")
    customer = Slow("cus_aiohttp_look_up", asyncio.sleep)

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_get("/", answer)
    aiohttp.setup(app, ingestion=ingestion, customer=customer)
    with aiohttp_server(app, handler_cancellation=True) as port:
        site = Site("aiohttp-cancelled", port, ingestion, meter)
        site.leave("/", "nobody")
        event = site.event("cus_aiohttp_look_up")
    assert event["metadata"]["aborted"] is True
    assert customer.asked == 2


def test_the_end_of_an_aiohttp_server_waits_for_the_calls_that_it_cancels(
    connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="aiohttp-ends", exit_timeout=WITHIN)

    async def customer(_request: web.Request) -> str:
        await asyncio.sleep(0.1)
        return "cus_aiohttp_ends"

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"some")
        await asyncio.sleep(60)
        return response

    app = web.Application()
    app.router.add_get("/", answer)
    aiohttp.setup(app, ingestion=ingestion, customer=customer)
    with aiohttp_server(app) as port:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        client.request("GET", "/")
        response = client.getresponse()
    client.close()
    response.close()
    (event,) = billed(meter, ingestion, "cus_aiohttp_ends")
    assert event["metadata"]["aborted"] is True


class Never:
    def __await__(self) -> Generator[None, None, None]:
        yield


async def unanswered(*_request: object) -> Any:  # noqa: ANN401
    await Never()


def under_asgi(options: dict[str, Any]) -> Coroutine[Any, Any, Any]:
    return MeterMiddleware(unanswered, **options)(scope(), unanswered, nowhere)


def under_aiohttp(options: dict[str, Any]) -> Coroutine[Any, Any, Any]:
    app = web.Application()
    aiohttp.setup(app, **options)
    request: Any = make_mocked_request("GET", "/", app=app)
    request.match_info.route.resource = None
    metered: Any = app.middlewares[0]
    call: Coroutine[Any, Any, Any] = metered(request, unanswered)
    return call


def under_django(options: dict[str, Any]) -> Coroutine[Any, Any, Any]:
    settings.DODO_INGESTION = options
    request = HttpRequest()
    request.method, request.path_info = "GET", "/"
    call: Coroutine[Any, Any, Any] = django.MeterMiddleware(unanswered)(request)
    return call


@pytest.mark.parametrize("call", [under_asgi, under_aiohttp, under_django])
def test_a_call_that_is_thrown_away_in_another_context(
    call: Callable[[dict[str, Any]], Coroutine[Any, Any, Any]], connect: Connect, meter: Meter
) -> None:
    # As one that is pending when its loop is closed.
    ingestion = connect(account="thrown-away")
    default: Any = {"default": f"cus_thrown_away_{call.__name__}"}
    pending = call({"ingestion": ingestion, "on_missing_customer": default})
    contextvars.copy_context().run(pending.send, None)
    pending.close()
    (event,) = billed(meter, ingestion, default["default"])
    assert event["metadata"]["aborted"] is True


@pytest.mark.parametrize(("method", "aborted"), [("GET", True), ("HEAD", False)])
def test_a_stream_of_django_s_that_is_closed_before_it_began(
    method: str, aborted: bool, connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="django-closed")
    name = f"cus_django_closed_{method}"
    settings.DODO_INGESTION = {"ingestion": ingestion, "customer": lambda _request: name}
    metered: Any = django.MeterMiddleware(lambda _: StreamingHttpResponse(iter([b"some"])))
    request = HttpRequest()
    request.method, request.path_info = method, "/"
    response = metered(request)
    response.close()
    (event,) = billed(meter, ingestion, name)
    assert event["metadata"].get("aborted", False) == aborted
    assert event["metadata"]["status_code"] == 200
