"""aiohttp's middleware, with handlers that do exactly what a test asks for."""

import asyncio
import contextlib
import io
import threading
from array import array
from collections.abc import AsyncIterator, Callable
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path
from typing import Any

import pytest
from aiohttp import MultipartWriter, payload, web
from serving import WAITING, WITHIN, Site, aiohttp_server, billed

from conftest import Connect, Meter
from dodo_ingestion import Ingestion, aiohttp
from dodo_ingestion.aiohttp import set_units


@pytest.mark.parametrize("length", ["8", None])
def test_a_stream_of_a_declared_length_is_metered_when_it_is_whole(
    length: str | None, connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="aiohttp-declared")
    customer = f"cus_aiohttp_declared_{length}"
    accepted: list[int] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        headers = {} if length is None else {"Content-Length": length}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        for body in (b"four", b"four"):
            await response.write(body)
            accepted.append(ingestion.stats()["accepted"] - before)
        await response.write_eof()
        return response

    app = web.Application()
    app.router.add_get("/declared", handler)
    aiohttp.setup(app, ingestion=ingestion, customer=lambda _: customer)
    before = ingestion.stats()["accepted"]
    with aiohttp_server(app) as port:
        client = HTTPConnection("127.0.0.1", port, timeout=WITHIN)
        client.request("GET", "/declared")
        assert client.getresponse().read() == b"fourfour"
        client.close()
        (event,) = billed(meter, ingestion, customer)
    assert accepted == [0, int(length is not None)]
    assert event["metadata"]["response_bytes"] == 8
    assert "aborted" not in event["metadata"]


SHARED = payload.BytesPayload(b"fourfour")


async def tokens() -> AsyncIterator[bytes]:
    for _ in range(4):
        yield b"to"
        await asyncio.sleep(0.02)
    set_units(4)


def multipart() -> Any:  # noqa: ANN401
    form = MultipartWriter(boundary="x")
    form.append(b"four")
    return form


BODIES: dict[str, Callable[[], Any]] = {
    "generator": tokens,
    "file": lambda: io.BytesIO(b"fourfour"),
    "text": lambda: io.StringIO("fourfour"),
    "shared": lambda: SHARED,
    "form": multipart,
    "bytearray": lambda: bytearray(b"fourfour"),
}


