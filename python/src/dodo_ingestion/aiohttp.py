"""Metering for aiohttp's server.

>>> setup(app, ingestion=ingestion, customer="x-customer-id")

The options are those of `MeteringOptions`. Callables are given the request, and `customer` may be
async. A sub-application is metered by the application that it is added to.

A call's event is made before the last of its body is written; that of a file, which the system may
send by itself, when it has been sent. A WebSocket session makes one event, when its handler
returns. Query strings and bodies are never read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.payload import Payload

from dodo_ingestion import _routes
from dodo_ingestion._exchange import BODILESS, KEYS, SAID, SAID_KEYS, Exchange, current, reset
from dodo_ingestion._metering import Metering, MissingCustomer
from dodo_ingestion._native import customer_in_header
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
    "MissingCustomer",
    "set_customer",
    "set_endpoint",
    "set_metadata",
    "set_units",
    "setup",
    "skip_metering",
]

_NORMAL_CLOSURES = (None, 1000, 1001, 1005)
# Versions before 3.14 take text.
_KEY: Any = (
    web.RequestKey("dodo_ingestion.exchange", Exchange) if hasattr(web, "RequestKey") else KEYS[0]
)
_SAID: Any = web.RequestKey(SAID, list) if hasattr(web, "RequestKey") else SAID
if _KEY not in KEYS:
    KEYS.append(_KEY)
    SAID_KEYS.insert(0, (web.BaseRequest, _SAID))


def setup(
    app: web.Application, *, ingestion: IngestionSource, **options: Unpack[MeteringOptions]
) -> None:
    """Meter an application, its sub-applications included."""
    metering = Metering(ingestion, options, header=_header, asynchronous=True)
    app.middlewares.insert(0, _middleware(metering))
    app.on_response_prepare.append(_prepared)

    async def ended(_app: web.Application) -> None:
        await metering.end()

    app.on_cleanup.append(ended)


def _middleware(metering: Metering) -> Any:
    @web.middleware
    async def meter(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.method == "OPTIONS" or _KEY in request:
            return await handler(request)
        call = _Call(metering, request)
        request[_KEY] = call
        call.hear(request.pop(_SAID, ()))
        token = current.set(call)
        try:
            response = await handler(request)
        except web.HTTPException as answer:
            # aiohttp sends what was raised.
            await call.answer(answer)
            raise
        except ConnectionError:
            call.cancel()
            await call.finish_async()
            raise
        except Exception:
            call.fail()
            await call.finish_async()
            raise
        except BaseException:
            call.cancel()
            metering.finish_later(call)
            raise
        finally:
            reset(token)
        if isinstance(response, web.StreamResponse):
            await call.answer(response)
        else:
            call.fail()
            await call.finish_async()
        return response

    return meter


async def _prepared(request: web.Request, response: web.StreamResponse) -> None:
    """Begin the response: also one that the handler sends by itself."""
    call = request.get(_KEY)
    if isinstance(call, _Call) and call.head is None and not call.finished:
        call.watch(response)


class _Call(Exchange):
    def __init__(self, metering: Metering, request: web.Request) -> None:
        super().__init__(metering, request, request.method, request.path)
        resource = request.match_info.route.resource
        self.route = resource.canonical if resource is not None else None
        if isinstance(resource, web.StaticResource):
            # Its own is the prefix alone: nothing, where it takes what no other route does.
            self.route = _routes.mounted(resource.canonical)
        self.watched: web.StreamResponse | None = None

    async def answer(self, response: web.StreamResponse) -> None:
        """Take the response that the handler made, and perhaps has sent."""
        if isinstance(response, web.WebSocketResponse):
            self.aborted = response.close_code not in _NORMAL_CLOSURES
            await self.finish_async()
            return
        if not response.prepared:
            self.status = response.status
            if self.metering.options.raises:
                await self.metering.find_customer(self)
                self.metering.require_customer(self)
            self._watch_prepare(response)
        elif self.watched is not response:
            # It was sent without any notice of ours: another response than the first.
            await self.finish_async()

    def watch(self, response: web.StreamResponse) -> None:
        """Count what is sent of a response, and hear of its end."""
        self.watched = response
        self.begin(response.status)
        if isinstance(response, web.WebSocketResponse):
            self._watch_messages(response)
            return
        if isinstance(response, web.FileResponse):
            self.bytes = 0 if self.method == "HEAD" or self.status in BODILESS else None
        write_eof = response.write_eof

        async def ended(data: bytes = b"") -> None:
            body = getattr(response, "body", None)
            end = partial(write_eof, data) if data else write_eof
            if isinstance(body, Payload):
                await self._send_payload(response, end)
                return
            if isinstance(body, (bytes, bytearray)):
                # Shorter than the body, if that is compressed.
                length = response.content_length
                self.sending(len(body) if length is None else length)
            self.sending(_size(data))
            if self.bytes is None:
                self.bytes = response.content_length
            await self.finish_async()
            await end()

        response.write = self._counting(response, response.write)  # type: ignore[method-assign]
        response.write_eof = ended  # type: ignore[method-assign]

    def sending(self, size: int) -> None:
        """Count a part of the body, which aiohttp drops where a response has none."""
        if self.status not in BODILESS:
            super().sending(size)

    def _counting(self, response: web.StreamResponse, write: Callable[..., Awaitable[None]]) -> Any:
        async def counted(data: Any, **named: Any) -> None:
            self.sending(_size(data))
            whole = False
            with self.metering.guarded("no length of the response"):
                whole = self.has_sent(response.content_length)
            if whole and not self.finished:
                await self.finish_async()
            try:
                await write(data, **named)
            except ConnectionError:  # a handler may take it for the end of its work
                self.aborted = True
                raise

        return counted

    async def _send_payload(
        self, response: web.StreamResponse, write_eof: Callable[[], Awaitable[None]]
    ) -> None:
        """Send a body that aiohttp reads meanwhile: a generator, a file, a form."""
        token = current.set(self)
        try:
            with self.metering.guarded("no size of the response"):
                await self._watch_writer(response)
            await write_eof()
        except Exception:
            self.fail()
            await self.finish_async()
            raise
        except BaseException:
            self.cancel()
            self.metering.finish_later(self)
            raise
        else:
            await self.finish_async()
        finally:
            reset(token)

    async def _watch_writer(self, response: web.StreamResponse) -> None:
        # A payload may be that of several responses; the writer is this one's.
        writer = None if self.finished else await response.prepare(self.request)
        if writer is None:
            return
        write_eof = writer.write_eof

        async def ended(chunk: bytes = b"") -> None:
            self.sending(_size(chunk))
            await self.finish_async()
            await write_eof(chunk)

        writer.write = self._counting(response, writer.write)  # type: ignore[method-assign]
        writer.write_eof = ended  # type: ignore[method-assign]

    def _watch_prepare(self, response: web.StreamResponse) -> None:
        prepare = response.prepare

        async def prepared(request: web.BaseRequest) -> Any:
            try:
                return await prepare(request)
            except BaseException:
                # Before anything was sent of it.
                self.cancel()
                self.metering.finish_later(self)
                raise

        response.prepare = prepared  # type: ignore[method-assign]

    def _watch_messages(self, response: web.WebSocketResponse) -> None:
        self.bytes = None
        counts = {"messages_received": 0, "messages_sent": 0}
        self.extra = {**counts}
        extra = self.extra
        receive, send_str, send_bytes = response.receive, response.send_str, response.send_bytes

        async def received(*arguments: Any, **named: Any) -> Any:
            message = await receive(*arguments, **named)
            if message.type in (web.WSMsgType.TEXT, web.WSMsgType.BINARY):
                counts["messages_received"] += 1
                extra.update(counts)
            return message

        def counting(send: Callable[..., Awaitable[None]]) -> Any:
            async def sent(*arguments: Any, **named: Any) -> None:
                await send(*arguments, **named)
                counts["messages_sent"] += 1
                extra.update(counts)

            return sent

        response.receive = received  # type: ignore[method-assign]
        response.send_str = counting(send_str)  # type: ignore[method-assign]
        response.send_bytes = counting(send_bytes)  # type: ignore[method-assign]

    def takes_the_rest(self, template: str) -> bool:
        """Look at the pattern, which the template is without."""
        resource = self.request.match_info.route.resource
        pattern = None if resource is None else resource.get_info().get("pattern")
        return super().takes_the_rest(template if pattern is None else pattern.pattern)

    async def finish_async(self) -> None:
        """Make the event, with the customer awaited."""
        await self.metering.find_customer(self)
        self.finish()


def _size(data: bytes | bytearray | memoryview) -> int:
    return data.nbytes if isinstance(data, memoryview) else len(data)


def _header(name: str) -> Callable[[web.Request], str | None]:
    def read(request: web.Request) -> str | None:
        return customer_in_header(request.headers.getall(name, []))

    return read
