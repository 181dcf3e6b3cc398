"""Awaiting the core under asyncio and trio, and so under anyio."""

import sys
from collections.abc import Awaitable, Callable, Generator, Iterator
from typing import Any, TypeVar

from dodo_ingestion import _alarm
from dodo_ingestion._native import Pending
from dodo_ingestion.errors import IngestionError

_T = TypeVar("_T")


def pauses() -> Iterator[float]:
    """Give how long to wait between one look and the next: longer and longer."""
    pause = 0.005
    while True:
        yield pause
        pause = min(pause * 2, 0.1)


def running_trio() -> Any:  # noqa: ANN401
    """Give trio, if it is what runs this."""
    trio: Any = sys.modules.get("trio")
    if trio is None:
        return None
    try:
        trio.lowlevel.current_task()
    except RuntimeError:  # trio is loaded and runs something else, or nothing
        return None
    return trio


def _sleep() -> Callable[[float], Awaitable[object]]:
    """Find the sleep of whichever event loop runs this."""
    trio = running_trio()
    if trio is not None:
        sleep: Callable[[float], Awaitable[object]] = trio.sleep
        return sleep
    import asyncio  # noqa: PLC0415, RUF100 - not before a program uses it

    return asyncio.sleep


async def settled(pending: Pending) -> None:
    """Wait until `pending` is over.

    The core's threads do not call into Python, so the loop looks, at growing intervals. With the
    timer a look costs some ten microseconds: a thousand that wait at a time take about a tenth of
    a core. What is waited for takes a second or more.
    """
    sleep = _sleep()
    for pause in pauses():
        if pending.poll():
            return
        await sleep(pause)


def at_once(value: _T) -> Generator[Any, None, _T]:
    """Give `value` to whoever awaits it, without a wait."""
    return value
    yield


async def entered(value: _T) -> _T:
    """Enter an `async with`."""
    return value


async def left(pending: Pending, failed: bool) -> None:
    """Leave an `async with`. What a failed block raised goes before what the wait raises."""
    try:
        await settled(pending)
    except IngestionError as error:
        if not failed:
            raise
        _alarm.unsettled(error)
