"""Clients that call a server whose workers come and go, and what they got."""

import collections
import contextlib
import functools
import http.client
import itertools
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conftest import Meter

WITHIN = 60.0
HERE = Path(__file__).parent
WORKERS = 3
CLIENTS = 4
KILLED = 2


def eventually(look: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + WITHIN
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


@dataclass
class Load:
    """What clients asked for, and what they got."""

    port: int
    customer: str
    answered: list[int] = field(default_factory=list)
    unanswered: list[int] = field(default_factory=list)
    workers: collections.Counter[int] = field(default_factory=collections.Counter)
    killed: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WITHIN)
        with contextlib.closing(connection):
            try:
                connection.request(
                    "GET", f"/calls/{number}", headers={"x-customer-id": self.customer}
                )
                response = connection.getresponse()
                worker = int(response.read())
            except (OSError, http.client.HTTPException, ValueError):
                with self.lock:
                    self.unanswered.append(number)
                return
        assert response.status == 200
        with self.lock:
            self.answered.append(number)
            self.workers[worker] += 1

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Let clients call meanwhile."""
        numbers = itertools.count()
        enough = threading.Event()

        def work() -> None:
            while not enough.is_set():
                self.call(next(numbers))

        threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            enough.set()
            for thread in threads:
                thread.join()

    def has_answered(self, calls: int) -> bool:
        return len(self.answered) >= calls

    def kill_workers(self) -> None:
        """Kill a worker each time that some more calls were answered."""
        while len(self.killed) < KILLED:
            enough = len(self.answered) + 40
            assert eventually(functools.partial(self.has_answered, enough))
            with self.lock:
                worker = next(each for each in reversed(self.workers) if each not in self.killed)
            # It may have been replaced by now.
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
                self.killed.append(worker)

    def replaced_workers(self) -> bool:
        """Whether workers have answered that took the place of others than the killed."""
        return len(self.workers) > WORKERS + KILLED

    def check(self, meter: Meter) -> None:
        """See that what was answered is billed, and nothing twice."""

        def billed() -> list[int]:
            return sorted(event["metadata"]["number"] for event in meter.events(self.customer))

        eventually(lambda: set(self.answered) <= set(billed()))
        assert len(self.answered) > 3 * len(self.unanswered)
        numbers = billed()
        assert len(numbers) == len(set(numbers)), "billed twice"
        assert set(self.answered) <= set(numbers) <= {*self.answered, *self.unanswered}


def environment(meter: Meter, spool: Path) -> dict[str, str]:
    return {
        **os.environ,
        "DODO_PAYMENTS_API_KEY": "dodo_test_servers",
        "DODO_PAYMENTS_BASE_URL": meter.url,
        "DODO_INGESTION_LINGER": "0.1",
        "DODO_INGESTION_SPOOL_DIR": str(spool),
    }


@contextlib.contextmanager
def serving_at(
    command: Callable[[int], Sequence[str]], variables: Mapping[str, str]
) -> Iterator[int]:
    """Run a server until SIGTERM has ended it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        command(port),
        cwd=HERE,
        env=variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        assert process.poll() is None, "the server has ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        return False

    try:
        assert eventually(answers)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(timeout=WITHIN)
        finally:
            process.kill()
