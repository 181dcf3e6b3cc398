"""A metered Litestar app: `uvicorn litestar_app:app`."""

from typing import Any

import litestar

from dodo_ingestion import Ingestion
from dodo_ingestion.asgi import MeterMiddleware


@litestar.get("/users/{id:str}")
async def user(request: litestar.Request[Any, Any, Any]) -> str:
    """Answer."""
    return str(request.path_params["id"])


app = MeterMiddleware(
    litestar.Litestar([user]),
    ingestion=Ingestion(event_name="api_call"),
    customer="x-customer-id",
)
