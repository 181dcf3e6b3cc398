"""The WSGI app that the preforking servers of these tests serve."""

import atexit
import os
import time
from pathlib import Path

import flask

REPORTS = Path(os.environ["REPORTS"])


def report(what: str) -> None:
    """Say what this process has done, and when."""
    (REPORTS / f"{os.getpid()}.{what}").write_text(str(time.monotonic()))


# Exit handlers run in the reverse order: that of the package is between these two.
atexit.register(report, "ended")

from dodo_ingestion import Ingestion  # noqa: E402
from dodo_ingestion.metering import set_metadata  # noqa: E402
from dodo_ingestion.wsgi import MeterMiddleware  # noqa: E402

atexit.register(report, "ends")

app = flask.Flask(__name__)
if "PLAIN" not in os.environ:
    # Made when this is imported: in each worker, or before the workers are forked.
    ingestion = Ingestion(event_name="api_call")
    app.wsgi_app = MeterMiddleware(  # type: ignore[method-assign]
        app.wsgi_app, ingestion=ingestion, customer="x-customer-id"
    )


@app.get("/calls/<int:number>")
def call(number: int) -> str:
    set_metadata({"number": number})
    return str(os.getpid())
