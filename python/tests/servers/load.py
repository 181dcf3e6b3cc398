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
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conftest import Meter, unused_port
from dodo_ingestion import Ingestion

WITHIN = 60.0
# What the metering may add to the end of a server.
ADDS = 5.0
# The requests of a minute that the core allows an account: with many processes as with one.
BUDGET = 95
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
    began: float = field(default_factory=time.monotonic)

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

    def go_on_while_workers_are_replaced(self, meter: Meter) -> None:
        """Call while workers are killed and end by themselves, and see what is billed."""
        with self.running():
            self.kill_workers()
            assert eventually(self.replaced_workers), "none was replaced"
        self.check(meter)

    def check(self, meter: Meter) -> None:
        """See that what was answered is billed, once, with no more requests than one process."""

        def billed() -> list[int]:
            return numbers(meter, self.customer)

        eventually(lambda: set(self.answered) <= set(billed()))
        assert len(self.answered) > 3 * len(self.unanswered)
        found = billed()
        assert len(found) == len(set(found)), "billed twice"
        assert set(self.answered) <= set(found) <= {*self.answered, *self.unanswered}
        requests = meter.get("/_dev/bill")["totals"]["requests"]
        minutes = (time.monotonic() - self.began) // 60 + 1
        assert requests <= BUDGET * minutes


def numbers(meter: Meter, customer: str) -> list[int]:
    return sorted(event["metadata"]["number"] for event in meter.events(customer))


def environment(meter: Meter, spool: Path) -> dict[str, str]:
    return {
        **os.environ,
        "DODO_PAYMENTS_API_KEY": "dodo_test_servers",
        "DODO_PAYMENTS_BASE_URL": meter.url,
        "DODO_INGESTION_LINGER": "0.1",
        "DODO_INGESTION_SPOOL_DIR": str(spool),
    }


def following(variables: Mapping[str, str]) -> Ingestion:
    """Be the next process of the account."""
    return Ingestion(
        api_key=variables["DODO_PAYMENTS_API_KEY"],
        event_name="following",
        base_url=variables["DODO_PAYMENTS_BASE_URL"],
        spool_dir=variables["DODO_INGESTION_SPOOL_DIR"],
    )


def children(process: str) -> set[str]:
    # Each thread has its own.
    if listed := list(Path("/proc", process, "task").glob("*/children")):
        return {child for path in listed for child in path.read_text().split()}
    pgrep = subprocess.run(["pgrep", "-P", process], capture_output=True, text=True, check=False)  # noqa: S607
    return set(pgrep.stdout.split())


@dataclass
class Server:
    """A server that runs, or has run."""

    port: int
    reports: Path
    """Where the processes leave how far they are, and when they came there."""
    process: "subprocess.Popen[bytes] | None" = None
    ended_after: float = 0.0
    """How long after SIGTERM."""
    told: float = 0.0
    """When SIGTERM was sent."""
    began: dict[int, float] = field(default_factory=dict)
    """When processes came to the exit handler of the package."""
    ended: dict[int, float] = field(default_factory=dict)
    """When they had run it."""

    def settle(self) -> None:
        """Wait until each worker is ready: it does not hear of its end before."""

        def ready() -> bool:
            assert self.process is not None
            workers = children(str(self.process.pid))
            ready = {path.stem for path in self.reports.glob("*.ready")}
            return len(workers) == WORKERS and workers <= ready

        assert eventually(ready)

    def tell_to_end(self) -> None:
        """Send SIGTERM, unless that was done."""
        assert self.process is not None
        if not self.told:
            self.process.terminate()
            self.told = time.monotonic()


@contextlib.contextmanager
def serving_at(
    command: Callable[[int], Sequence[str]], variables: Mapping[str, str]
) -> Iterator[Server]:
    """Run a server until SIGTERM has ended it."""
    port = unused_port()
    reports = tempfile.TemporaryDirectory()
    server = Server(port, Path(reports.name))
    server.process = process = subprocess.Popen(
        command(server.port),
        cwd=HERE,
        env={**variables, "REPORTS": reports.name},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        assert process.poll() is None, "the server has ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port)):
            return True
        return False

    try:
        assert eventually(answers)
        yield server
    finally:
        server.tell_to_end()
        try:
            process.wait(timeout=WITHIN)
            server.ended_after = time.monotonic() - server.told
        finally:
            process.kill()
            for when, suffix in (server.began, ".ends"), (server.ended, ".ended"):
                for path in server.reports.glob(f"*{suffix}"):
                    when[int(path.stem)] = float(path.read_text())
            reports.cleanup()


@contextlib.contextmanager
def serving_beside_plain(
    command: Callable[[int], Sequence[str]], variables: Mapping[str, str]
) -> Iterator[Server]:
    """Run a server as well with the app that is not metered, and see that it ends little sooner.

    Both are told at the same time: what holds up this machine then holds up both.
    """
    plainly = {**variables, "PLAIN": "1"}
    with serving_at(command, variables) as server, serving_at(command, plainly) as plain:
        plain.settle()
        yield server
        server.tell_to_end()
    assert server.ended_after < plain.ended_after + ADDS
