"""Metering for Django, sync and async, by settings.

>>> MIDDLEWARE = ["dodo_ingestion.django.MeterMiddleware", ...]
>>> DODO_INGESTION = {"ingestion": make_ingestion, "customer": "x-customer-id"}

`ingestion` is an `Ingestion`, what makes one, or the dotted path of either; without it one is made
of the environment (`DODO_PAYMENTS_API_KEY`, `DODO_INGESTION_EVENT_NAME`, …) by the first call: if
something is missing there, the log says so then, and calls are not billed. The other entries are
those of `MeteringOptions`. Callables, or their dotted paths, are given the `HttpRequest`;
`customer` may be async. Those that are not may use the database, also under ASGI.

The middleware stands first, so that what others answer is metered as well. A call's event is made
when its response is there or, of one that streams, has been streamed. Query strings and bodies are
never read.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any

from asgiref.sync import (
    async_to_sync,
    iscoroutinefunction,
    markcoroutinefunction,
    sync_to_async,
)
from django.conf import settings
from django.http import StreamingHttpResponse
from django.utils.module_loading import import_string

from dodo_ingestion._exchange import BODILESS, KEY, SAID, Exchange, current, reset
from dodo_ingestion._metering import Metering, MissingCustomer
from dodo_ingestion._native import Ingestion
from dodo_ingestion._options import Checked, is_async
from dodo_ingestion.errors import ConfigurationError
from dodo_ingestion.metering import (
    set_customer,
    set_endpoint,
    set_metadata,
    set_units,
    skip_metering,
)
from dodo_ingestion.wsgi import header

__all__ = [
    "MeterMiddleware",
    "MissingCustomer",
    "set_customer",
    "set_endpoint",
    "set_metadata",
    "set_units",
    "skip_metering",
]

_CALLABLES = frozenset({"bill_status", "customer", "endpoint", "metadata", "skip", "units"})
_HEARS_AFTER = 65536
_ANCHORS = re.compile(r"(?:(?<=^)|(?<=/))\^|\$$|\\Z$")


class MeterMiddleware:
    """Meters the calls of a Django project."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        self._metering = _metering()
        self._asks = _asks(self._metering.options)

    def __call__(self, request: Any) -> Any:
        """Answer a request, and meter it."""
        if self._is_async:
            return self._answer(request)
        if request.method == "OPTIONS" or _is_metered(request):
            return self._get_response(request)
        call = _Call(self._metering, request, self._asks)
        token = current.set(call)
        try:
            response = self._get_response(request)
        except BaseException as error:
            call.fail(error)
            call.find_route()
            if isinstance(error, Exception):
                self._find_customer(call)
            call.finish()
            raise
        finally:
            reset(token)
        with self._metering.guarded("response", call):
            call.answered(response)
            self._find_customer(call)
            call.hand_over(response)
        return response

    def _find_customer(self, call: _Call) -> None:
        with self._metering.guarded("customer"):
            looked_up = self._metering.ask_customer(call)
            if looked_up is not None:
                async_to_sync(self._metering.await_customer)(call, looked_up)

    async def _answer(self, request: Any) -> Any:
        if request.method == "OPTIONS" or _is_metered(request):
            return await self._get_response(request)
        call = _Call(self._metering, request, self._asks)
        token = current.set(call)
        try:
            response = await self._get_response(request)
        except Exception:
            call.fail()
            call.find_route()
            await call.conclude(call.finish)
            raise
        except BaseException as error:
            call.cancel()
            call.find_route()
            await call.finish_cancelled(error)
            raise
        finally:
            reset(token)
        with self._metering.guarded("response", call):
            call.answered(response)
            await call.conclude(partial(call.hand_over, response))
        return response


