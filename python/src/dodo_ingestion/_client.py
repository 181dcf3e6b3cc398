"""The client of a middleware: given, or made when the first call wants it."""

from __future__ import annotations

import math
import os
import threading
import time
from typing import TYPE_CHECKING, Final

from dodo_ingestion._native import Ingestion
from dodo_ingestion._notice import Notice
from dodo_ingestion.errors import ClosedError, ConfigurationError

if TYPE_CHECKING:
    from dodo_ingestion._options import IngestionSource

_RETRY_AFTER: Final = 5.0
_PAUSE: Final = 0.01


class _Making:
    """The attempts of a process to make one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.at = -math.inf


class Client:
    """An `Ingestion`, or what makes one."""

    def __init__(self, source: IngestionSource) -> None:
        self._source = source
        self.made = source if isinstance(source, Ingestion) else None
        # By process: a child may find its parent in the middle, in a thread that it does not have.
        self._makings: dict[int, _Making] = {}
        self._unflushed = Notice("calls wait for another process of the account")

    def instead_of(self, closed: Ingestion) -> Ingestion:
        """Ask again for one where one turned out to be closed. It may be the same.

        Raises:
            Exception: It cannot be made.

        """
        return self.make(closed) if callable(self._source) else closed

    def exit_timeout(self, unmade: float) -> float:
        """Tell how long the end of the program may take."""
        return unmade if self.made is None else self.made.exit_timeout

    async def flush(self, limit: float) -> None:
        """Bill what waits, within so many seconds."""
        ingestion = self.made
        if ingestion is None:
            return
        try:
            await ingestion.aflush(timeout=limit)
        except ClosedError:
            pass  # the app has closed it, which bills what waits
        except Exception as error:
            self._unflushed.occur(error)

    def make(self, closed: Ingestion | None = None) -> Ingestion:
        """Make one, unless there is one meanwhile that is not the closed one.

        Raises:
            Exception: It cannot be made, or could not be a moment ago.

        """
        # Where gevent came after the lock was made, another greenlet may have it: a sleep lets that
        # run.
        until = time.monotonic() + _RETRY_AFTER
        making = self._makings.setdefault(os.getpid(), _Making())
        while not making.lock.acquire(blocking=False):
            if time.monotonic() >= until:
                raise ConfigurationError("ingestion: is not made yet", field="ingestion")
            time.sleep(_PAUSE)
        try:
            if self.made is None or self.made is closed:
                now = time.monotonic()
                if now - making.at < _RETRY_AFTER:
                    if closed is not None:
                        return closed
                    raise ConfigurationError("ingestion: could not be made", field="ingestion")
                making.at = now
                made = self._source() if callable(self._source) else self._source
                if not isinstance(made, Ingestion):
                    kind = type(made).__name__
                    message = f"ingestion: made a {kind}, not an Ingestion"
                    raise ConfigurationError(message, field="ingestion")
                if made is not closed:
                    making.at = -math.inf
                self.made = made
            return self.made
        finally:
            making.lock.release()
