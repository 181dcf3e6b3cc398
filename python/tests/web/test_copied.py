"""Middlewares between the meter and the app that copy the scope, or hide the framework."""

import asyncio
import copy
from typing import Any

import pytest
from serving import billed

from conftest import Connect, Meter
from dodo_ingestion.asgi import MeterMiddleware


async def call(app: Any, path: str, customer: str) -> int:  # noqa: ANN401
    """Make a call as a server does, and give its status."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"x-customer-id", customer.encode())]
    scope = {"type": "http", "method": "GET", "path": path, "headers": headers}
    rest = {"raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http"}
    await app({**scope, **rest, "asgi": {"version": "3.0"}}, receive, send)
    status: int = sent[0]["status"]
    return status


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_scope_can_be_copied(copied: Any, connect: Connect, meter: Meter) -> None:  # noqa: ANN401
    ingestion = connect(account="copied")
    customer = f"cus_copied_{copied.__name__}"

    async def app(scope: Any, _receive: object, send: Any) -> None:  # noqa: ANN401
        scope = {key: copied(value) for key, value in scope.items()}
        scope["dodo_ingestion.exchange"].units = 3
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"all"})

    metered = MeterMiddleware(app, ingestion=ingestion, customer="x-customer-id")
    assert asyncio.run(call(metered, "/", customer)) == 200
    (event,) = billed(meter, ingestion, customer)
    assert event["metadata"]["units"] == 3