def answering(body: Callable[[], Any], ingestion: Ingestion) -> web.Application:
    """Make an app whose responses have a body that aiohttp reads by itself."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(body=body())

    app = web.Application()
    app.router.add_get("/body", handler)
    aiohttp.setup(app, ingestion=ingestion, customer="x-customer-id")
    return app


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_body_that_is_read_later_is_measured(
    method: str, kind: str, connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="aiohttp-body")
    name = f"cus_aiohttp_body_{kind}_{method}"
    with aiohttp_server(answering(BODIES[kind], ingestion)) as port:
        site = Site("aiohttp-body", port, ingestion, meter)
        for count in (1, 2):
            before = ingestion.stats()["accepted"]
            _, body = site.call(method, "/body", name)
            # Whoever has the whole has been metered.
            assert ingestion.stats()["accepted"] - before == 1
            assert len(site.events(name, count)) == count
    assert bool(body) == (method == "GET")
    for event in meter.events(name):
        assert event["metadata"]["response_bytes"] == len(body)
        assert "aborted" not in event["metadata"]
        if (kind, method) == ("generator", "GET"):
            assert event["metadata"]["units"] == 4
            assert event["metadata"]["response_time_ms"] >= 60


def test_a_body_that_breaks_is_aborted(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="aiohttp-breaks")

    async def broken() -> AsyncIterator[bytes]:
        yield b"four"
        raise RuntimeError("broken on purpose")

    with aiohttp_server(answering(broken, ingestion)) as port:
        site = Site("aiohttp-breaks", port, ingestion, meter)
        with pytest.raises(IncompleteRead):
            site.call("GET", "/body", "cus_aiohttp_breaks")
        metadata = site.event("cus_aiohttp_breaks")["metadata"]
    assert metadata["aborted"] is True
    assert (metadata["status_code"], metadata["response_bytes"]) == (200, 4)


@pytest.mark.parametrize("kind", ["generator", "file"])
def test_a_client_that_leaves_amid_a_body(
    kind: str, connect: Connect, meter: Meter, tmp_path: Path
) -> None:
    ingestion = connect(account="aiohttp-leaves")
    name = f"cus_aiohttp_leaves_{kind}"
    size = 100_000_000
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(size)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"\0" * 10_000
            await asyncio.sleep(0)

    body: Callable[[], Any] = endless if kind == "generator" else lambda: large.open("rb")
    with aiohttp_server(answering(body, ingestion)) as port:
        site = Site("aiohttp-leaves", port, ingestion, meter)
        site.leave("/body", name, after=b"\0" * 100)
        metadata = site.event(name)["metadata"]
    assert metadata["aborted"] is True
    assert 0 < metadata["response_bytes"] < size


def test_a_handler_that_ends_when_its_client_has_left(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="aiohttp-heeds")

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b"more " * 1000)
                await asyncio.sleep(0)
        return response

    app = web.Application()
    app.router.add_get("/heeds", handler)
    aiohttp.setup(app, ingestion=ingestion, customer="x-customer-id")
    with aiohttp_server(app) as port:
        site = Site("aiohttp-heeds", port, ingestion, meter)
        site.leave("/heeds", "cus_aiohttp_heeds", after=b"more ")
        metadata = site.event("cus_aiohttp_heeds")["metadata"]
    assert (metadata["aborted"], metadata["status_code"]) == (True, 200)


def test_a_body_that_the_end_of_the_server_cuts(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="aiohttp-cuts")

    async def patient() -> AsyncIterator[bytes]:
        yield b"four"
        WAITING.set()
        await asyncio.sleep(60)

    WAITING.clear()
    with aiohttp_server(answering(patient, ingestion)) as port:
        client = HTTPConnection("127.0.0.1", port, timeout=WITHIN)
        client.request("GET", "/body", headers={"x-customer-id": "cus_aiohttp_cuts"})
        response = client.getresponse()
        assert WAITING.wait(WITHIN)
    client.close()
    response.close()
    (event,) = billed(meter, ingestion, "cus_aiohttp_cuts")
    assert event["metadata"]["aborted"] is True
    assert event["metadata"]["response_bytes"] == 4


def test_what_is_sent_is_measured_in_bytes(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="aiohttp-bytes")

    async def compressed(_request: web.Request) -> web.Response:
        response = web.Response(body=b"four" * 1000)
        response.enable_compression(web.ContentCoding.gzip)
        return response

    async def numbers(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(memoryview(array("i", [1, 2])))
        return response

    app = web.Application()
    app.router.add_get("/compressed", compressed)
    app.router.add_get("/numbers", numbers)
    aiohttp.setup(app, ingestion=ingestion, customer="x-customer-id")
    with aiohttp_server(app) as port:
        site = Site("aiohttp-bytes", port, ingestion, meter)
        for path in ("compressed", "numbers"):
            _, body = site.call("GET", f"/{path}", f"cus_aiohttp_{path}")
            event = site.event(f"cus_aiohttp_{path}")
            assert event["metadata"]["response_bytes"] == len(body) > 0


@pytest.mark.parametrize("status", [204, 304])
def test_a_body_that_aiohttp_drops_is_not_measured(
    status: int, connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="aiohttp-drops")

    async def text(_request: web.Request) -> web.Response:
        return web.Response(body=b"four", status=status)

    async def generated(_request: web.Request) -> web.Response:
        return web.Response(body=tokens(), status=status)

    async def file(_request: web.Request) -> web.FileResponse:
        return web.FileResponse(__file__, status=status)

    app = web.Application()
    for handler in (text, generated, file):
        app.router.add_get(f"/{handler.__name__}", handler)
    aiohttp.setup(app, ingestion=ingestion, customer="x-customer-id")
    with aiohttp_server(app) as port:
        site = Site("aiohttp-drops", port, ingestion, meter)
        for handler in (text, generated, file):
            name = f"cus_aiohttp_drops_{handler.__name__}_{status}"
            assert site.call("GET", f"/{handler.__name__}", name) == (status, b"")
            assert site.event(name)["metadata"]["response_bytes"] == 0


def test_static_files_are_excluded_as_elsewhere(
    connect: Connect, meter: Meter, tmp_path: Path
) -> None:
    ingestion = connect(account="aiohttp-static")
    (tmp_path / "a.txt").write_text("a")
    app = web.Application()
    options: Any = {"ingestion": ingestion, "customer": "x-customer-id"}
    aiohttp.setup(app, exclude=["/static/*"], **options)
    app.router.add_static("/static", tmp_path)
    app.router.add_static("/files", tmp_path)
    with aiohttp_server(app) as port:
        site = Site("aiohttp-static", port, ingestion, meter)
        for path in ("/static/a.txt", "/files/a.txt"):
            assert site.call("GET", path, site.customer("all"))[0] == 200
        event = site.event(site.customer("all"))
    assert event["metadata"]["endpoint"] == "/files/{path:path}"


def test_a_client_that_leaves_has_the_whole_of_a_head(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="aiohttp-head")
    left = threading.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while not left.is_set():
            await response.write(b"part")
            await asyncio.sleep(0.01)
        for _ in range(100):
            await response.write(b"part")
            await asyncio.sleep(0.01)
        return response

    app = web.Application()
    aiohttp.setup(app, ingestion=ingestion, customer="x-customer-id")
    app.router.add_get("/stream", stream)
    with aiohttp_server(app) as port:
        site = Site("aiohttp-head", port, ingestion, meter)
        assert site.call("HEAD", "/stream", site.customer("head"))[0] == 200
        left.set()
        event = site.event(site.customer("head"))
    assert "aborted" not in event["metadata"]
