"""The same small API in each ASGI framework, metered in one line."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import falcon
import falcon.asgi
import litestar
import litestar.middleware
import litestar.response
import quart
from fastapi import APIRouter, FastAPI, Request, Response, WebSocket
from fastapi.responses import StreamingResponse
from litestar.types import Receive, Scope, Send
from serving import CHUNKS, METERED, WAITING
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse
from starlette.responses import Response as StarletteResponse
from starlette.responses import StreamingResponse as StarletteStream
from starlette.routing import Mount, Route, Router, WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket

from dodo_ingestion import Ingestion
from dodo_ingestion.asgi import (
    MeterMiddleware,
    set_customer,
    set_metadata,
    set_units,
    skip_metering,
)

METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD"]


async def chunks() -> AsyncIterator[bytes]:
    for chunk in CHUNKS:
        yield chunk
        await asyncio.sleep(0.02)


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b"more " * 1000
        await asyncio.sleep(0.01)


async def broken() -> AsyncIterator[bytes]:
    yield CHUNKS[0]
    raise RuntimeError("boom")


async def until_metered() -> None:
    while not METERED.is_set():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def failing() -> None:
    raise RuntimeError("boom")


def mark(request: object, customer: str) -> None:
    set_customer(request, customer)
    set_units(request, 3)
    set_metadata(request, {"plan": "pro", "long": "x" * 600, "status_code": 1})


class Hiding:
    """A middleware that does not show what it wraps."""

    def __init__(self, wrapped: Any) -> None:  # noqa: ANN401
        self._wrapped = wrapped

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401
        await self._wrapped(scope, receive, send)


def fastapi_app(ingestion: Ingestion) -> tuple[Any, dict[str, str]]:
    app = FastAPI()
    app.add_middleware(MeterMiddleware, ingestion=ingestion, customer="x-customer-id")

    @app.api_route("/status/{code}", methods=METHODS)
    async def status(code: int) -> Response:
        return Response(status_code=code)

    @app.get("/users/{id}")
    def user(id: str) -> dict[str, str]:  # noqa: A002
        return {"id": id}

    @app.get("/marked/{customer}")
    def marked(request: Request, customer: str) -> str:
        mark(request, customer)
        return "ok"

    @app.get("/marked-by-task/{customer}")
    async def marked_by_task(customer: str) -> str:
        set_customer(customer)
        set_units(2.5)
        return "ok"

    @app.get("/skipped")
    async def skipped(request: Request) -> str:
        skip_metering(request)
        return "ok"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(chunks())

    @app.get("/endless")
    async def never() -> StreamingResponse:
        return StreamingResponse(endless())

    @app.get("/broken")
    async def half() -> StreamingResponse:
        return StreamingResponse(broken())

    @app.get("/boom")
    async def boom() -> None:
        raise RuntimeError("boom")

    @app.websocket("/chat/{room}")
    async def chat(websocket: WebSocket, room: str) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(f"{room} {text}")
            await websocket.send_text("again")

    inner = APIRouter(prefix="/teams")

    @inner.get("/{team}")
    async def team(team: str) -> str:
        return team

    outer = APIRouter()
    outer.include_router(inner)
    app.include_router(outer, prefix="/v1")
    app.include_router(outer, prefix="/v2")

    tenant = FastAPI()

    @tenant.get("/items/{item}")
    async def item(item: str) -> str:
        return item

    @tenant.get("/shared/{name}")
    async def shared(name: str) -> str:
        return name

    deep = FastAPI()
    deep.mount("/deep/{side}", tenant)
    app.mount("/tenants/{tenant}", tenant)
    app.mount("/zipped", GZipMiddleware(tenant))
    app.mount("/hidden/{by}", Hiding(deep))
    app.mount("/hidden-flat", Hiding(tenant))
    mounted = PlainTextResponse("mounted")
    app.mount("/mounted", mounted)
    app.mount("/also/{where}/mounted", mounted)
    return app, {
        "/users/7": "/users/{id}",
        "/users/7?token=secret": "/users/{id}",
        "/v1/teams/3": "/v1/teams/{team}",
        "/v2/teams/3": "/v2/teams/{team}",
        "/tenants/acme/items/5": "/tenants/{tenant}/items/{item}",
        "/mounted/x/y": "/mounted/{path:path}",
        "/also/here/mounted/x/y": "/also/{where}/mounted/{path:path}",
        "/zipped/items/5": "/zipped/items/{item}",
        "/hidden-flat/shared/5": "/hidden-flat/shared/{name}",
        "/hidden/secret/deep/secret/items/5": "/hidden/{by}/{path:path}",
        "/tenants/acme/nothing": "",
    }


def starlette_app(ingestion: Ingestion) -> tuple[Any, dict[str, str]]:
    async def status(request: StarletteRequest) -> StarletteResponse:
        return StarletteResponse(status_code=request.path_params["code"])

    async def user(request: StarletteRequest) -> StarletteResponse:
        return PlainTextResponse(request.path_params["id"])

    async def marked(request: StarletteRequest) -> StarletteResponse:
        mark(request, request.path_params["customer"])
        return PlainTextResponse("ok")

    async def skipped(request: StarletteRequest) -> StarletteResponse:
        skip_metering(request.scope)
        return PlainTextResponse("ok")

    async def stream(_request: StarletteRequest) -> StarletteResponse:
        return StarletteStream(chunks())

    async def never(_request: StarletteRequest) -> StarletteResponse:
        return StarletteStream(endless())

    async def half(_request: StarletteRequest) -> StarletteResponse:
        return StarletteStream(broken())

    async def background(_request: StarletteRequest) -> StarletteResponse:
        return PlainTextResponse("ok", background=BackgroundTask(until_metered))

    async def bad_background(_request: StarletteRequest) -> StarletteResponse:
        return PlainTextResponse("ok", background=BackgroundTask(failing))

    async def patient(request: StarletteRequest) -> StarletteResponse:
        WAITING.set()
        while not await request.is_disconnected():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return PlainTextResponse("to nobody")

    async def boom(_request: StarletteRequest) -> StarletteResponse:
        raise RuntimeError("boom")

    async def chat(websocket: StarletteWebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)
            await websocket.send_text("again")

    async def refused(websocket: StarletteWebSocket) -> None:
        await websocket.close()

    async def failed(websocket: StarletteWebSocket) -> None:
        await websocket.accept()
        raise RuntimeError("boom")

    mounted = PlainTextResponse("mounted")
    things = Router([Route("/{thing:int}", user_of("thing")), Route("/all", user_of("thing"))])
    app = Starlette(
        routes=[
            Route("/status/{code:int}", status, methods=METHODS),
            Route("/users/{id}", user),
            Route("/marked/{customer}", marked),
            Route("/skipped", skipped),
            Route("/stream", stream),
            Route("/endless", never),
            Route("/broken", half),
            Route("/background", background),
            Route("/bad-background", bad_background),
            Route("/patient", patient),
            Route("/boom", boom),
            WebSocketRoute("/chat/{room}", chat),
            WebSocketRoute("/refused", refused),
            WebSocketRoute("/failed", failed),
            Mount("/a", routes=[Mount("/b/{b}", app=things)]),
            Mount("/mounted", mounted),
            Mount("/also/{where}/mounted", mounted),
        ]
    )
    metered = MeterMiddleware(app, ingestion=ingestion, customer="x-customer-id")
    return metered, {
        "/users/7": "/users/{id}",
        "/a/b/c/5": "/a/b/{b}/{thing:int}",
        "/a/b/c/all": "/a/b/{b}/all",
        "/a/b/c/none": "",
        "/mounted/x": "/mounted/{path:path}",
        "/mounted/x/y": "/mounted/{path:path}",
        "/also/here/mounted/x/y": "/also/{where}/mounted/{path:path}",
    }


def user_of(name: str) -> Any:  # noqa: ANN401
    async def endpoint(request: StarletteRequest) -> StarletteResponse:
        return PlainTextResponse(str(request.path_params.get(name)))

    return endpoint


def litestar_app(ingestion: Ingestion) -> tuple[Any, dict[str, str]]:
    @litestar.route("/status/{code:int}", http_method=["GET", "POST", "PUT", "DELETE", "HEAD"])
    async def status(request: litestar.Request[Any, Any, Any]) -> litestar.Response[None]:
        return litestar.Response(None, status_code=request.path_params["code"])

    @litestar.get("/users/{id:str}")
    async def user(request: litestar.Request[Any, Any, Any]) -> str:
        return str(request.path_params["id"])

    @litestar.get("/marked/{customer:str}")
    async def marked(request: litestar.Request[Any, Any, Any]) -> str:
        mark(request, request.path_params["customer"])
        return "ok"

    @litestar.get("/skipped")
    async def skipped(request: litestar.Request[Any, Any, Any]) -> str:
        skip_metering(request)
        return "ok"

    @litestar.get("/stream")
    async def stream() -> litestar.response.Stream:
        return litestar.response.Stream(chunks())

    @litestar.get("/endless")
    async def never() -> litestar.response.Stream:
        return litestar.response.Stream(endless())

    @litestar.get("/boom")
    async def boom() -> None:
        raise RuntimeError("boom")

    @litestar.websocket("/chat/{room:str}")
    async def chat(socket: litestar.WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        async for text in socket.iter_data("text"):
            await socket.send_text(text)
            await socket.send_text("again")

    @litestar.asgi(["/mounted", "/also/mounted"], is_mount=True, copy_scope=True)
    async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("mounted")(scope, receive, send)  # type: ignore[arg-type]

    inner = litestar.Router("/inner/{part:str}", route_handlers=[user])
    below = litestar.Router("/below", route_handlers=[mounted])
    app = litestar.Litestar(
        [status, user, marked, skipped, stream, never, boom, chat, inner, mounted, below],
        logging_config=None,
        openapi_config=None,
    )
    metered = MeterMiddleware(app, ingestion=ingestion, customer="x-customer-id")
    return metered, {
        "/users/7": "/users/{id}",
        "/inner/x/users/7": "/inner/{part}/users/{id}",
        "/mounted/x/y": "/mounted/{path:path}",
        "/also/mounted": "/also/mounted/{path:path}",
        "/below/also/mounted/x": "/below/also/mounted/{path:path}",
    }


def quart_app(ingestion: Ingestion) -> tuple[Any, dict[str, str]]:
    app = quart.Quart(__name__)

    @app.route("/status/<int:code>", methods=METHODS)
    async def status(code: int) -> tuple[str, int]:
        return "", code

    @app.get("/users/<int:id>")
    async def user(id: int) -> str:  # noqa: A002
        return str(id)

    @app.get("/marked/<customer>")
    async def marked(customer: str) -> str:
        mark(quart.request, customer)
        return "ok"

    @app.get("/skipped")
    async def skipped() -> str:
        skip_metering(quart.request)
        return "ok"

    @app.get("/stream")
    async def stream() -> Any:  # noqa: ANN401
        return chunks()

    @app.get("/endless")
    async def never() -> Any:  # noqa: ANN401
        return endless()

    @app.get("/boom")
    async def boom() -> str:
        raise RuntimeError("boom")

    @app.websocket("/chat/<room>")
    async def chat(room: str) -> None:
        while True:
            text = await quart.websocket.receive()
            await quart.websocket.send(f"{room} {text!r}")
            await quart.websocket.send("again")

    blueprint = quart.Blueprint("v1", __name__, url_prefix="/v1")

    @blueprint.get("/teams/<team>")
    async def team(team: str) -> str:
        return team

    app.register_blueprint(blueprint)
    app.asgi_app = MeterMiddleware(  # type: ignore[method-assign]
        app.asgi_app, ingestion=ingestion, customer="x-customer-id"
    )
    return app, {"/users/7": "/users/<int:id>", "/v1/teams/a": "/v1/teams/<team>"}


class _Status:
    async def on_get(self, _req: Any, resp: Any, code: int) -> None:  # noqa: ANN401
        resp.status = code

    on_post = on_put = on_delete = on_head = on_get


class _User:
    async def on_get(self, _req: Any, resp: Any, **_params: str) -> None:  # noqa: ANN401
        resp.text = "ok"


class _Marked:
    async def on_get(self, req: Any, resp: Any, customer: str) -> None:  # noqa: ANN401
        mark(req, customer)
        resp.text = "ok"


class _Skipped:
    async def on_get(self, req: Any, resp: Any) -> None:  # noqa: ANN401
        skip_metering(req)
        resp.text = "ok"


class _Stream:
    async def on_get(self, req: Any, resp: Any) -> None:  # noqa: ANN401
        resp.stream = endless() if req.path == "/endless" else chunks()


class _Boom:
    async def on_get(self, _req: Any, _resp: Any) -> None:  # noqa: ANN401
        raise RuntimeError("boom")


class _Chat:
    async def on_websocket(self, _req: Any, ws: Any, room: str) -> None:  # noqa: ANN401
        await ws.accept()
        try:
            while True:
                text = await ws.receive_text()
                await ws.send_text(f"{room} {text}")
                await ws.send_text("again")
        except falcon.WebSocketDisconnected:
            pass


def falcon_app(ingestion: Ingestion) -> tuple[Any, dict[str, str]]:
    app: Any = falcon.asgi.App()
    app.add_route("/status/{code:int}", _Status())
    app.add_route("/users/{id}", _User())
    app.add_route("/v1/teams/{team}", _User())
    app.add_route("/marked/{customer}", _Marked())
    app.add_route("/skipped", _Skipped())
    app.add_route("/stream", _Stream())
    app.add_route("/endless", _Stream())
    app.add_route("/boom", _Boom())
    app.add_route("/chat/{room}", _Chat())
    metered = MeterMiddleware(app, ingestion=ingestion, customer="x-customer-id")
    return metered, {"/users/7": "/users/{id}", "/v1/teams/a": "/v1/teams/{team}"}
