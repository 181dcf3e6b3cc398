"""The client of a middleware: given, or made when the first call wants it."""

from __future__ import annotations

import math
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


class Client:
    """An `Ingestion`, or what makes one."""

    def __init__(self, source: IngestionSource) -> None:
        self._source = source
        self._ingestion = source if isinstance(source, Ingestion) else None
        self._making = threading.Lock()
        self._made_at = -math.inf
        self._unflushed = Notice("calls wait for another process of the account")

    def get(self) -> Ingestion:
        """Give it, made if need be.

        Raises:
            Exception: It cannot be made, or could not be a moment ago.

        """
        return self._ingestion or self._make()

    async def flush_at_shutdown(self) -> None:
        """Bill what waits, for as long as the end of the program may take."""
        ingestion = self._ingestion
        if ingestion is None:
            return
        try:
            await ingestion.aflush(timeout=ingestion.exit_timeout)
        except ClosedError:
            pass  # the app has closed it, which bills what waits
        except Exception as error:
            self._unflushed.occur(error)

    def _make(self) -> Ingestion:
        # A forked child may find the lock taken by a thread that it does not have. And where gevent
        # came after the lock was made, another greenlet may have it: a sleep lets that run.
        until = time.monotonic() + _RETRY_AFTER
        while not self._making.acquire(blocking=False):
            if time.monotonic() >= until:
                raise ConfigurationError("ingestion: is not made yet", field="ingestion")
            time.sleep(_PAUSE)
        try:
            if self._ingestion is None:
                now = time.monotonic()
                if now - self._made_at < _RETRY_AFTER:
                    raise ConfigurationError("ingestion: could not be made", field="ingestion")
                self._made_at = now
                made = self._source() if callable(self._source) else self._source
                if not isinstance(made, Ingestion):
                    kind = type(made).__name__
                    message = f"ingestion: made a {kind}, not an Ingestion"
                    raise ConfigurationError(message, field="ingestion")
                self._ingestion = made
            return self._ingestion
        finally:
            self._making.release()
