"""What an operator should hear of where nobody listens: the log, and the end of the program."""

import logging
import threading
from collections.abc import Callable

from dodo_ingestion._native import close_at_exit, told

LOGGER = logging.getLogger("dodo_ingestion")

MAIN_THREAD = threading.main_thread().ident


def log(kind: str, message: str) -> None:
    """Log an alarm of the core."""
    LOGGER.warning("%s: %s", kind, message)


def start_telling(listener: Callable[[str, str], object], kind: str, message: str) -> None:
    """Tell an alarm on a thread of its own. The end of the program may kill it: it is Python's.

    The caller's thread is Python's too, but none that `threading` knows: it would stay on its list.
    """

    def tell() -> None:
        try:
            listener(kind, message)
        finally:
            told()

    try:
        threading.Thread(target=tell, name="dodo-alarm", daemon=True).start()
    except RuntimeError:  # there are no more, or the program ends: Python 3.12 starts none then
        log(kind, message)
        told()


def unsettled(error: Exception) -> None:
    """Log what a client could not finish when its block was left by an exception."""
    LOGGER.warning("left by an exception: %s", error)


def close() -> None:
    """Close the clients that are still open, and log what is left. Ctrl-C ends it."""
    try:
        failures = close_at_exit()
    except (KeyboardInterrupt, SystemExit):
        failures = ["interrupted"]
    except Exception as error:
        failures = [str(error)]
    for failure in failures:
        LOGGER.warning("at exit: %s", failure)
