"""Django's middleware, with views that do exactly what a test asks for."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import django_site  # noqa: F401 - the settings
import pytest
from django.conf import settings
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from serving import billed

from conftest import Connect, Meter
from dodo_ingestion import Ingestion, django


class LookUp:
    def __init__(self, customer: str) -> None:
        self.customer = customer

    async def __call__(self, _request: object) -> str:
        await asyncio.sleep(0.01)
        return self.customer


CUSTOMERS: dict[str, Callable[[str], Any]] = {
    "function": lambda name: LookUp(name).__call__,
    "object": LookUp,
    "returned": lambda name: lambda request: LookUp(name)(request),
    "plain": lambda name: lambda _request: name,
}


def metered(view: Callable[[Any], Any], ingestion: Ingestion, customer: object) -> Any:  # noqa: ANN401
    settings.DODO_INGESTION = {"ingestion": ingestion, "customer": customer}
    return django.MeterMiddleware(view)


def get() -> HttpRequest:
    request = HttpRequest()
    request.method, request.path_info = "GET", "/"
    return request


@pytest.mark.parametrize("kind", CUSTOMERS)
def test_a_customer_is_awaited_without_an_event_loop(
    kind: str, connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="django-sync")
    name = f"cus_django_sync_{kind}"

    def fail(_request: object) -> HttpResponse:
        raise RuntimeError("broken on purpose")

    views: list[Callable[[Any], Any]] = [
        lambda _: HttpResponse(b"ok"),
        lambda _: StreamingHttpResponse(iter([b"some"])),
    ]
    for view in views:
        response = metered(view, ingestion, CUSTOMERS[kind](name))(get())
        assert b"".join(response)
        response.close()
    with pytest.raises(RuntimeError):
        metered(fail, ingestion, CUSTOMERS[kind](name))(get())
    events = billed(meter, ingestion, name)
    assert sorted(event["event_name"] for event in events) == ["api_call", "api_call", "api_error"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_response_that_cannot_be_read_is_billed(
    asynchronous: bool, connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="django-unread")
    name = f"cus_django_unread_{asynchronous}"
    answered = SimpleNamespace(status_code=200)

    async def later(_request: object) -> object:
        return answered

    view = later if asynchronous else lambda _: answered
    response = metered(view, ingestion, lambda _: name)(get())
    assert (asyncio.run(response) if asynchronous else response) is answered
    (event,) = billed(meter, ingestion, name)
    assert event["event_name"] == "api_call"


@pytest.mark.parametrize("length", [8, 9])
def test_a_stream_of_a_declared_length_is_metered_when_it_is_whole(
    length: int, connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="django-declared")
    customer = f"cus_django_declared_{length}"

    def view(_request: object) -> StreamingHttpResponse:
        headers = {"Content-Length": str(length)}
        return StreamingHttpResponse(iter([b"four", b"four"]), headers=headers)

    before = ingestion.stats()["accepted"]
    response = metered(view, ingestion, lambda _: customer)(get())
    seen = [(chunk, ingestion.stats()["accepted"] - before) for chunk in response]
    assert seen == [(b"four", 0), (b"four", int(length == 8))]
    response.close()
    (event,) = billed(meter, ingestion, customer)
    assert event["metadata"]["response_bytes"] == 8
    assert "aborted" not in event["metadata"]
