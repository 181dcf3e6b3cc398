"""Django's middleware, with views that do exactly what a test asks for."""

import asyncio
import io
import threading
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import django_site
import pytest
from asgiref.sync import ThreadSensitiveContext
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncRequestFactory
from django.utils.asyncio import async_unsafe
from serving import Site, asgi, billed, plain_wsgi, wsgi

from conftest import Connect, Meter
from dodo_ingestion import Ingestion, django
from dodo_ingestion.asgi import MeterMiddleware as AsgiMiddleware
from dodo_ingestion.errors import ConfigurationError
from dodo_ingestion.metering import set_customer
from dodo_ingestion.wsgi import MeterMiddleware as WsgiMiddleware


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


def stored(value: object) -> Any:  # noqa: ANN401
    """Make a callable that Django guards as it does its database."""
    return async_unsafe(lambda _request: value)


def served(ingestion: Ingestion, **options: object) -> Any:  # noqa: ANN401
    settings.DODO_INGESTION = {"ingestion": ingestion, **options}
    return asgi(get_asgi_application(), lifespan="off")


@pytest.mark.parametrize("path", ["/users/7/", "/later/7/", "/stream", "/boom"])
@pytest.mark.parametrize("awaited", [False, True])
def test_callables_may_use_the_database_under_asgi(
    awaited: bool, path: str, connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="django-database")
    name = f"cus_django_database_{awaited}_{path.strip('/')}"
    options: dict[str, Any] = {
        "customer": LookUp(name) if awaited else stored(name),
        "skip": stored(value=False),
        "metadata": stored({"plan": "gold"}),
        "units": stored(7),
        "endpoint": stored("/stored"),
    }
    with served(ingestion, **options) as port:
        Site("django-database", port, ingestion, meter).call("GET", path)
    (event,) = billed(meter, ingestion, name)
    assert event["event_name"] == ("api_error" if path == "/boom" else "api_call")
    metadata = event["metadata"]
    assert (metadata["plan"], metadata["units"]) == ("gold", 7)
    assert metadata["endpoint"] == "/stored"
    assert "aborted" not in metadata


def test_what_the_database_says_to_skip_makes_no_event(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="django-skips")
    with served(ingestion, customer="x-customer-id", skip=stored(value=True)) as port:
        site = Site("django-skips", port, ingestion, meter)
        for path in ("/users/7/", "/later/7/", "/stream"):
            assert site.call("GET", path, "cus_django_skips")[0] == 200
    assert billed(meter, ingestion, "cus_django_skips") == []


def test_a_missing_customer_of_the_database_is_raised(connect: Connect) -> None:
    ingestion = connect(account="django-raises")
    options = {"customer": stored(None), "on_missing_customer": "raise"}
    with served(ingestion, **options) as port:
        site = Site("django-raises", port, ingestion, None)  # type: ignore[arg-type]
        assert site.call("GET", "/later/7/")[0] == 500


def test_a_client_that_leaves_is_found_in_the_database(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="django-left")
    options = {"customer": stored("cus_django_left"), "units": stored(7)}
    with served(ingestion, **options) as port:
        site = Site("django-left", port, ingestion, meter)
        site.leave("/endless", "nobody", after=b"more")
        streamed = site.event("cus_django_left")
        site.leave("/patient", "nobody")
        both = site.events("cus_django_left", 2)
    (waited,) = (event for event in both if event["event_name"] == "api_error")
    for event in (streamed, waited):
        assert event["metadata"]["aborted"] is True
        assert event["metadata"]["units"] == 7


@pytest.mark.parametrize("option", ["customer", "units"])
def test_a_question_that_is_cancelled_is_not_asked_again(
    option: str, connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="django-asked")
    name = f"cus_django_asked_{option}"
    asked: list[int] = []

    def slow(_request: object) -> object:
        asked.append(threading.get_ident())
        time.sleep(0.2)
        return name if option == "customer" else 7

    async def view(request: object) -> HttpResponse:
        if option == "units":
            set_customer(request, name)
        return HttpResponse(b"ok")

    settings.DODO_INGESTION = {"ingestion": ingestion, option: slow}
    request = get()
    response = django.MeterMiddleware(view)(request)

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(response, 0.05)

    asyncio.run(main())
    assert len(billed(meter, ingestion, name)) == 1
    assert len(asked) == 1
    assert asked != [threading.get_ident()]


def test_a_stream_that_outlives_its_request_s_thread(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="django-outlives")

    async def chunks() -> AsyncIterator[bytes]:
        while True:
            yield b"some"
            await asyncio.sleep(0)

    async def view(_request: object) -> StreamingHttpResponse:
        return StreamingHttpResponse(chunks())

    units = stored(7)
    customer = "cus_django_outlives"
    settings.DODO_INGESTION = {"ingestion": ingestion, "customer": stored(customer), "units": units}

    async def main() -> None:
        async def send() -> None:
            async for _ in await django.MeterMiddleware(view)(get()):
                sending.set()

        sending = asyncio.Event()
        # As a server that stops: it cancels its own task, and Django's goes on.
        async with ThreadSensitiveContext():
            task = asyncio.create_task(send())
            await sending.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    (event,) = billed(meter, ingestion, customer)
    assert event["metadata"]["units"] == 7
    assert event["metadata"]["aborted"] is True


