"""Calls among threads that want the interpreter."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from conftest import Connect
from dodo_ingestion import create_batch, track_api_call
from dodo_ingestion._native import accept_api_call

FIELDS = ("/v1/users/{user}", "GET", 200, 0.1, 0.05, 6, None)
CALLS = 1_000


@contextmanager
def wanting_the_interpreter() -> Iterator[Callable[[], int]]:
    """Have a thread that gets it whenever it is let go of, and only then; how often it had it."""
    interval = sys.getswitchinterval()
    had, ended = 0, False

    def want() -> None:
        nonlocal had
        while not ended:
            had += 1
            time.sleep(0)

    thread = threading.Thread(target=want)
    sys.setswitchinterval(1_000)
    thread.start()
    try:
        yield lambda: had
    finally:
        ended = True
        sys.setswitchinterval(interval)
        thread.join()


@pytest.mark.parametrize("verb", ["track_api_call", "accept_api_call", "add"])
def test_a_call_that_waits_for_nothing_does_not_let_go_of_the_interpreter(
    connect: Connect, verb: str
) -> None:
    ingestion = connect(linger=60)
    batch = create_batch(ingestion, max_size=1_000, flush_interval=60)
    calls: dict[str, Callable[[], object]] = {
        "track_api_call": lambda: track_api_call(ingestion, customer_id="cus_1"),
        "accept_api_call": lambda: accept_api_call(ingestion, "cus_1", None, FIELDS, None),
        "add": lambda: batch.add(customer_id="cus_1"),
    }
    call = calls[verb]
    for _ in range(20 * CALLS):
        call()  # the segments are small at first, and each is begun by a call that waits
    undisturbed = 0
    with wanting_the_interpreter() as had:
        for _ in range(20):
            before = had()
            for _ in range(CALLS):
                call()
            undisturbed += had() == before
    # The engine may be at the spool at times, and a segment may end.
    assert undisturbed > 10
    assert ingestion.stats()["accepted"] == 40 * CALLS
