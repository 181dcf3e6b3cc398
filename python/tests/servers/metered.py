"""The apps that the preforking servers of these tests serve."""

import os

import flask
from fastapi import FastAPI

from dodo_ingestion import Ingestion
from dodo_ingestion.asgi import MeterMiddleware
from dodo_ingestion.metering import set_metadata
from dodo_ingestion.wsgi import MeterMiddleware as WsgiMiddleware

# Made when this is imported: in each worker, or with --preload before the workers are forked.
INGESTION = Ingestion(event_name="api_call")

wsgi_app = flask.Flask(__name__)
wsgi_app.wsgi_app = WsgiMiddleware(  # type: ignore[method-assign]
    wsgi_app.wsgi_app, ingestion=INGESTION, customer="x-customer-id"
)


@wsgi_app.get("/calls/<int:number>")
def wsgi_call(number: int) -> str:
    set_metadata({"number": number})
    return str(os.getpid())


asgi_app = FastAPI()
asgi_app.add_middleware(MeterMiddleware, ingestion=INGESTION, customer="x-customer-id")


@asgi_app.get("/calls/{number}")
async def asgi_call(number: int) -> int:
    set_metadata({"number": number})
    return os.getpid()
