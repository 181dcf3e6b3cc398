"""An ASGI app that does exactly what a test asks for."""

import asyncio
from collections.abc import Callable
from typing import Any

from dodo_ingestion.asgi import MeterMiddleware


class Asgi:
    """An ASGI app and its server, in one."""

    def __init__(
        self,
        *,
        status: int | None = 200,
        matched: bool = True,
        aborted: bool = False,
        before: Callable[[dict[str, Any]], None] = lambda _scope: None,
    ) -> None:
        self.status = status
        self.matched = matched
        self.aborted = aborted
        self.before = before
        self.sent: list[dict[str, Any]] = []

    async def app(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401
        if self.matched:
            scope["path_template"] = "/things/{thing}"
        self.before(scope)
        if self.status is not None:
            await send({"type": "http.response.start", "status": self.status, "headers": []})
            await send({"type": "http.response.body", "body": b"some", "more_body": True})
        if self.aborted:
            await receive()
        else:
            await send({"type": "http.response.body", "body": b" more"})

    def serve(
        self,
        ingestion: Any,  # noqa: ANN401
        customer_id: str = "",
        *,
        method: str = "GET",
        path: str = "/things/7",
        **options: Any,  # noqa: ANN401
    ) -> None:
        app: Any = MeterMiddleware(self.app, ingestion=ingestion, **options)
        headers = [(b"x-customer-id", customer_id.encode())] if customer_id else []
        scope = {"type": "http", "method": method, "path": path, "headers": headers}

        async def receive() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            self.sent.append(message)

        asyncio.run(app(scope, receive, send))


async def call(app: Any, path: str, customer: str, method: str = "GET") -> int:  # noqa: ANN401
    """Make a call as a server does, and give its status."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"x-customer-id", customer.encode())]
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    rest = {"raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http"}
    await app({**scope, **rest, "asgi": {"version": "3.0"}}, receive, send)
    status: int = sent[0]["status"]
    return status
