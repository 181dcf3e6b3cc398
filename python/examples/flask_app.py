"""A metered Flask app: `waitress-serve flask_app:app`, or gunicorn."""

from typing import Any

import flask

from dodo_ingestion import Ingestion
from dodo_ingestion.wsgi import MeterMiddleware, set_customer

KEYS = {"secret-1": "cus_example_key"}

app: Any = flask.Flask(__name__)
app.wsgi_app = MeterMiddleware(app.wsgi_app, ingestion=Ingestion(event_name="api_call"))


@app.before_request  # type: ignore[untyped-decorator]
def authenticate() -> None:
    """Know the customer by the key."""
    customer = KEYS.get(flask.request.headers.get("X-Api-Key", ""))
    if customer is None:
        flask.abort(401)
    set_customer(flask.request, customer)


@app.get("/users/<int:id>")  # type: ignore[untyped-decorator]
def user(id: int) -> dict[str, int]:  # noqa: A002
    """Answer."""
    return {"id": id}
