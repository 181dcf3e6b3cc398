"""Real servers in threads of this process, and what a client of them sees at the meter."""

import asyncio
import contextlib
import http.client
import json
import socket
import socketserver
import threading
import time
import wsgiref.simple_server
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
import waitress.server
import waitress.wasyncore
from aiohttp import web

from conftest import VECTORS, Meter
from dodo_ingestion import Ingestion

WITHIN = 120.0
CHUNKS = [b"first ", b"second ", b"third"]

WAITING = threading.Event()
"""Set by a handler that waits for its client to leave."""

METERED = threading.Event()
"""Set when a call has its event, for whatever must not be waited for."""

_METERING = json.loads((VECTORS / "metering.json").read_text("utf-8"))
CASES: list[dict[str, Any]] = _METERING["cases"]
CLIMBING: list[str] = _METERING["climbing"]
STAYING: list[str] = _METERING["staying"]
HEADERS: list[dict[str, Any]] = _METERING["headers"]
SAID: list[dict[str, Any]] = _METERING["said"]
OWN_KEYS: list[str] = _METERING["own_keys"]
ROOM: int = _METERING["room"]
GRPC: dict[str, int] = _METERING["grpc"]


CASE_NAMES = [case["name"] for case in CASES]
NAMES = {"billed": ["api_call"], "error": ["api_error"], "none": []}


def eventually(look: Callable[[], Any]) -> Any:  # noqa: ANN401
    """Look until there is something, or give back the last look."""
    deadline = time.monotonic() + WITHIN
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def billed(meter: Meter, ingestion: Ingestion, customer: str) -> list[dict[str, Any]]:
    """Deliver what waits, and give the customer's events."""
    ingestion.flush(timeout=WITHIN)
    return meter.events(customer)


@dataclass
class Site:
    """A served app and its meter."""

    name: str
    port: int
    ingestion: Ingestion
    meter: Meter
    routes: dict[str, str] = field(default_factory=dict)

    def customer(self, of: str) -> str:
        return f"cus_{self.name}_{of}"

    def call(self, method: str, path: str, customer: str | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WITHIN)
        with contextlib.closing(connection):
            headers = {} if customer is None else {"x-customer-id": customer}
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()

    def leave(self, path: str, customer: str, *, after: bytes = b"") -> None:
        """Go away in the middle of a response, or while a handler waits for that."""
        WAITING.clear()
        with socket.create_connection(("127.0.0.1", self.port), timeout=WITHIN) as client:
            head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Customer-Id: {customer}\r\n\r\n"
            client.sendall(head.encode())
            seen = b""
            while after and after not in seen:
                data = client.recv(4096)
                assert data, f"the server ended the response: {seen!r}"
                seen += data
            assert after or WAITING.wait(WITHIN)

    def events(self, customer: str, count: int = 1) -> list[dict[str, Any]]:
        def look() -> bool:
            self.ingestion.flush(timeout=WITHIN)
            return len(self.meter.events(customer)) >= count

        eventually(look)
        return self.meter.events(customer)

    def event(self, customer: str) -> dict[str, Any]:
        (event,) = self.events(customer)
        return event


@contextlib.contextmanager
def asgi(app: Any, **config: Any) -> Iterator[int]:  # noqa: ANN401
    """Serve an app with uvicorn."""
    listening = socket.create_server(("127.0.0.1", 0))
    settings = {"log_level": "critical", "ws": "websockets-sansio", **config}
    server = uvicorn.Server(uvicorn.Config(app, timeout_graceful_shutdown=1, **settings))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        assert eventually(lambda: server.started)
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(WITHIN)
        listening.close()


@contextlib.contextmanager
def wsgi(app: Any) -> Iterator[int]:  # noqa: ANN401
    """Serve an app with waitress."""
    server: Any = waitress.server.create_server(app, listen="127.0.0.1:0", threads=4)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server.effective_port
    finally:
        # In its own thread, which may be waiting for these very sockets.
        server.trigger.pull_trigger(lambda: waitress.wasyncore.close_all(server._map))
        thread.join(WITHIN)


class _Threaded(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


class _Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def get_stderr(self) -> Any:  # noqa: ANN401
        import io

        return io.StringIO()


@contextlib.contextmanager
def plain_wsgi(app: Any) -> Iterator[int]:  # noqa: ANN401
    """Serve an app with the standard library's server."""
    make = wsgiref.simple_server.make_server
    with make("127.0.0.1", 0, app, server_class=_Threaded, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(WITHIN)


@contextlib.contextmanager
def aiohttp_server(app: web.Application, **settings: Any) -> Iterator[int]:  # noqa: ANN401
    """Serve an app with aiohttp."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> tuple[web.AppRunner, int]:
        runner = web.AppRunner(app, shutdown_timeout=1, **settings)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, runner.addresses[0][1]

    runner, port = asyncio.run_coroutine_threadsafe(start(), loop).result(WITHIN)
    try:
        yield port
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(WITHIN)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WITHIN)
        loop.close()


def open_client(meter: Meter, account: str) -> Ingestion:
    return Ingestion(
        api_key="dodo_test_web",
        environment="test_mode",
        base_url=meter.url,
        event_name="api_call",
        durability="memory",
        account=account,
        linger=0.05,
    )
