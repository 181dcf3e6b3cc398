"""Where gevent has replaced threads by greenlets: waiting without holding up the others."""

import sys
from collections.abc import Callable
from typing import Any

from dodo_ingestion._await import pauses
from dodo_ingestion._native import Pending


def sleep() -> Callable[[float], object] | None:
    """Find the sleep that lets other greenlets run, if there are any."""
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return None
    gevent: Any = sys.modules["gevent"]
    # The hub itself must not wait: a signal handler may be called there.
    if gevent.getcurrent() is gevent.get_hub():
        return None
    found: Callable[[float], object] = gevent.sleep
    return found


def settle(pending: Pending, sleep: Callable[[float], object]) -> None:
    """Wait until `pending` is over."""
    for pause in pauses():
        if pending.poll():
            return
        sleep(pause)
