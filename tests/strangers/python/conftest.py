"""Fixtures: local meters as processes of their own."""

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest
from dodopayments import DodoPayments

READY_WITHIN = 20.0
KEY = "strangers_key"


@contextlib.contextmanager
def serving(*options: str) -> Iterator[str]:
    """Run a `dodometer serve` and yield its URL."""
    binary = os.environ.get("DODOMETER_BIN")
    if not binary:
        pytest.fail("set DODOMETER_BIN to the dodometer binary: these tests talk to a real meter")
    arguments = [binary, "serve", "--listen", "127.0.0.1:0", "--key", KEY, "--json", *options]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        watchdog = threading.Timer(READY_WITHIN, process.kill)
        watchdog.start()
        line = process.stdout.readline()
        watchdog.cancel()
        if not line:
            pytest.fail(f"{binary} said nothing within {READY_WITHIN:.0f} s")
        yield json.loads(line)["url"]
        assert process.poll() is None, "the meter ended during the tests"
    finally:
        process.terminate()
        process.wait(timeout=20)
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="session")
def meter_url() -> Iterator[str]:
    with serving() as url:
        yield url


Connect = Callable[..., DodoPayments]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Open official clients, closed at the end of the test."""
    with contextlib.ExitStack() as opened:

        def connect(url: str, key: str = KEY, **options: object) -> DodoPayments:
            client = DodoPayments(bearer_token=key, base_url=url, max_retries=0, **options)
            return opened.enter_context(client)

        yield connect


@pytest.fixture
def client(meter_url: str, connect: Connect) -> DodoPayments:
    return connect(meter_url)
