"""Gunicorn, its workers replaced and killed while clients call: the meter has what clients got.

A request that was answered is billed, once. One whose worker was killed before it answered may be,
at most once: nobody can know more.
"""

import collections
import contextlib
import functools
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from conftest import Meter

WITHIN = 60.0
HERE = Path(__file__).parent
WORKERS = 3
CLIENTS = 4
KILLED = 2

SERVERS = {
    "sync": ("sync", "metered:wsgi_app"),
    "gthread": ("gthread", "metered:wsgi_app"),
    "uvicorn": ("uvicorn.workers.UvicornWorker", "metered:asgi_app"),
}


def eventually(look: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + WITHIN
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.05)
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

    def run(self, calls: int, meanwhile: Callable[[], None]) -> None:
        numbers = iter(range(calls))

        def work() -> None:
            while True:
                with self.lock:
                    number = next(numbers, None)
                if number is None:
                    return
                self.call(number)

        threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        meanwhile()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def gunicorn(meter: Meter, spool: Path, name: str, *arguments: str) -> Iterator[int]:
    worker, app = SERVERS[name]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "DODO_PAYMENTS_API_KEY": "dodo_test_servers",
        "DODO_PAYMENTS_BASE_URL": meter.url,
        "DODO_INGESTION_LINGER": "0.1",
        "DODO_INGESTION_SPOOL_DIR": str(spool),
    }
    settings = ["--bind", f"127.0.0.1:{port}", "--workers", str(WORKERS), "--worker-class", worker]
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *settings, "--threads", "2", *arguments, app],
        cwd=HERE,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        assert process.poll() is None, "gunicorn has ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        return False

    try:
        assert eventually(answers)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=WITHIN)


def numbers_at(meter: Meter, customer: str) -> list[int]:
    return sorted(event["metadata"]["number"] for event in meter.events(customer))


@pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
@pytest.mark.parametrize("name", SERVERS)
def test_workers_come_and_go(name: str, preload: bool, meter: Meter, tmp_path: Path) -> None:
    customer = f"cus_{name}_{preload}"
    arguments = ["--max-requests", "50", *(["--preload"] if preload else [])]
    with gunicorn(meter, tmp_path, name, *arguments) as port:
        load = Load(port, customer)
        load.run(400, load.kill_workers)
        eventually(lambda: set(load.answered) <= set(numbers_at(meter, customer)))
    assert len(load.killed) == KILLED
    assert len(load.workers) > WORKERS + KILLED, "none was replaced"
    assert len(load.answered) > 300
    billed = numbers_at(meter, customer)
    assert len(billed) == len(set(billed)), "billed twice"
    assert set(load.answered) <= set(billed) <= set(load.answered) | set(load.unanswered)
