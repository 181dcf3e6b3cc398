"""A local meter for the tests of an app: what is billed can be looked at, and nobody has to pay.

>>> with Meter() as meter:
...     app = create_app(meter.connect())
...     ...  # calls the app
...     [event] = meter.events(customer="cus_1", at_least=1)

Under pytest the fixture `dodo_meter` is such a meter: one server a session, reset before each test.
The program is the one in `DODOMETER_BIN`, or else that of the package `dodometer`.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
import weakref
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from dodo_ingestion._dodometer import find_dodometer
from dodo_ingestion._native import Ingestion
from dodo_ingestion.errors import (
    AuthenticationError,
    ClosedError,
    IngestionError,
    IngestionTimeoutError,
    NetworkError,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from dodo_ingestion.types import Duration

__all__ = ["Meter", "MeteredEvent"]

_STARTS_WITHIN = 20.0
_WAITS = 5.0
_FIELDS = frozenset({"customer_id", "event_id", "timestamp"})
_ANSWERS_WITHIN = 30.0

# It is of this machine, whatever proxy there is for others.
_HTTP = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class MeteredEvent:
    """An event, as the meter has it."""

    event_id: str
    customer_id: str
    event_name: str
    timestamp: datetime
    metadata: dict[str, str | int | float | bool]


class Meter:
    """A meter that keeps its events in memory, from `with` or `start()` on.

    It ends with `with` or `stop()`, and with this process at the latest, however that ends.

    Args:
        arguments: Further ones for `dodometer serve`, such as `"--fault", "status=503"`.

    """

    url: str
    """Where it listens: what `DODO_PAYMENTS_BASE_URL` or the option `base_url` is to be."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self._clients: list[Ingestion] = []

    def start(self) -> Self:
        """Start the program.

        Raises:
            FileNotFoundError: There is none.
            RuntimeError: It ended, or said nothing; why is on the standard error.

        """
        command = [find_dodometer(), "serve", "--listen", "127.0.0.1:0", "--data", ":memory:"]
        process = subprocess.Popen(  # noqa: S603
            [*command, "--json", "--until-stdin-closes", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._end = weakref.finalize(self, _end, process)
        watchdog = threading.Timer(_STARTS_WITHIN, process.kill)
        watchdog.start()
        line = process.stdout.readline() if process.stdout else ""
        watchdog.cancel()
        if not line:
            self._end()
            raise RuntimeError(f"{command[0]} does not serve: it ended with {process.returncode}")
        self.url = json.loads(line)["url"]
        return self

    def stop(self) -> None:
        """Close the clients that were connected here, and end the program."""
        try:
            self.disconnect()
        finally:
            self._end()

    def connect(self, **options: Any) -> Ingestion:  # noqa: ANN401
        """Open a client that bills to this meter, and is closed with it. Takes every option."""
        settings: dict[str, Any] = {
            "api_key": "dodo_test",
            "environment": "test_mode",
            "event_name": "api_call",
            "base_url": self.url,
            "durability": "memory",
            # The meter is no account that others share: a test need not wait for its turn.
            "requests_per_minute": 1_000_000,
            "requests_per_second": 100_000,
            # That calls are kept in memory only is no news to a test.
            "on_alarm": lambda _kind, _message: None,
        }
        ingestion = Ingestion(**{**settings, **options})
        self._clients.append(ingestion)
        return ingestion

    def disconnect(self) -> None:
        """Close the clients that were connected here. Faults end first: none holds up the close."""
        if self._clients:
            with contextlib.suppress(ConnectionError):
                self._ask("DELETE", "/_dev/faults")
        for client in self._clients:
            with contextlib.suppress(IngestionError):
                client.close(timeout=_WAITS)
        self._clients.clear()

    def events(
        self,
        *,
        customer: str | None = None,
        event_name: str | None = None,
        at_least: int = 0,
        timeout: Duration = _WAITS,
        **metadata: str | float,
    ) -> list[MeteredEvent]:
        """Give the events so far, in the order of arrival, as soon as there are `at_least` so many.

        Flushes the clients that were connected here. Others bill when their `linger` is over.

        Args:
            customer: Only this customer's.
            event_name: Only those of this name.
            at_least: How many are waited for.
            timeout: How long: seconds, or a timedelta.
            metadata: Pairs that the events must have, such as `endpoint="/v1/users"`.

        Raises:
            TimeoutError: There are fewer than `at_least`.
            TypeError: A pair has the name of an event's own field.

        """
        for name in _FIELDS & metadata.keys():
            raise TypeError(f"{name}: is no metadata; there are: customer, event_name")
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        until = time.monotonic() + seconds
        for client in self._clients:
            with contextlib.suppress(
                IngestionTimeoutError, AuthenticationError, NetworkError, ClosedError
            ):
                client.flush(timeout=max(until - time.monotonic(), 0.001))
        query: dict[str, Any] = {f"metadata.{key}": _text(value) for key, value in metadata.items()}
        query |= {"customer_id": customer, "event_name": event_name}
        query = {key: value for key, value in query.items() if value is not None}
        wait = {"at_least": at_least, "timeout": f"{max(until - time.monotonic(), 0) * 1000:.0f}ms"}
        answer = self._ask("GET", f"/_dev/events?{urlencode(query | wait)}", waits=seconds)
        events: list[dict[str, Any]] = answer["events"]
        if answer["matching"] < at_least:
            found = f"{len(events)} of {at_least} events came within {seconds} s"
            if any(client.stats()["dead_lettered"] for client in self._clients):
                found += "; the API has refused calls: see `stats` of the client"
            raise TimeoutError(found)
        while answer["more"]:
            since = {"since": answer["next"]}
            answer = self._ask("GET", f"/_dev/events?{urlencode(query | since)}")
            events += answer["events"]
        return [_event(each) for each in events]

    def bill(self) -> dict[str, Any]:
        """Give what everybody owes, as `/_dev/bill` has it: `currency`, `customers`, `totals`."""
        bill: dict[str, Any] = self._ask("GET", "/_dev/bill")
        return bill

    def fault(self, *faults: str) -> None:
        """Let something go wrong on purpose, such as `"status=503,times=3"`, until the next reset.

        The words are those of `dodometer serve --fault`.

        Raises:
            ValueError: There is no such fault.

        """
        self._ask("POST", "/_dev/faults", {"faults": faults})

    def reset(self) -> None:
        """Forget events, meters and prices, and the faults that it did not begin with."""
        self._ask("POST", "/_dev/reset")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_details: object) -> None:
        self.stop()

    def _ask(self, method: str, path: str, body: object = None, *, waits: float = 0) -> Any:  # noqa: ANN401
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method)  # noqa: S310
        try:
            with _HTTP.open(request, timeout=_ANSWERS_WITHIN + waits) as response:
                answer = response.read()
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(f"{method} {path}: {error.read().decode()}") from None
        except (urllib.error.URLError, ConnectionError) as error:
            raise ConnectionError(f"the meter at {self.url} has ended: {error}") from None
        return json.loads(answer) if answer else None


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream:
            stream.close()


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _event(wire: dict[str, Any]) -> MeteredEvent:
    return MeteredEvent(
        event_id=wire["event_id"],
        customer_id=wire["customer_id"],
        event_name=wire["event_name"],
        # Before 3.11 Python does not read the Z.
        timestamp=datetime.fromisoformat(wire["timestamp"].replace("Z", "+00:00")),
        metadata=wire["metadata"] or {},
    )
