"""The header that names the customer, sent twice: one of the two may be the client's own word."""

import contextlib
import http.client
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import grpc
import pytest
from aiohttp_site import aiohttp_app
from asgi_apps import starlette_app
from django_site import django_asgi_app, django_wsgi_app
from serving import WITHIN, aiohttp_server, asgi, billed, open_client, plain_wsgi
from test_grpc import ASYNC, SERVICE, threaded, with_asyncio
from wsgi_apps import flask_app

from conftest import Meter
from dodo_ingestion import Ingestion

SERVERS: dict[str, tuple[Callable[[Any], AbstractContextManager[int]], Callable[..., Any]]] = {
    "asgi": (asgi, starlette_app),
    "wsgi": (plain_wsgi, flask_app),
    "django-asgi": (asgi, django_asgi_app),
    "django-wsgi": (plain_wsgi, django_wsgi_app),
    "aiohttp": (aiohttp_server, aiohttp_app),
}
PATHS = {"django-asgi": "/users/7/", "django-wsgi": "/users/7/"}


@pytest.mark.parametrize("name", SERVERS)
def test_a_header_that_came_twice_names_nobody(name: str, meter: Meter) -> None:
    ingestion = open_client(meter, f"twice-{name}")
    customers = [f"cus_twice_{name}_{number}" for number in range(2)]
    server, make = SERVERS[name]
    with server(make(ingestion)[0]) as port:
        for values in (customers, [",".join(customers)], customers[:1]):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WITHIN)
            with contextlib.closing(connection):
                connection.putrequest("GET", PATHS.get(name, "/users/7"))
                for value in values:
                    connection.putheader("X-Customer-Id", value)
                connection.endheaders()
                assert connection.getresponse().status == 200
    assert_only_the_last(ingestion, meter, customers)


@pytest.mark.parametrize("name", ["grpc", "grpc-aio"])
def test_metadata_that_came_twice_names_nobody(name: str, meter: Meter) -> None:
    ingestion = open_client(meter, f"twice-{name}")
    customers = [f"cus_twice_{name}_{number}" for number in range(2)]
    options: dict[str, Any] = {"customer": "x-customer-id"}
    asynchronous = name == "grpc-aio"
    server = with_asyncio(ASYNC, ingestion, **options) if asynchronous else None
    with (
        server or threaded(ingestion, **options) as port,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        call = channel.unary_unary(f"/{SERVICE}/unary_unary")
        for values in (customers, [",".join(customers)], customers[:1]):
            call(b"", metadata=[("x-customer-id", value) for value in values], timeout=WITHIN)
    assert_only_the_last(ingestion, meter, customers)


def assert_only_the_last(ingestion: Ingestion, meter: Meter, customers: list[str]) -> None:
    counts = [len(billed(meter, ingestion, each)) for each in (*customers, ",".join(customers))]
    assert counts == [1, 0, 0]
    assert ingestion.stats()["accepted"] == 1
    ingestion.close(timeout=WITHIN)
