"""An app that is started again, with a client of its own each time."""

import contextlib
from collections.abc import AsyncIterator
from http.client import HTTPConnection

import pytest
from fastapi import FastAPI
from serving import WITHIN, asgi

from conftest import Connect, Meter, logged
from dodo_ingestion import Ingestion
from dodo_ingestion.asgi import MeterMiddleware


def call(port: int, customer: str) -> None:
    client = HTTPConnection("127.0.0.1", port, timeout=WITHIN)
    client.request("GET", "/page", headers={"x-customer-id": customer})
    assert client.getresponse().read() == b'"page"'
    client.close()


def test_a_client_that_was_closed_is_asked_for_again(
    connect: Connect, meter: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    clients: list[Ingestion] = []

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        clients.append(connect(account="restarted"))
        async with clients[-1]:
            yield

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(MeterMiddleware, ingestion=lambda: clients[-1], customer="x-customer-id")

    @app.get("/page")
    async def page() -> str:
        return "page"

    for start in range(3):
        with asgi(app) as port:
            call(port, f"cus_restarted_{start}")
        assert len(meter.events(f"cus_restarted_{start}")) == 1
    assert not any("will not be billed" in each for each in logged(caplog))


def test_a_client_that_stays_closed_is_logged(
    connect: Connect, meter: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    closed = connect(account="stays-closed")
    closed.close(timeout=WITHIN)
    app = FastAPI()
    app.add_middleware(MeterMiddleware, ingestion=lambda: closed, customer="x-customer-id")

    @app.get("/page")
    async def page() -> str:
        return "page"

    with asgi(app) as port:
        for _ in range(2):
            call(port, "cus_stays_closed")
    (told,) = (each for each in logged(caplog) if "will not be billed" in each)
    assert "closed" in told
    assert meter.events("cus_stays_closed") == []
