"""A metered aiohttp app: `python -m aiohttp.web aiohttp_app:make_app`."""

from aiohttp import web

from dodo_ingestion import Ingestion
from dodo_ingestion.aiohttp import setup


async def user(request: web.Request) -> web.Response:
    """Answer."""
    return web.json_response({"id": request.match_info["id"]})


def make_app(_arguments: list[str]) -> web.Application:
    """Make the app."""
    app = web.Application()
    setup(app, ingestion=Ingestion(event_name="api_call"), customer="x-customer-id")
    app.router.add_get("/users/{id}", user)
    return app
