"""Our client, as the contenders use it."""

import argparse

from contender import API_KEY
from event import EVENT_NAME

from dodo_ingestion import Ingestion

PATIENCE = 300.0


def client(options: argparse.Namespace) -> Ingestion:
    """Open a client with the pace of requests out of the way, as nobody paces the others."""
    return Ingestion(
        api_key=API_KEY,
        base_url=options.base_url,
        event_name=EVENT_NAME,
        spool_dir=options.dir,
        requests_per_minute=1_000_000,
        requests_per_second=100_000,
    )
