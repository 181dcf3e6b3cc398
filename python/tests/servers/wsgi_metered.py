"""The WSGI app that the preforking servers of these tests serve."""

import os

import flask

from dodo_ingestion import Ingestion
from dodo_ingestion.metering import set_metadata
from dodo_ingestion.wsgi import MeterMiddleware

# Made when this is imported: in each worker, or before the workers are forked.
INGESTION = Ingestion(event_name="api_call")

app = flask.Flask(__name__)
app.wsgi_app = MeterMiddleware(  # type: ignore[method-assign]
    app.wsgi_app, ingestion=INGESTION, customer="x-customer-id"
)


@app.get("/calls/<int:number>")
def call(number: int) -> str:
    set_metadata({"number": number})
    return str(os.getpid())
