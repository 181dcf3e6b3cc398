"""The same small API in aiohttp, metered in one line."""

import asyncio
from typing import Any

from aiohttp import web
from asgi_apps import METHODS, chunks, endless
from serving import WAITING

from dodo_ingestion import Ingestion
from dodo_ingestion.aiohttp import set_customer, set_metadata, set_units, setup, skip_metering


def aiohttp_app(ingestion: Ingestion) -> tuple[Any, dict[str, str]]:
    routes = web.RouteTableDef()

    async def status(request: web.Request) -> web.Response:
        return web.Response(status=int(request.match_info["code"]))

    @routes.get("/users/{id}")
    async def user(_request: web.Request) -> web.Response:
        return web.Response(text="ok")

    @routes.get("/raised")
    async def raised(_request: web.Request) -> web.Response:
        raise web.HTTPConflict

    @routes.get("/marked/{customer}")
    async def marked(request: web.Request) -> web.Response:
        set_customer(request, request.match_info["customer"])
        set_units(request, 3)
        set_metadata(request, {"plan": "pro", "long": "x" * 600, "status_code": 1})
        return web.Response(text="ok")

    @routes.get("/skipped")
    async def skipped(request: web.Request) -> web.Response:
        skip_metering(request)
        return web.Response(text="ok")

    @routes.get("/stream")
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for chunk in chunks():
            await response.write(chunk)
        await response.write_eof()
        return response

    @routes.get("/endless")
    async def never(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for chunk in endless():
            await response.write(chunk)
        return response

    @routes.get("/patient")
    async def patient(_request: web.Request) -> web.StreamResponse:
        WAITING.set()
        await asyncio.sleep(60)
        return web.Response()

    @routes.get("/file")
    async def file(_request: web.Request) -> web.StreamResponse:
        return web.FileResponse(__file__)

    @routes.get("/boom")
    async def boom(_request: web.Request) -> web.Response:
        raise RuntimeError("boom")

    @routes.get("/chat/{room}")
    async def chat(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
            await socket.send_json("again")
        return socket

    app = web.Application()
    setup(app, ingestion=ingestion, customer="x-customer-id")
    app.add_routes(routes)
    for method in METHODS:
        app.router.add_route(method, "/status/{code}", status)
    below = web.Application()
    below.router.add_get("/things/{thing}", user)
    app.add_subapp("/below", below)
    return app, {"/users/7": "/users/{id}", "/below/things/x": "/below/things/{thing}"}
