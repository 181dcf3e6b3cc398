"""What is said of a call before a meter has it, and words that are hard to show."""

from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any

import django_site  # noqa: F401 - which has the settings
import flask
import pytest
from aiohttp import web
from asgi_served import Asgi
from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpResponse
from django.test import AsyncRequestFactory, RequestFactory
from fastapi import FastAPI
from serving import WITHIN, aiohttp_server, asgi, billed, wsgi
from starlette.requests import Request

from conftest import Connect, Meter, logged
from dodo_ingestion import Ingestion, aiohttp, django
from dodo_ingestion.asgi import MeterMiddleware
from dodo_ingestion.metering import (
    set_customer,
    set_endpoint,
    set_metadata,
    set_units,
    skip_metering,
)
from dodo_ingestion.wsgi import MeterMiddleware as WsgiMiddleware


def get(port: int, path: str) -> int:
    client = HTTPConnection("127.0.0.1", port, timeout=WITHIN)
    try:
        client.request("GET", path)
        response = client.getresponse()
        response.read()
        return response.status
    finally:
        client.close()


def say(request: object, path: str, name: str) -> None:
    set_customer(request, "cus_overruled")
    set_customer(request, f"cus_said_{name}")
    set_units(request, 3)
    set_metadata(request, {"plan": "pro"})
    set_endpoint(request, "/mine")
    if path == "/skipped":
        skip_metering(request)


def by_fastapi(ingestion: Ingestion) -> None:
    app = FastAPI()
    app.add_middleware(MeterMiddleware, ingestion=ingestion)

    @app.middleware("http")
    async def authenticate(request: Request, call_next: Callable[[Any], Any]) -> Any:  # noqa: ANN401
        say(request, request.url.path, "fastapi")
        return await call_next(request)

    @app.get("/{page}")
    async def page(page: str) -> str:
        return page

    with asgi(app) as port:
        assert get(port, "/billed") == get(port, "/skipped") == 200


def by_flask(ingestion: Ingestion) -> None:
    app = flask.Flask(__name__)
    app.add_url_rule("/<page>", view_func=lambda page: page)
    metered = WsgiMiddleware(app.wsgi_app, ingestion=ingestion)

    def authenticate(environ: Any, start_response: Any) -> Any:  # noqa: ANN401
        say(environ, environ["PATH_INFO"], "flask")
        return metered(environ, start_response)

    with wsgi(authenticate) as port:
        assert get(port, "/billed") == get(port, "/skipped") == 200


def by_aiohttp(ingestion: Ingestion) -> None:
    @web.middleware
    async def authenticate(request: web.Request, handler: Any) -> web.StreamResponse:  # noqa: ANN401
        say(request, request.path, "aiohttp")
        response: web.StreamResponse = await handler(request)
        return response

    async def page(_request: web.Request) -> web.Response:
        return web.Response(text="page")

    app = web.Application()
    app.router.add_get("/{page}", page)
    aiohttp.setup(app, ingestion=ingestion)
    app.middlewares.insert(0, authenticate)
    with aiohttp_server(app) as port:
        assert get(port, "/billed") == get(port, "/skipped") == 200


def by_django(ingestion: Ingestion, make: Callable[[str], Any], name: str) -> None:
    settings.DODO_INGESTION = {"ingestion": ingestion}
    metered: Any = django.MeterMiddleware(lambda _request: HttpResponse("page"))
    for path in ("/billed", "/skipped"):
        request = make(path)
        assert isinstance(request, (WSGIRequest, ASGIRequest))
        say(request, path, name)
        metered(request).close()


BY: dict[str, Callable[[Ingestion], None]] = {
    "fastapi": by_fastapi,
    "flask": by_flask,
    "aiohttp": by_aiohttp,
    "django-wsgi": lambda it: by_django(it, RequestFactory().get, "django-wsgi"),
    "django-asgi": lambda it: by_django(it, AsyncRequestFactory().get, "django-asgi"),
}


@pytest.mark.parametrize("name", BY)
def test_a_word_waits_in_the_request_for_the_meter(
    name: str, connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account=f"said-{name}")
    BY[name](ingestion)
    (event,) = billed(meter, ingestion, f"cus_said_{name}")
    metadata = event["metadata"]
    assert (metadata["units"], metadata["plan"], metadata["endpoint"]) == (3, "pro", "/mine")
    assert meter.events("cus_overruled") == []


def test_a_word_without_a_meter_is_nothing() -> None:
    for request in ({"type": "http"}, object(), None):
        say(request, "/skipped", "nobody")
    set_customer("cus_1")


class Shy:
    def __repr__(self) -> str:
        raise RuntimeError("not to be shown")


@pytest.mark.parametrize(
    ("verb", "problem"),
    [
        (set_customer, "set_customer: a Shy is no customer's id"),
        (set_units, "set_units: a Shy is no finite number of 64 bits"),
        (set_metadata, "set_metadata: a Shy is not a mapping"),
        (set_endpoint, "set_endpoint: a Shy is no template"),
    ],
)
def test_a_value_that_cannot_be_shown_reaches_no_handler(
    verb: Callable[..., None],
    problem: str,
    connect: Connect,
    meter: Meter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ingestion = connect(account="shy")
    customer = f"cus_shy_{verb.__name__}"
    served = Asgi(before=lambda scope: verb(scope, Shy()))
    shy: Any = Shy()
    served.serve(ingestion, customer=lambda _: customer, units=lambda _: shy)
    assert len(billed(meter, ingestion, customer)) == 1
    assert any(problem in each for each in logged(caplog))
