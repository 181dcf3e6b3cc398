"""A FastAPI app of one route, served by uvicorn until standard input ends.

It prints its port when it is up, and at its end the processor time that it took since it was last
told to measure.
"""

import argparse
import json
import os
import socket
import sys
import threading
import time

import ours
import uvicorn
from contender import Measured, run
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


def route() -> FastAPI:
    """Make the app."""
    app = FastAPI()

    @app.get("/v1/users/{user}", response_class=PlainTextResponse)
    async def answer(user: str) -> str:  # noqa: ARG001
        return "a user"

    return app


class Server(uvicorn.Server):
    """Says when it is up, and serves as long as there is somebody who asks."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start up, and say where."""
        await super().startup(sockets)
        port = sockets[0].getsockname()[1] if sockets else None
        print(json.dumps({"port": port}), flush=True)
        threading.Thread(target=self.watch).start()

    def watch(self) -> None:
        """Measure from each line on, until standard input ends."""
        before = time.process_time()
        for _ in sys.stdin:
            before = time.process_time()
        self.spent = time.process_time() - before
        self.should_exit = True


def serve(app: FastAPI) -> Measured:
    """Serve the app; the processor time that it took."""
    server = Server(uvicorn.Config(app, access_log=False, log_level="warning"))
    server.run(sockets=[socket.create_server(("127.0.0.1", 0))])
    return {"cpu_seconds": server.spent}


def without(_: argparse.Namespace) -> Measured:
    """Serve nothing but the route."""
    return serve(route())


class Seeing:
    """See each part of a response, and do nothing."""

    def __init__(self, app: ASGIApp) -> None:
        """Take the app."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""

        async def seen(message: Message) -> None:
            await send(message)

        await self.app(scope, receive, seen)


def seeing(_: argparse.Namespace) -> Measured:
    """Serve the route with a middleware that sees the response and does nothing."""
    app = route()
    app.add_middleware(Seeing)
    return serve(app)


def with_ours(options: argparse.Namespace) -> Measured:
    """Serve the route with our middleware."""
    from dodo_ingestion.asgi import MeterMiddleware

    with ours.client(options) as ingestion:
        app = route()
        app.add_middleware(MeterMiddleware, ingestion=ingestion, customer="x-customer-id")
        measured = serve(app)
        ingestion.flush(timeout=ours.PATIENCE)
    return measured


def with_apitally(options: argparse.Namespace) -> Measured:
    """Serve the route with Apitally's, which is told to send to the loopback interface."""
    os.environ["APITALLY_OTLP_ENDPOINT"] = options.base_url
    import apitally

    app = route()
    apitally.init(app, write_token=f"apt_{'0' * 24}")
    return serve(app)


if __name__ == "__main__":
    run({"without": without, "ours": with_ours, "seeing": seeing, "apitally": with_apitally})
