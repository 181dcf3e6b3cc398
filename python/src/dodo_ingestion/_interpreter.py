"""Refuses to be imported into a subinterpreter, or without the GIL.

The extension module is of the process: its engine and the objects that it keeps belong to the
interpreter that was first. Python would hand the same module to the next without a word.
"""

import sys
from importlib import import_module
from typing import Any


def _is_first() -> bool:
    for name in ("_interpreters", "_xxsubinterpreters"):  # from Python 3.13, and before it
        try:
            interpreters: Any = import_module(name)
        except ImportError:
            continue
        return bool(interpreters.get_current() == interpreters.get_main())
    return True


if not getattr(sys, "_is_gil_enabled", lambda: True)():
    raise ImportError(
        "dodo_ingestion needs the GIL: start free-threaded Python with PYTHON_GIL=1 or -X gil=1",
        name="dodo_ingestion",
    )

if not _is_first():
    raise ImportError(
        "dodo_ingestion cannot be imported into a subinterpreter: one process has one engine. "
        "Under mod_wsgi choose the first interpreter with WSGIApplicationGroup %{GLOBAL}",
        name="dodo_ingestion",
    )
