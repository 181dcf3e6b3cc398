"""What one tracked call costs its thread, while others are delivered in the background."""

import argparse
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import event
import ours
from contender import API_KEY, Measured, run

WARM_UP = 200
CONTENDED = "-contended"


@contextmanager
def computing() -> Iterator[None]:
    """Have another thread compute."""
    done = False

    def compute() -> None:
        number = 0
        while not done:
            number += 1

    thread = threading.Thread(target=compute)
    thread.start()
    yield
    done = True
    thread.join()


def measure(options: argparse.Namespace, track: Callable[[int], object]) -> Measured:
    """Time the loop that makes the calls. The first of them are made before."""
    for number in range(WARM_UP):
        track(number)
    clock = time.thread_time_ns if options.cpu else time.perf_counter_ns
    with computing() if options.contender.endswith(CONTENDED) else nullcontext():
        start = clock()
        for number in range(options.calls):
            track(number)
        spent = clock() - start
    return {"nanoseconds": spent / options.calls, "made": options.calls + WARM_UP}


def build_event(options: argparse.Namespace) -> Measured:
    """Make nothing but the event in pure Python: its id, its time and the dictionary."""
    return measure(options, event.event)


def track_api_call(options: argparse.Namespace) -> Measured:
    """Track with our verb."""
    from dodo_ingestion import track_api_call

    with ours.client(options) as ingestion:
        measured = measure(
            options,
            lambda number: track_api_call(
                ingestion,
                customer_id=event.customer(number),
                metadata=event.metadata(number),
            ),
        )
        ingestion.flush(timeout=ours.PATIENCE)
    return measured


def posthog(options: argparse.Namespace) -> Measured:
    """Capture into PostHog's queue, which a thread of its own empties."""
    from posthog import Posthog

    client = Posthog(API_KEY, host=options.base_url)
    measured = measure(
        options,
        lambda number: client.capture(
            event.EVENT_NAME,
            distinct_id=event.customer(number),
            properties=event.metadata(number),
        ),
    )
    client.shutdown()
    return measured


def segment(options: argparse.Namespace) -> Measured:
    """Track into Segment's queue, which a thread of its own empties."""
    from segment.analytics.client import Client

    client = Client(API_KEY, host=options.base_url)
    measured = measure(
        options,
        lambda number: client.track(
            user_id=event.customer(number),
            event=event.EVENT_NAME,
            properties=event.metadata(number),
        ),
    )
    client.shutdown()
    return measured


if __name__ == "__main__":
    trackers = {"ours": track_api_call, "posthog": posthog, "segment": segment}
    contended = {name + CONTENDED: tracker for name, tracker in trackers.items()}
    run({"build-event": build_event, **trackers, **contended})
