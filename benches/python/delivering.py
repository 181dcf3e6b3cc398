"""Calls made and delivered: from the first that is built to the last that is acknowledged."""

import argparse
import time
from functools import partial

import event
import ours
from contender import API_KEY, Measured, run


def track_api_call(options: argparse.Namespace) -> Measured:
    """Track with our verb, and flush once at the end."""
    from dodo_ingestion import track_api_call

    with ours.client(options) as ingestion:
        start = time.perf_counter()
        for number in range(options.calls):
            track_api_call(
                ingestion,
                customer_id=event.customer(number),
                metadata=event.metadata(number),
            )
        ingestion.flush(timeout=ours.PATIENCE)
        seconds = time.perf_counter() - start
    return {"seconds": seconds}


def sdk(options: argparse.Namespace, *, at_a_time: int) -> Measured:
    """Send batches that are made by hand with the official SDK."""
    from dodopayments import DodoPayments

    with DodoPayments(bearer_token=API_KEY, base_url=options.base_url) as client:
        start = time.perf_counter()
        for first in range(0, options.calls, at_a_time):
            numbers = range(first, min(first + at_a_time, options.calls))
            client.usage_events.ingest(events=[event.event(number) for number in numbers])
        seconds = time.perf_counter() - start
    return {"seconds": seconds}


if __name__ == "__main__":
    run(
        {
            "ours": track_api_call,
            "sdk-100": partial(sdk, at_a_time=100),
            "sdk-1000": partial(sdk, at_a_time=1000),
        }
    )
