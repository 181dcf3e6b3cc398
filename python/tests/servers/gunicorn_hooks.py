"""What gunicorn calls in the servers of these tests."""

import os
from pathlib import Path


def post_worker_init(_worker: object) -> None:
    """Report that a worker hears of its end: until now it had the signal handlers of its master."""
    Path(os.environ["REPORTS"], f"{os.getpid()}.ready").touch()
