"""Each framework, behind a real server, bills to the meter what its clients have called."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp_site
import asgi_apps
import django_site
import pytest
import websockets.sync.client
import wsgi_apps
from fastapi import FastAPI
from serving import (
    CASES,
    CHUNKS,
    METERED,
    WITHIN,
    Site,
    aiohttp_server,
    asgi,
    open_client,
    plain_wsgi,
    wsgi,
)
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse

from conftest import Meter
from dodo_ingestion import _options
from dodo_ingestion.asgi import MeterMiddleware

FRAMEWORKS: dict[str, tuple[Any, Any]] = {
    "fastapi": (asgi, asgi_apps.fastapi_app),
    "starlette": (asgi, asgi_apps.starlette_app),
    "litestar": (asgi, asgi_apps.litestar_app),
    "quart": (asgi, asgi_apps.quart_app),
    "falcon-asgi": (asgi, asgi_apps.falcon_app),
    "django-asgi": (asgi, django_site.django_asgi_app),
    "django-wsgi": (wsgi, django_site.django_wsgi_app),
    "flask": (wsgi, wsgi_apps.flask_app),
    "bottle": (plain_wsgi, wsgi_apps.bottle_app),
    "pyramid": (wsgi, wsgi_apps.pyramid_app),
    "falcon": (plain_wsgi, wsgi_apps.falcon_app),
    "aiohttp": (aiohttp_server, aiohttp_site.aiohttp_app),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "django-asgi": {"lifespan": "off"},
    # By default a handler is not told.
    "aiohttp": {"handler_cancellation": True},
}
WITH_WEBSOCKETS = ["fastapi", "starlette", "litestar", "quart", "falcon-asgi", "aiohttp"]


@pytest.fixture(scope="module")
def sites(meter: Meter) -> Iterator[dict[str, Site]]:
    """The sites, each served when it is first asked for."""
    opened: list[Any] = []

    class Sites(dict[str, Site]):
        def __missing__(self, name: str) -> Site:
            server, make = FRAMEWORKS[name]
            ingestion = open_client(meter, f"web-{name}")
            app, routes = make(ingestion)
            serving = server(app, **SETTINGS.get(name, {}))
            port = serving.__enter__()
            opened.append((serving, ingestion))
            self[name] = Site(name, port, ingestion, meter, routes)
            return self[name]

    yield Sites()
    for serving, ingestion in opened:
        serving.__exit__(None, None, None)
        ingestion.close(timeout=WITHIN)


@pytest.fixture(params=list(FRAMEWORKS))
def site(request: pytest.FixtureRequest, sites: dict[str, Site]) -> Site:
    return sites[request.param]


def test_what_is_billed_by_default(site: Site) -> None:
    expected = {}
    for number, case in enumerate(CASES):
        # What no client can bring about here is in test_metering.py, case by case.
        if (
            case["aborted"]
            or case["status"] == 101
            or (case["status"], case["matched"]) == (200, False)
        ):
            continue
        customer = site.customer(f"case_{number}")
        path = f"/status/{case['status']}" if case["matched"] else "/nowhere"
        status, _ = site.call(case["method"], path, customer)
        if case["method"] != "OPTIONS":
            assert status == case["status"], case["name"]
        expected[customer] = (case, path)
    names = {"billed": ["api_call"], "error": ["api_error"], "none": []}
    for customer, (case, path) in expected.items():
        events = site.events(customer, count=len(names[case["event"]]))
        assert [event["event_name"] for event in events] == names[case["event"]], case["name"]
        for event in events:
            metadata = event["metadata"]
            assert metadata["status_code"] == case["status"]
            assert metadata["method"] == case["method"]
            assert ("endpoint" in metadata) == case["matched"], (path, metadata)
            assert path not in metadata.values()


def test_the_endpoint_is_the_route_s_template(site: Site) -> None:
    for number, (path, template) in enumerate(site.routes.items()):
        customer = site.customer(f"route_{number}")
        status, _ = site.call("GET", path, customer)
        assert status == (200 if template else 404), path
        metadata = site.event(customer)["metadata"]
        assert metadata.get("endpoint", "") == template
        assert "secret" not in str(metadata)


def test_handlers_speak_of_their_call(site: Site) -> None:
    customer = site.customer("marked")
    site.call("GET", f"/marked/{customer}", site.customer("not_this_one"))
    site.call("GET", "/skipped", site.customer("skipped"))
    metadata = site.event(customer)["metadata"]
    assert metadata["units"] == 3
    assert metadata["plan"] == "pro"
    assert metadata["long"] == "x" * 500
    assert metadata["status_code"] == 200
    assert metadata["response_bytes"] > 0
    assert site.meter.events(site.customer("not_this_one")) == []
    assert site.meter.events(site.customer("skipped")) == []


def test_a_stream_is_measured_to_its_end(site: Site) -> None:
    status, body = site.call("GET", "/stream", site.customer("stream"))
    assert (status, body) == (200, b"".join(CHUNKS))
    event = site.event(site.customer("stream"))
    metadata = event["metadata"]
    assert event["event_name"] == "api_call"
    assert metadata["response_bytes"] == len(body)
    assert metadata["response_time_ms"] - metadata["ttfb_ms"] >= 30
    assert "aborted" not in metadata


def test_a_client_that_leaves_is_billed_as_aborted(site: Site) -> None:
    if site.name == "falcon-asgi":
        pytest.skip("Falcon does not ask while it streams, and uvicorn does not tell")
    site.leave("/endless", site.customer("left"), after=b"more")
    event = site.event(site.customer("left"))
    assert event["event_name"] == "api_call"
    assert event["metadata"]["aborted"] is True
    assert event["metadata"]["status_code"] == 200
    assert event["metadata"]["response_bytes"] > 0


def test_an_app_that_raises_makes_an_error(site: Site) -> None:
    status, _ = site.call("GET", "/boom", site.customer("boom"))
    assert status == 500
    event = site.event(site.customer("boom"))
    assert event["event_name"] == "api_error"
    assert event["metadata"]["status_code"] == 500
    assert event["metadata"]["endpoint"] == "/boom"


@pytest.mark.parametrize("name", ["starlette", "django-asgi", "aiohttp"])
def test_a_client_that_leaves_before_a_response(name: str, sites: dict[str, Site]) -> None:
    site = sites[name]
    site.leave("/patient", site.customer("patient"))
    event = site.event(site.customer("patient"))
    assert event["event_name"] == "api_error"
    assert event["metadata"]["aborted"] is True
    assert event["metadata"]["endpoint"] == "/patient"
    assert "status_code" not in event["metadata"]


@pytest.mark.parametrize("name", ["fastapi", "starlette"])
def test_a_response_that_breaks_is_aborted(name: str, sites: dict[str, Site]) -> None:
    site = sites[name]
    site.leave("/broken", site.customer("broken"), after=CHUNKS[0])
    metadata = site.event(site.customer("broken"))["metadata"]
    assert metadata["aborted"] is True
    assert metadata["response_bytes"] == len(CHUNKS[0])


@pytest.mark.parametrize("path", ["background", "bad-background"])
def test_background_tasks_do_not_count(path: str, sites: dict[str, Site]) -> None:
    site = sites["starlette"]
    METERED.clear()
    try:
        site.call("GET", f"/{path}", site.customer(path))
        event = site.event(site.customer(path))
    finally:
        METERED.set()
    assert event["event_name"] == "api_call"


@pytest.mark.parametrize(
    ("name", "path"), [("fastapi", "/marked-by-task"), ("flask", "/marked-by-thread")]
)
def test_no_request_is_needed(name: str, path: str, sites: dict[str, Site]) -> None:
    site = sites[name]
    customer = site.customer("no_request")
    site.call("GET", f"{path}/{customer}")
    assert site.event(customer)["metadata"]["units"] == 2.5


# Django says so of its own files under ASGI.
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators")
@pytest.mark.parametrize("name", ["flask", "django-wsgi", "django-asgi", "aiohttp"])
def test_a_file_is_measured(name: str, sites: dict[str, Site]) -> None:
    site = sites[name]
    _, body = site.call("GET", "/file", site.customer("file"))
    metadata = site.event(site.customer("file"))["metadata"]
    assert metadata["response_bytes"] == len(body) > 1000
    assert metadata["endpoint"] == "/file"
    assert "aborted" not in metadata


def test_aiohttp_s_exceptions_are_answers(sites: dict[str, Site]) -> None:
    site = sites["aiohttp"]
    assert site.call("GET", "/raised", site.customer("raised"))[0] == 409
    event = site.event(site.customer("raised"))
    assert event["event_name"] == "api_call"
    assert event["metadata"]["status_code"] == 409


@pytest.mark.parametrize("make", [FastAPI, Starlette])
@pytest.mark.parametrize("handled", [Exception, 500])
def test_around_the_app_what_a_handler_for_exceptions_answers_counts(
    make: Callable[..., Any], handled: object, meter: Meter
) -> None:
    async def boom(_request: object) -> None:
        raise RuntimeError("boom")

    async def answer(_request: object, _error: Exception) -> PlainTextResponse:
        return PlainTextResponse("no", status_code=418)

    app = make(exception_handlers={handled: answer})
    app.add_route("/boom/{of}", boom)
    ingestion = open_client(meter, "web-handled")
    metered = MeterMiddleware(app, ingestion=ingestion, customer="x-customer-id")
    with asgi(metered) as port:
        site = Site(f"handled-{make.__name__}-{handled == 500}", port, ingestion, meter)
        assert site.call("GET", "/boom/secret", site.customer("handled"))[0] == 418
        event = site.event(site.customer("handled"))
    assert (event["event_name"], event["metadata"]["status_code"]) == ("api_call", 418)
    assert event["metadata"]["endpoint"] == "/boom/{of}"
    ingestion.close(timeout=WITHIN)


@pytest.mark.parametrize("name", WITH_WEBSOCKETS)
def test_a_websocket_session_is_one_event(name: str, sites: dict[str, Site]) -> None:
    site = sites[name]
    customer = site.customer("chat")
    url = f"ws://127.0.0.1:{site.port}/chat/lobby"
    with websockets.sync.client.connect(url, additional_headers={"x-customer-id": customer}) as ws:
        for text in ("one", "two"):
            ws.send(text)
            ws.recv()
            ws.recv()
    event = site.event(customer)
    metadata = event["metadata"]
    assert event["event_name"] == "api_call"
    assert metadata["status_code"] == 101
    assert metadata["endpoint"].startswith("/chat/")
    assert "lobby" not in metadata["endpoint"]
    assert (metadata["messages_received"], metadata["messages_sent"]) == (2, 4)
    assert "aborted" not in metadata


def test_a_websocket_that_is_cut_is_aborted(sites: dict[str, Site]) -> None:
    # Of uvicorn this cannot be asked: it calls a lost connection a close without a code.
    site = sites["aiohttp"]
    customer = site.customer("cut")
    url = f"ws://127.0.0.1:{site.port}/chat/lobby"
    with websockets.sync.client.connect(url, additional_headers={"x-customer-id": customer}) as ws:
        ws.send("one")
        ws.recv()
        ws.socket.shutdown(socket.SHUT_RDWR)
    metadata = site.event(customer)["metadata"]
    assert metadata["aborted"] is True
    assert metadata["messages_received"] == 1


@pytest.mark.parametrize(
    ("path", "name", "status"), [("refused", "api_error", 403), ("failed", "api_call", 101)]
)
def test_websockets_that_end_at_once(
    path: str, name: str, status: int, sites: dict[str, Site]
) -> None:
    site = sites["starlette"]
    customer = site.customer(path)
    url = f"ws://127.0.0.1:{site.port}/{path}"
    with (
        pytest.raises(websockets.exceptions.WebSocketException),
        websockets.sync.client.connect(url, additional_headers={"x-customer-id": customer}) as ws,
    ):
        ws.recv()
    event = site.event(customer)
    assert event["event_name"] == name
    assert event["metadata"]["status_code"] == status


@pytest.mark.parametrize("name", list(FRAMEWORKS))
def test_in_development_a_missing_customer_is_an_error(
    name: str, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, make = FRAMEWORKS[name]
    check = _options.check

    def checked(ingestion: object, options: Any) -> Any:  # noqa: ANN401
        return check(ingestion, {**options, "on_missing_customer": "raise"})

    monkeypatch.setattr(_options, "check", checked)
    ingestion = open_client(meter, f"raise-{name}")
    app, routes = make(ingestion)
    with server(app, **SETTINGS.get(name, {})) as port:
        site = Site(f"raise-{name}", port, ingestion, meter)
        path = next(iter(routes))
        assert site.call("GET", path, site.customer("named"))[0] == 200
        assert site.call("GET", "/nowhere")[0] == 404
        assert site.call("GET", path)[0] == 500
        assert site.event(site.customer("named"))["event_name"] == "api_call"
    ingestion.close(timeout=WITHIN)
