"""Metering for ASGI apps: FastAPI, Starlette, Litestar, Quart, Falcon and any other.

>>> app.add_middleware(MeterMiddleware, ingestion=ingestion, customer="x-customer-id")

or, around any app, `app = MeterMiddleware(app, ingestion=ingestion, customer="x-customer-id")`. Its
options are those of `MeteringOptions`. Callables are given the scope; `customer` may be async.
Starlette runs a handler for `Exception` outside of what is added: what it answers is metered only
around the app.

A call's event is made before the last of its body is handed to the server, so that what a client
has received is billed even if this process is killed. A WebSocket session makes one event, when it
ends. Query strings and bodies are never read.

When the server ends the app's lifespan, what waits is billed first: uvicorn runs no exit handlers
after a signal.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from dodo_ingestion import _routes
from dodo_ingestion._exchange import KEY, SAID, Exchange, current, reset
from dodo_ingestion._metering import Metering, MissingCustomer
from dodo_ingestion._native import customer_in_asgi_headers
from dodo_ingestion.metering import (
    set_customer,
    set_endpoint,
    set_metadata,
    set_units,
    skip_metering,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from dodo_ingestion._options import IngestionSource, MeteringOptions

__all__ = [
    "MeterMiddleware",
    "MissingCustomer",
    "set_customer",
    "set_endpoint",
    "set_metadata",
    "set_units",
    "skip_metering",
]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
# Frameworks write the types of a scope and its messages each in a way of its own.
Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]
App: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]

_SHUTDOWNS = ("lifespan.shutdown.complete", "lifespan.shutdown.failed")
_NORMAL_CLOSURES = (1000, 1001, 1005)


_Function = TypeVar("_Function", bound=Callable[..., Awaitable[None]])


def _as_if_async(function: _Function) -> _Function:
    """Mark a function that gives a coroutine as one, for those who ask before they call it."""
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(function)
    function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]
    return function


class MeterMiddleware:
    """Meters the calls of an ASGI app."""

    def __init__(
        self,
        app: App,
        *,
        ingestion: IngestionSource,
        **options: Unpack[MeteringOptions],
    ) -> None:
        self.app = app
        self._metering = Metering(ingestion, options, header=_header, asynchronous=True)
        self._templates = _routes.AsgiTemplates()
        with self._metering.guarded("no route templates"):
            _routes.watch(app)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve a connection, and meter it if it is one of HTTP or a WebSocket."""
        kind = scope["type"]
        call: _Http | _WebSocket
        if KEY in scope:
            return await self.app(scope, receive, send)
        if kind == "http":
            call = _Http(self._metering, self._templates, scope, receive, send)
        elif kind == "websocket":
            call = _WebSocket(self._metering, self._templates, scope, receive, send)
        elif kind == "lifespan":
            return await self.app(scope, receive, self._flushing(send))
        else:
            return await self.app(scope, receive, send)
        scope[KEY] = call
        if SAID in scope:
            call.hear(scope.pop(SAID))
        self._metering.unfinished.add(call)
        token = current.set(call)
        try:
            await self.app(scope, call.receive, call.send)
        except Exception:
            call.raised()
            await call.finish_async()
            raise
        except BaseException:  # each event loop has a cancellation of its own
            call.cancel()
            await call.finish_cancelled()
            raise
        else:
            if not call.finished:
                call.returned()
                await call.finish_async()
        finally:
            reset(token)
            if call.finished:
                # A server's `send` leads to the scope, and this to `send`: what refers to itself is
                # freed by nothing but the garbage collector, which would else have little to do.
                scope.pop(KEY, None)

    def _flushing(self, send: Send) -> Send:
        async def flushed(message: Message) -> None:
            if message["type"] in _SHUTDOWNS:
                await self._metering.flush_at_shutdown()
            await send(message)

        return flushed


