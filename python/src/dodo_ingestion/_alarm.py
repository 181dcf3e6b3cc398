"""What an operator should hear of where nobody listens: the log, and the end of the program."""

import inspect
import threading
from collections.abc import Callable

from dodo_ingestion._native import close_at_exit, told
from dodo_ingestion._notice import warn

MAIN_THREAD = threading.main_thread().ident


def log(kind: str, message: str) -> None:
    """Log an alarm of the core."""
    warn("%s: %s", kind, message)


def tell(listener: Callable[[str, str], object], kind: str, message: str) -> None:
    """Tell an alarm. It is logged too where the listener would have to be awaited."""
    answer = listener(kind, message)
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        log(kind, f"{message} (on_alarm is not awaited: it has to be a plain callable)")


def start_telling(listener: Callable[[str, str], object], kind: str, message: str) -> None:
    """Tell an alarm on a thread of its own. The end of the program may kill it: it is Python's.

    The caller's thread is Python's too, but none that `threading` knows: it would stay on its list.
    """

    def run() -> None:
        try:
            tell(listener, kind, message)
        finally:
            told()

    try:
        threading.Thread(target=run, name="dodo-alarm", daemon=True).start()
    except RuntimeError:  # there are no more, or the program ends: Python 3.12 starts none then
        log(kind, message)
        told()


def unsettled(error: Exception) -> None:
    """Log what a client could not finish when its block was left by an exception."""
    warn("left by an exception: %s", error)


def close() -> None:
    """Close the clients that are still open, and log what is left. Ctrl-C ends it."""
    try:
        failures = close_at_exit()
    except (KeyboardInterrupt, SystemExit):
        failures = ["interrupted"]
    except Exception as error:
        failures = [str(error)]
    for failure in failures:
        warn("at exit: %s", failure)
