"""Which of several templates of one function took a request."""

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI
from serving import billed
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from conftest import Connect, Meter
from dodo_ingestion.asgi import MeterMiddleware


def fastapi_app() -> FastAPI:
    app = FastAPI()

    @app.post("/items/bulk")
    @app.get("/items/{item}")
    @app.delete("/items/{item}")
    async def answer(item: str = "") -> str:
        return item

    return app


def starlette_app() -> Starlette:
    async def answer(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("here")

    routes = [
        Route("/items/{item}", answer, methods=["GET"]),
        Route("/items/{item}", answer, methods=["DELETE"]),
        Route("/items/bulk", answer, methods=["POST"]),
    ]
    return Starlette(routes=[*routes, Mount("/below", routes=routes)])


async def call(app: Any, method: str, path: str) -> int:  # noqa: ANN401
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [],
        "root_path": "",
    }
    await app(scope, receive, send)
    status: int = sent[0]["status"]
    return status


@pytest.mark.parametrize("prefix", ["", "/below"])
@pytest.mark.parametrize(
    ("method", "path", "template", "status"),
    [
        ("GET", "/items/7", "/items/{item}", 200),
        ("GET", "/items/bulk", "/items/{item}", 200),
        ("DELETE", "/items/bulk", "/items/{item}", 200),
        ("POST", "/items/bulk", "/items/bulk", 200),
        ("PUT", "/items/bulk", "/items/{item}", 405),
    ],
)
def test_the_template_is_that_of_the_method(
    method: str, path: str, template: str, status: int, prefix: str, connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="by-method")
    customer = f"cus_{method}_{path}_{prefix}"
    for make in (fastapi_app, starlette_app):
        if prefix and make is fastapi_app:
            continue
        app = MeterMiddleware(make(), ingestion=ingestion, customer=lambda _scope: customer)
        assert asyncio.run(call(app, method, prefix + path)) == status
    for event in billed(meter, ingestion, customer):
        assert event["metadata"]["endpoint"] == prefix + template