def test_a_header_takes_no_thread(
    connect: Connect, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingestion = connect(account="django-header")
    monkeypatch.setattr(django, "sync_to_async", None)

    async def view(_request: object) -> HttpResponse:
        return HttpResponse(b"ok")

    request = get()
    request.META["HTTP_X_CUSTOMER_ID"] = "cus_django_header"
    response = metered(view, ingestion, "x-customer-id")(request)
    assert asyncio.run(response).status_code == 200
    assert len(billed(meter, ingestion, "cus_django_header")) == 1


# Django says so of its own files under ASGI.
READ_AT_ONCE = "ignore:StreamingHttpResponse must consume synchronous iterators"


@pytest.mark.filterwarnings(READ_AT_ONCE)
@pytest.mark.parametrize("path", ["/large", "/sync-stream"])
def test_a_client_that_leaves_what_django_reads_at_once(
    path: str, connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="django-large")
    name = f"cus_django{path.replace('/', '_')}"
    with served(ingestion, customer="x-customer-id") as port:
        site = Site("django-large", port, ingestion, meter)
        site.leave(path, name, after=b"\0" * 100)
        metadata = site.event(name)["metadata"]
    assert metadata["aborted"] is True
    assert 0 < metadata["response_bytes"] < django_site.LARGE / 2


@pytest.mark.filterwarnings(READ_AT_ONCE)
@pytest.mark.parametrize("length", [True, False])
def test_what_django_reads_at_once_is_metered_when_it_is_whole(
    length: bool, connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="django-whole")
    name = f"cus_django_whole_{length}"
    headers = {"Content-Length": "8"} if length else {}

    async def view(_request: object) -> StreamingHttpResponse:
        return StreamingHttpResponse(iter([b"four", b"four"]), headers=headers)

    async def main() -> list[int]:
        response = await metered(view, ingestion, lambda _: name)(AsyncRequestFactory().get("/"))
        assert response.is_async
        return [ingestion.stats()["accepted"] - before async for _ in response]

    before = ingestion.stats()["accepted"]
    assert asyncio.run(main()) == [0, int(length)]
    (event,) = billed(meter, ingestion, name)
    assert event["metadata"]["response_bytes"] == 8
    assert "aborted" not in event["metadata"]


@pytest.mark.filterwarnings(READ_AT_ONCE)
@pytest.mark.parametrize("server", [asgi, wsgi, plain_wsgi])
def test_the_head_of_a_file_is_no_file(server: Any, connect: Connect, meter: Meter) -> None:  # noqa: ANN401
    ingestion = connect(account="django-head")
    name = f"cus_django_head_{server.__name__}"
    settings.DODO_INGESTION = {"ingestion": ingestion, "customer": "x-customer-id"}
    under_asgi = server is asgi
    app = get_asgi_application() if under_asgi else get_wsgi_application()
    with server(app, **({"lifespan": "off"} if under_asgi else {})) as port:
        site = Site("django-head", port, ingestion, meter)
        assert site.call("HEAD", "/file", name)[0] == 200
        metadata = site.event(name)["metadata"]
    assert metadata["response_bytes"] == 0
    assert "aborted" not in metadata


def test_a_file_that_no_server_sends_is_counted_as_it_is_read(
    connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="django-no-wrapper")
    name = "cus_django_no_wrapper"

    def view(_request: object) -> FileResponse:
        return FileResponse(io.BytesIO(b"x" * 10_000))

    response = metered(view, ingestion, lambda _: name)(get())
    assert len(next(iter(response))) == 4096
    response.close()
    (event,) = billed(meter, ingestion, name)
    assert event["metadata"]["response_bytes"] == 4096
    assert event["metadata"]["aborted"] is True


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("path", ["/users/7/", "/later/7/"])
def test_a_meter_around_django_s_is_the_only_one(
    path: str, asynchronous: bool, connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="django-around")
    name = f"cus_django_around_{path.split('/')[1]}_{asynchronous}"
    options: dict[str, Any] = {"ingestion": ingestion, "customer": "x-customer-id"}
    settings.DODO_INGESTION = options
    served = (
        asgi(AsgiMiddleware(get_asgi_application(), **options), lifespan="off")
        if asynchronous
        else wsgi(WsgiMiddleware(get_wsgi_application(), **options))
    )
    with served as port:
        site = Site("django-around", port, ingestion, meter)
        assert site.call("GET", path, name)[0] == 200
    assert len(billed(meter, ingestion, name)) == 1


def named(_request: HttpRequest) -> str:
    return "cus_django_dotted"


def test_a_dotted_path_stands_for_a_callable(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="django-dotted")
    metered(lambda _: HttpResponse(), ingestion, f"{__name__}.named")(get())
    (event,) = billed(meter, ingestion, "cus_django_dotted")
    assert event["event_name"] == "api_call"


def test_a_route_is_excluded_as_the_project_writes_it(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="django-exclude")
    customer = "cus_django_exclude"
    settings.DODO_INGESTION = {
        "ingestion": ingestion,
        "customer": "x-customer-id",
        "exclude": ["users/<int:id>/"],
    }
    with plain_wsgi(get_wsgi_application()) as port:
        site = Site("django-exclude", port, ingestion, meter)
        for route in ("/users/7/", "/later/7/"):
            assert site.call("GET", route, customer)[0] == 200
    (event,) = billed(meter, ingestion, customer)
    assert event["metadata"]["endpoint"] == "/later/<int:id>/"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (None, "DODO_INGESTION"),
        ({"customer": "nothing.of_the_sort"}, "customer"),
        ({"skip": f"{__name__}.not_there"}, "skip"),
        ({"exclude": "health/"}, "exclude"),
        ({"event_name": "half \ud800"}, "event_name"),
    ],
)
def test_settings_that_are_wrong(options: Any, field: str) -> None:  # noqa: ANN401
    settings.DODO_INGESTION = options
    with pytest.raises(ConfigurationError, match=f"^{field}: "):
        get_wsgi_application()