class _Call(Exchange):
    closed_early = False
    length: int | None = None

    def __init__(self, metering: Metering, request: Any, asks: bool) -> None:
        super().__init__(metering, request, request.method, request.path_info)
        self.asks = asks
        request.META[KEY] = self
        # Under ASGI a word waits in the scope, as it does for a meter around Django.
        self.hear(getattr(request, "scope", request.META).pop(SAID, ()))

    async def conclude(self, rest: Callable[[], None]) -> None:
        """Find the customer and do the rest, where callables may use the database."""
        if not self.asks:
            await self.metering.find_customer(self)
            rest()
            return
        try:
            await self._ask(rest)
        except asyncio.CancelledError as error:
            self.cancel()
            await self.finish_cancelled(error)
            raise

    async def finish_cancelled(self, error: BaseException) -> None:
        """Make the event of a call whose task is being cancelled.

        Asyncio tells a task so once, and Django waits for it to end. What is still being asked in
        the request's thread is over before it is asked again.
        """
        if not self.asks or not isinstance(error, asyncio.CancelledError):
            self.metering.finish_later(self)
            return
        try:
            await self._ask(self.finish)
        finally:
            self.finish()

    async def _ask(self, rest: Callable[[], None]) -> None:
        # In the request's own thread, as Django runs a sync view.
        def finished() -> None:
            with self.metering.guarded("response", self):
                rest()

        def asked() -> Awaitable[Any] | None:
            looked_up = self.metering.ask_customer(self)
            if looked_up is None:
                finished()
            return looked_up

        with self.metering.guarded("response", self):
            looked_up = await sync_to_async(asked)()
            if looked_up is not None:
                await self.metering.await_customer(self, looked_up)
                await sync_to_async(finished)()

    def answered(self, response: Any) -> None:
        """Take the response that was made."""
        self.begin(response.status_code)
        self.find_route()

    def find_route(self) -> None:
        """Look up which route took the request, if one has."""
        match = getattr(self.request, "resolver_match", None)
        if match is not None:
            self.route = "/" + _ANCHORS.sub("", str(match.route))

    def hand_over(self, response: Any) -> None:
        """Leave the response to the server."""
        if self.metering.options.raises:
            self.metering.require_customer(self)
        if not response.streaming:
            self.sending(0 if self.method == "HEAD" else len(response.content))
            self.finish()
            return
        length = response.headers.get("Content-Length", "")
        self.length = int(length) if length.isdecimal() else None
        empty = self.method == "HEAD" or response.status_code in BODILESS
        if getattr(response, "file_to_stream", None) is not None and self.request.META.get(
            "wsgi.file_wrapper"
        ):
            # The server may send the file in a way of its own.
            self.bytes = 0 if empty else self.length
        else:
            # A client that leaves before its end has not got all, also where it has not begun.
            self.closed_early = not empty
            chunks: Any = response.streaming_content
            asynchronous = response.is_async
            if not asynchronous and hasattr(self.request, "scope"):
                # Under ASGI Django reads all of it before it sends the first.
                chunks, asynchronous = _read(chunks), True
            response.streaming_content = (
                self._async_stream(chunks) if asynchronous else self._stream(chunks)
            )
        self._finish_on_close(response)

    def _is_last(self, chunk: bytes) -> bool:
        self.sending(len(chunk))
        return not self.finished and self.has_sent(self.length)

    def _stream(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        token = current.set(self)
        try:
            for chunk in chunks:
                if self._is_last(chunk):
                    self.finish()
                yield chunk
        except BaseException as error:
            self.aborted = self.closed_early or isinstance(error, Exception)
            raise
        finally:
            self.finish()
            reset(token)

    async def _async_stream(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        token = current.set(self)
        try:
            async for chunk in chunks:
                if self._is_last(chunk):
                    await self._finish_async()
                yield chunk
        except BaseException as error:
            self.aborted = self.closed_early or isinstance(error, Exception)
            raise
        finally:
            await self._finish_async()
            reset(token)

    async def _finish_async(self) -> None:
        if self.asks and not self.finished:
            await self.conclude(self.finish)
        else:
            self.finish()

    def _finish_on_close(self, response: Any) -> None:
        close = response.close

        def closed() -> None:
            try:
                close()
            finally:
                if not self.finished:
                    self.aborted = self.closed_early
                self.finish()

        response.close = closed


def _is_metered(request: Any) -> bool:
    """Whether a middleware around Django meters it, under WSGI or ASGI."""
    return KEY in request.META or KEY in getattr(request, "scope", ())


def _asks(options: Checked) -> bool:
    """Whether something is asked of the request that is not awaited."""
    customer = options.customer
    asked = (options.skip, options.metadata, options.units, options.endpoint)
    return (customer is not None and not is_async(customer)) or asked != (None,) * len(asked)


async def _read(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Read a stream that is not async as Django does, and let it hear of a client that left."""
    unheard = 0
    async for chunk in StreamingHttpResponse(chunks):
        yield chunk
        unheard += len(chunk)
        if unheard >= _HEARS_AFTER:
            # A server that has lost its client takes the rest without a wait.
            await asyncio.sleep(0)
            unheard = 0


def _metering() -> Metering:
    given = getattr(settings, "DODO_INGESTION", {})
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"DODO_INGESTION: not a dict of options: {given!r}")
    options = dict(given)
    source = options.pop("ingestion", Ingestion)
    if isinstance(source, str):
        source = _maker(source)
    for name in _CALLABLES & options.keys():
        path = options[name]
        if isinstance(path, str) and "." in path:
            options[name] = _imported(name, path)
    if isinstance(options.get("exclude"), (list, tuple, set, frozenset)):
        options["exclude"] = [_rooted(entry) for entry in options["exclude"]]
    return Metering(source, options, header=_header, asynchronous=True)


def _imported(name: str, path: str) -> Any:
    try:
        return import_string(path)
    except ImportError as error:
        raise ConfigurationError(f"{name}: {error}", field=name) from error


def _rooted(entry: Any) -> Any:
    """Write a route as in its template: in the patterns of a project it has no slash before it."""
    is_bare = isinstance(entry, str) and not entry.startswith(("/", "*"))
    return f"/{entry}" if is_bare else entry


def _maker(path: str) -> Callable[[], Ingestion]:
    if "." not in path:
        raise ConfigurationError(f"ingestion: not a dotted path: {path!r}", field="ingestion")

    def make() -> Ingestion:
        found = import_string(path)
        made: Ingestion = found if isinstance(found, Ingestion) else found()
        return made

    return make


def _header(name: str) -> Callable[[Any], str | None]:
    read = header(name)
    return lambda request: read(request.META)
