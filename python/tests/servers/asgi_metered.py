"""The ASGI app that the preforking servers of these tests serve."""

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from dodo_ingestion import Ingestion
from dodo_ingestion.asgi import MeterMiddleware
from dodo_ingestion.metering import set_metadata


async def call(request: Request) -> PlainTextResponse:
    set_metadata({"number": request.path_params["number"]})
    return PlainTextResponse(str(os.getpid()))


app = Starlette(routes=[Route("/calls/{number:int}", call)])
if "PLAIN" not in os.environ:
    # Made when this is imported: in each worker, or before the workers are forked.
    ingestion = Ingestion(event_name="api_call")
    app.add_middleware(MeterMiddleware, ingestion=ingestion, customer="x-customer-id")
