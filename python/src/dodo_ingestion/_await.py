"""Awaiting the core under asyncio and trio, and so under anyio."""

import sys
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
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


def _shield() -> AbstractContextManager[object]:
    """Make what a scope that is cancelled lets one wait in.

    A task that asyncio itself cancels is told once, and can wait.
    """
    scopes: Any = running_trio() or sys.modules.get("anyio")
    if scopes is None:
        return nullcontext()
    shield: AbstractContextManager[object] = scopes.CancelScope(shield=True)
    return shield


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


async def until(done: Callable[[], bool], limit: float) -> None:
    """Wait until something is so, for at most so many seconds."""
    sleep = _sleep()
    end = time.monotonic() + limit
    for pause in pauses():
        if done() or time.monotonic() >= end:
            return
        await sleep(pause)


class CancelledByOthersError(Exception):
    """What was awaited was cancelled, and who awaited it was not."""


async def within(limit: float, awaitable: Awaitable[_T]) -> _T:
    """Await something for at most so many seconds, in the task that this is.

    Raises:
        CancelledByOthersError: It was cancelled, as a task is that several await.
        Exception: The time was over, which is of another type with each loop.

    """
    trio = running_trio()
    if trio is not None:
        with trio.fail_after(limit):
            return await awaitable
    if sys.version_info < (3, 11):
        return await within_a_task(limit, awaitable)
    import asyncio  # noqa: PLC0415, RUF100 - not before a program uses it

    task: Any = asyncio.current_task()
    before = task.cancelling()
    try:
        async with asyncio.timeout(limit):
            return await awaitable
    except asyncio.CancelledError as error:
        if task.cancelling() > before:
            raise
        raise CancelledByOthersError from error


async def within_a_task(limit: float, awaitable: Awaitable[_T]) -> _T:
    """Do as `within` does under asyncio before 3.11, where no task knows whether it is cancelled.

    In a task of its own, whose end does not cancel who waits for it.
    """
    import asyncio  # noqa: PLC0415, RUF100 - not before a program uses it

    task = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait({task}, timeout=limit)
        if not task.done():
            raise asyncio.TimeoutError
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    if task.cancelled():
        raise CancelledByOthersError
    return task.result()


def at_once(value: _T) -> Generator[Any, None, _T]:
    """Give `value` to whoever awaits it, without a wait."""
    return value
    yield


async def entered(value: _T) -> _T:
    """Enter an `async with`."""
    return value


async def left(pending: Pending, failed: bool) -> None:
    """Leave an `async with`. What a failed block raised goes before what the wait raises.

    Such a block may have been cancelled, and the wait is not: it is bounded.
    """
    try:
        with _shield() if failed else nullcontext():
            await settled(pending)
    except IngestionError as error:
        if not failed:
            raise
        _alarm.unsettled(error)