class _Call(Exchange):
    def __init__(
        self,
        metering: Metering,
        templates: _routes.AsgiTemplates,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        super().__init__(metering, scope, scope.get("method", "GET"), scope["path"])
        self.templates = templates
        self.disconnected = False
        self.ended = False
        self._receive = receive
        self._send = send

    async def finish_async(self) -> None:
        """Make the event, with the customer awaited."""
        if not self.finished:
            self.find_route()
            await self.metering.find_customer(self)
            self.finish()

    async def finish_cancelled(self) -> None:
        """Make the event of a call whose task is being cancelled."""
        if self.finished:
            return
        self.find_route()
        await self.metering.finish_cancelled(self)

    async def check_customer(self) -> None:
        self.find_route()
        await self.metering.find_customer(self)
        self.metering.require_customer(self)

    def find_route(self) -> None:
        if self.route is None:
            try:
                self.route = self.templates.of(self.request, self.path)
            except Exception as error:
                self.metering.failed.occur("no route template", error)


class _Http(_Call):
    headers: Iterable[tuple[bytes, bytes]] | None = None
    """Those of the response, until its length was looked up."""
    length: int | None = None

    async def receive(self) -> Message:
        message: Message = await self._receive()
        if message["type"] == "http.disconnect" and not self.ended and not self.is_bodiless():
            self.disconnected = True
        return message

    @_as_if_async
    def send(self, message: Message) -> Awaitable[None]:
        """Note what the app sends, and give what sends it: no coroutine of our own around it."""
        kind = message["type"]
        if kind == "http.response.start":
            if not self.disconnected:
                self.begin(message["status"])
            self.headers = message.get("headers")
            if self.metering.options.raises:
                return self._send_checked(message)
        elif kind == "http.response.body":
            body = message.get("body")
            if body:
                self.sending(len(body))
            if (not message.get("more_body") or self.is_whole()) and self.end():
                return self._send_finished(message)
        elif kind == "http.response.pathsend":
            # The server sends the file.
            self.bytes = None
            if self.end():
                return self._send_finished(message)
        elif kind == "http.response.zerocopysend":
            # A part of one, or all from its position to its end.
            count = message.get("count")
            if count is None:
                self.bytes = None
            else:
                self.sending(count)
            if not message.get("more_body") and self.end():
                return self._send_finished(message)
        return self._send(message)

    async def _send_checked(self, message: Message) -> None:
        await self.check_customer()
        await self._send(message)

    async def _send_finished(self, message: Message) -> None:
        await self.finish_async()
        await self._send(message)

    def is_whole(self) -> bool:
        """Whether the client has the whole with this, though the app will say more."""
        headers, self.headers = self.headers, None
        if headers is not None:
            with self.metering.guarded("no length of the response"):
                self.length = _content_length(headers)
        return self.has_sent(self.length)

    def end(self) -> bool:
        """Make the event, unless the customer may have to be awaited: that is returned."""
        if self.finished:
            return False
        self.ended = True
        self.aborted = self.disconnected
        if self.metering.may_await:
            return True
        self.find_route()
        self.finish()
        return False

    def raised(self) -> None:
        if self.disconnected:
            self.aborted = True
        else:
            self.fail()

    def returned(self) -> None:
        # An app may stop where its client has left, which has the whole with the head.
        if not self.is_bodiless():
            self.raised()


class _WebSocket(_Call):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.bytes = None
        self.closed = False
        self.received = 0
        self.sent = 0

    async def receive(self) -> Message:
        message: Message = await self._receive()
        kind = message["type"]
        if kind == "websocket.receive":
            self.received += 1
        elif kind == "websocket.disconnect" and not self.closed:
            self.disconnected = True
            if message.get("code", 1005) in _NORMAL_CLOSURES:
                self.closed = True
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.send":
            if self.first_byte is None:
                self.sending(1)
            await self._send(message)
            self.sent += 1
            return
        if kind == "websocket.accept":
            self.begin(101)
        elif kind == "websocket.close":
            if self.head is None:
                self.begin(403)
            self.closed = True
        elif kind == "websocket.http.response.start":
            self.begin(message["status"])
            self.closed = True
        if self.head is not None and self.metering.options.raises and not self.ended:
            self.ended = True
            await self.check_customer()
        await self._send(message)

    def cancel(self) -> None:
        self.aborted = not self.closed
        self._count()

    def raised(self) -> None:
        if self.head is None and not self.disconnected:
            self.status = 500
        elif not self.closed:
            self.aborted = True
        self._count()

    def returned(self) -> None:
        # A server closes what an app leaves open, normally.
        if self.head is None:
            self.raised()
            return
        self.aborted = self.disconnected and not self.closed
        self._count()

    def _count(self) -> None:
        if self.status == 101:
            self.extra = {"messages_received": self.received, "messages_sent": self.sent}


def _content_length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    for name, value in headers:
        if name.lower() == b"content-length":
            return int(value)
    return None


def _header(name: str) -> Callable[[Scope], str | None]:
    wanted = name.lower().encode()

    def read(scope: Scope) -> str | None:
        return customer_in_asgi_headers(scope["headers"], wanted)

    return read
