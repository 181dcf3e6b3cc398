"""Awaiting the core under asyncio."""

import asyncio

from dodo_ingestion._native import Pending

_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 0.1


async def settled(pending: Pending) -> None:
    """Wait until `pending` is over.

    The core's threads do not call into Python, so the loop looks, at growing intervals. A look
    costs about a microsecond, and what is waited for takes a second or more.
    """
    pause = _FIRST_PAUSE
    while not pending.poll():
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
