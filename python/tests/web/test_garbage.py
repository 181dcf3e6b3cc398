"""A call that has ended leaves nothing to the garbage collector, which would run more often."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import pytest

from conftest import Connect
from dodo_ingestion import asgi, wsgi

OPTIONS: dict[str, Any] = {"customer": "x-customer-id"}


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


class AsgiServer:
    """Has the scope, as uvicorn's has: what it gives the app leads back to it."""

    def __init__(self) -> None:
        headers = [(b"x-customer-id", b"cus_1")]
        self.scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}

    async def receive(self) -> MutableMapping[str, Any]:
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        pass


class WsgiServer:
    def __init__(self) -> None:
        self.environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_X_CUSTOMER_ID": "cus_1"}

    def start_response(self, *_: object) -> Callable[[bytes], object]:
        return lambda _: None


async def asgi_app(
    _scope: object, _receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]
) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"here"})


def wsgi_app(_environ: object, start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [])
    return [b"here"]


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("is_async", [False, True], ids=["a header", "an async callable"])
def test_under_asgi(connect: Connect, is_async: bool) -> None:
    async def customer(_scope: object) -> str:
        return "cus_1"

    ingestion = connect()
    options = {"customer": customer} if is_async else OPTIONS
    metered = asgi.MeterMiddleware(asgi_app, ingestion=ingestion, **options)
    server = AsgiServer()
    asyncio.run(metered(server.scope, server.receive, server.send))
    assert ingestion.stats()["accepted"] == 1
    left = weakref.ref(server)
    del server
    assert left() is None


@pytest.mark.usefixtures("uncollected")
def test_under_wsgi(connect: Connect) -> None:
    ingestion = connect()
    metered = wsgi.MeterMiddleware(wsgi_app, ingestion=ingestion, **OPTIONS)
    server = WsgiServer()
    assert b"".join(metered(server.environ, server.start_response)) == b"here"
    assert ingestion.stats()["accepted"] == 1
    left = weakref.ref(server)
    del server
    assert left() is None
