"""Which of several templates of one function took a request."""

import asyncio

import pytest
from asgi_served import call
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
        app = MeterMiddleware(make(), ingestion=ingestion, customer="x-customer-id")
        assert asyncio.run(call(app, prefix + path, customer, method)) == status
    for event in billed(meter, ingestion, customer):
        assert event["metadata"]["endpoint"] == prefix + template
