"""Fixtures: a local meter to bill to, and clients of it."""

import contextlib
import json
import random
import signal
import socket
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from dodo_ingestion import Ingestion, IngestionError, LLMTracker, create_llm_tracker, testing

# Whoever starts the tests in the background may have them, and all their children, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

VECTORS = Path(__file__).parents[2] / "tests" / "vectors"


class Meter:
    """A running meter, asked in the billing API's own words."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **query: str | int) -> Any:  # noqa: ANN401
        url = f"{self.url}{path}?{urlencode(query)}" if query else f"{self.url}{path}"
        request = urllib.request.Request(url, headers={"Authorization": "Bearer test"})
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def event(self, event_id: str) -> dict[str, Any]:
        event = self.get(f"/events/{quote(event_id, safe='')}")
        assert isinstance(event, dict)
        return event

    def events(self, customer_id: str) -> list[dict[str, Any]]:
        """All events of a customer, page by page."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.get(
                "/events", customer_id=customer_id, page_size=1000, page_number=len(found) // 1000
            )["items"]
            found += page
            if len(page) < 1000:
                return found


def unused_port() -> int:
    """Give a port for a server that has to be told one.

    It is none of those that the kernel gives to whoever asks for any: before the server listens,
    another test's might be given it, and would answer in its place.
    """
    while True:
        port = random.randrange(10_000, 30_000)  # noqa: S311 - it is no secret
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextlib.contextmanager
def serving(*options: str) -> Iterator[Meter]:
    """Run a meter."""
    with testing.Meter(*options) as running:
        yield Meter(running.url)


@pytest.fixture(scope="session")
def meter() -> Iterator[Meter]:
    with serving() as meter:
        yield meter


@pytest.fixture
def silent() -> Iterator[str]:
    """Accept connections and never answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


Connect = Callable[..., Ingestion]


@pytest.fixture
def connect(meter: Meter) -> Iterator[Connect]:
    """Open clients of the meter, closed at the end of the test."""
    opened: list[Ingestion] = []

    def connect(**options: Any) -> Ingestion:  # noqa: ANN401
        settings: dict[str, Any] = {
            "api_key": "dodo_test_python",
            "environment": "test_mode",
            "base_url": meter.url,
            "event_name": "api_call",
            "durability": "memory",
        }
        ingestion = Ingestion(**{**settings, **options})
        opened.append(ingestion)
        return ingestion

    yield connect
    for ingestion in opened:
        with contextlib.suppress(IngestionError):
            ingestion.close(timeout=1)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the library logged.

    Others log when it suits them, as asyncio of a future that nobody asked, which gRPC leaves.
    """
    return [each.message for each in caplog.records if each.name == "dodo_ingestion"]


class Billing:
    """A tracker, and what it has billed of one customer."""

    def __init__(self, ingestion: Ingestion, meter: Meter, customer_id: str) -> None:
        self.tracker: LLMTracker = create_llm_tracker(ingestion, event_name="llm")
        self.customer_id = customer_id
        self._ingestion = ingestion
        self._meter = meter

    def billed(self) -> list[dict[str, Any]]:
        self._ingestion.flush(timeout=60)
        events = self._meter.events(self.customer_id)
        assert all(event["event_name"] == "llm" for event in events)
        return [event["metadata"] for event in events]


@pytest.fixture
def billing(connect: Connect, meter: Meter, request: pytest.FixtureRequest) -> Billing:
    return Billing(connect(), meter, f"cus_{request.node.name}")
