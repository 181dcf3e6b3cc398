"""What an operator should hear of, at most once a minute each."""

import logging
import time

_REPEAT = 60.0


def warn(message: str, *details: object, error: BaseException | None = None) -> None:
    """Log a warning.

    The logger is looked up here: `logging.config` disables those that there are when it is called.
    """
    logging.getLogger("dodo_ingestion").warning(message, *details, exc_info=error)


class Notice:
    """One thing that may go wrong, and how often it did.

    It has no lock, which a forked child might find taken: threads that meet here cost a line twice.
    """

    __slots__ = ("_message", "_occurred", "_told", "_told_at")

    def __init__(self, message: str) -> None:
        self._message = message
        self._occurred = 0
        self._told = 0
        self._told_at: float | None = None

    def occur(self, detail: object, error: BaseException | None = None) -> None:
        """Count one more, and log it when it is time to."""
        self._occurred += 1
        now = time.monotonic()
        if self._told_at is not None and now - self._told_at < _REPEAT:
            return
        since = self._occurred - self._told
        self._told_at, self._told = now, self._occurred
        times = f" ({since} times since it was last told)" if since > 1 else ""
        warn("%s: %s%s", self._message, detail, times, error=error)
