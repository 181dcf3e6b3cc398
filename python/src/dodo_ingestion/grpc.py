"""Metering for gRPC servers, as interceptors.

>>> meter = MeterInterceptor(ingestion=ingestion, customer="x-customer-id")
>>> server = grpc.server(pool, interceptors=[meter])

and `AsyncMeterInterceptor` for `grpc.aio.server`. The options are those of `MeteringOptions`.
Callables are given the servicer context; a header is a metadata key. A call that no method took has
no context: its `HandlerCallDetails` are given instead, but not to a callable for the customer, with
which such a call makes no event. A code counts as the HTTP status that says the same, and is
`grpc_status` in the metadata.

A call's event is made when its handler has ended, or when the client is gone. The message of a
unary response is handed to the server after that, the last one of a stream before it. Messages are
measured and never looked into.

An asyncio server runs handlers that are no coroutines in threads; they are metered as well.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import grpc

from dodo_ingestion._exchange import Exchange, current
from dodo_ingestion._metering import PATIENCE, Metering, MissingCustomer
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
    "AsyncMeterInterceptor",
    "MeterInterceptor",
    "MissingCustomer",
    "set_customer",
    "set_endpoint",
    "set_metadata",
    "set_units",
    "skip_metering",
]

_UNKNOWN = 2
_UNIMPLEMENTED = 12
_INTERNAL = 13
# As google/rpc/code.proto has it; 500 is the rest.
_HTTP_STATUS = {
    0: 200,
    1: 499,
    3: 400,
    4: 504,
    5: 404,
    6: 409,
    7: 403,
    8: 429,
    9: 400,
    10: 409,
    11: 400,
    12: 501,
    14: 503,
    16: 401,
}


class MeterInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]
    """Meters the calls of a server with threads."""

    def __init__(self, *, ingestion: IngestionSource, **options: Unpack[MeteringOptions]) -> None:
        self._metering = Metering(ingestion, options, header=_header)

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: Any
    ) -> Any:
        """Meter one call."""
        call = _Call(self._metering, handler_call_details)
        handler = continuation(handler_call_details)
        if handler is None:
            return call.unimplemented()
        return _wrapped(handler, call, _sync_unary, _sync_stream)


class AsyncMeterInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Meters the calls of an asyncio server."""

    def __init__(self, *, ingestion: IngestionSource, **options: Unpack[MeteringOptions]) -> None:
        self._metering = Metering(ingestion, options, header=_header, asynchronous=True)

    async def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: Any
    ) -> Any:
        """Meter one call."""
        call = _Call(self._metering, handler_call_details)
        handler = await continuation(handler_call_details)
        if handler is None:
            return call.unimplemented()
        call.loop = asyncio.get_running_loop()
        return _wrapped(handler, call, _async_unary, _async_stream)


class _Call(Exchange):
    def __init__(self, metering: Metering, details: Any) -> None:
        super().__init__(metering, details, "POST", details.method)
        self.code: int | None = None
        self.returned = False
        # Messages of a handler in a thread, which an asyncio server serializes in another.
        self.yielded = 0
        self.measured = 0
        self.serialized: Callable[[Any], bytes] | None = None
        self.context: Any = None
        self.loop: asyncio.AbstractEventLoop | None = None
        """That of an asyncio server."""

    def unimplemented(self) -> None:
        """Make the event of a call that no method took. Its path may be anything."""
        self.code = _UNIMPLEMENTED
        # There is no context that could tell a callable who is calling.
        if self.metering.options.customer is None:
            self.over()

    def watch_task(self) -> None:
        """Hear of the end of a call whose handler runs in a thread of an asyncio server.

        Its context does not tell. The interceptors are run by the call's own task.
        """
        task = asyncio.current_task()
        if task is not None:
            task.add_done_callback(self._done)

    def enter(self, context: Any) -> Any:
        """Begin, and return the context for the handler."""
        self.route = self.path
        self.request = _Kept(context, self.request.invocation_metadata)
        if not hasattr(context, "code"):
            context = _CodeContext(context)
        self.context = context
        with self.metering.guarded("the end of a call"):
            if hasattr(context, "add_done_callback"):
                context.add_done_callback(self._done)
            elif self.loop is None and context.add_callback(self.over) is False:
                # It has ended already.
                self.over()
        return context

    def leave(self, *, raised: bool) -> None:
        """Note how the handler ended."""
        number = None
        with self.metering.guarded("the code of a call"):
            code = self.context.code()
            number = code.value[0] if isinstance(code, grpc.StatusCode) else code
        ended: int = number or (_UNKNOWN if raised else 0)
        self.code = ended
        self.status = _HTTP_STATUS.get(ended, 500)

    def serialize(self, message: Any) -> bytes:
        try:
            data: bytes = message if self.serialized is None else self.serialized(message)
            size = len(data)
        except Exception:
            self.code = _INTERNAL if self.loop is None else _UNKNOWN
            if self.loop is None:
                self.over()
            # Else the call's own end makes the event: the customer may have to be awaited.
            raise
        if self.head is None:
            self.begin(200)
        self.sending(size)
        self.measured += 1
        if self.returned:
            # The only message, or one that the handler was ahead of.
            self.drained()
        return data

    def drained(self) -> None:
        """Make the event of a call whose handler has ended, if its last message is measured.

        Else that message makes it, or the call's own end.
        """
        if self.measured >= self.yielded:
            self.over()

    def over(self) -> None:
        """Make the event of the call, which has ended by its handler or before."""
        if not self.finished and not self.finishing:
            self._judge()
            self.finish()

    def left(self, *, raised: bool) -> None:
        """Note how a handler in a thread ended, and who is to be billed for it."""
        if self.finished or self.finishing:
            return
        self.leave(raised=raised)
        self.find_customer()
        self.returned = True

    def find_customer(self) -> None:
        """Find the customer out of a thread of an asyncio server."""
        if self.loop is None or not self.metering.may_await:
            return
        with self.metering.guarded("customer"):
            finding = asyncio.run_coroutine_threadsafe(self.metering.find_customer(self), self.loop)
            finding.result(PATIENCE)

    def check_customer(self) -> None:
        """Raise before the first message where it was asked for and nobody would be billed."""
        if self.metering.options.raises and self.head is None:
            self.status = 200 if self.status is None else self.status
            self.find_customer()
            self.metering.require_customer(self)

    async def check_customer_async(self) -> None:
        if self.metering.options.raises and self.head is None:
            self.status = 200 if self.status is None else self.status
            await self.metering.find_customer(self)
            self.metering.require_customer(self)

    def _done(self, _task_or_context: object) -> None:
        """Make the event of a call that has ended without one, with the customer awaited."""
        if not self.finished:
            self._judge()
            if isinstance(self.request, _Kept) and self.metering.may_await:
                with self.metering.guarded("what a context knows"):
                    self.request.keep()
            self.metering.finish_later(self)

    def _judge(self) -> None:
        if self.code is None:
            self.aborted = True
            return
        self.status = _HTTP_STATUS.get(self.code, 500)
        self.extra = {"grpc_status": self.code}
        if self.code == _UNIMPLEMENTED:
            self.route = None


class _Context:
    """Stands in front of a context of grpc's own."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class _Kept(_Context):
    """What callables are given: an asyncio server's context reads freed memory after its call."""

    def __init__(self, context: Any, metadata: Any) -> None:
        super().__init__(context)
        self._metadata = metadata

    def invocation_metadata(self) -> Any:
        return self._metadata

    def keep(self) -> None:
        """Ask now what cannot be asked later."""
        for name in ("auth_context", "peer", "peer_identities", "peer_identity_key"):
            value = getattr(self._context, name)()
            setattr(self, name, functools.partial(copy.copy, value))


class _CodeContext(_Context):
    """That of a handler in a thread of an asyncio server, which cannot tell its code."""

    _code: Any = None

    def code(self) -> Any:
        return self._code

    def set_code(self, code: Any) -> None:
        self._context.set_code(code)
        self._code = code

    def abort(self, code: Any, *arguments: Any, **named: Any) -> None:
        self._code = code
        self._context.abort(code, *arguments, **named)


class _WriterContext(_Context):
    """That of a handler that writes its messages, of which none is to go to nobody."""

    def __init__(self, context: Any, call: _Call) -> None:
        super().__init__(context)
        self._call = call

    async def write(self, message: Any) -> None:
        await self._call.check_customer_async()
        await self._context.write(message)


def _wrapped(
    handler: Any,
    call: _Call,
    unary: Callable[[_Call, Any], Any],
    stream: Callable[[_Call, Any], Any],
) -> Any:
    kinds = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
    requests, responses = int(handler.request_streaming), int(handler.response_streaming)
    kind = kinds[2 * requests + responses]
    behavior = (stream if responses else unary)(call, getattr(handler, kind))
    call.serialized = handler.response_serializer
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    return make(
        behavior,
        request_deserializer=handler.request_deserializer,
        response_serializer=call.serialize,
    )


def _sync_unary(call: _Call, behavior: Any) -> Any:
    def handle(request: Any, context: Any) -> Any:
        context = call.enter(context)
        current.set(call)
        try:
            response = behavior(request, context)
            call.left(raised=False)
            call.check_customer()
        except BaseException:
            call.left(raised=True)
            call.over()
            raise
        finally:
            _served(call)
        if call.loop is not None and call.code:
            # With such a code an asyncio server throws the response away.
            call.over()
        return response

    return handle


def _sync_stream(call: _Call, behavior: Any) -> Any:
    def handle(request: Any, context: Any) -> Iterator[Any]:
        context = call.enter(context)
        current.set(call)
        try:
            for response in behavior(request, context):
                call.check_customer()
                if call.loop is not None:
                    call.yielded += 1
                yield response
            call.left(raised=False)
            call.drained()
        except GeneratorExit:
            raise
        except BaseException:
            call.left(raised=True)
            call.drained()
            raise
        finally:
            _served(call)

    return handle


def _served(call: _Call) -> None:
    # What is thrown away unfinished ends in any thread, which may serve another call.
    if current.get() is call:
        current.set(None)


def _async_unary(call: _Call, behavior: Any) -> Any:
    if not inspect.iscoroutinefunction(behavior):
        call.watch_task()
        return _sync_unary(call, behavior)

    async def handle(request: Any, context: Any) -> Any:
        context = call.enter(context)
        current.set(call)
        try:
            response = await behavior(request, context)
            call.leave(raised=False)
            await call.metering.find_customer(call)
            await call.check_customer_async()
            call.returned = True
        except Exception:
            call.leave(raised=True)
            await call.metering.find_customer(call)
            call.over()
            raise
        if call.code:
            # With such a code the server throws the response away.
            call.over()
        return response

    return handle


def _async_stream(call: _Call, behavior: Any) -> Any:
    if inspect.iscoroutinefunction(behavior):
        return _async_writer(call, behavior)
    if not inspect.isasyncgenfunction(behavior):
        call.watch_task()
        return _sync_stream(call, behavior)

    async def handle(request: Any, context: Any) -> AsyncIterator[Any]:
        context = call.enter(context)
        current.set(call)
        try:
            async for response in behavior(request, context):
                await call.check_customer_async()
                yield response
            call.leave(raised=False)
            await call.metering.find_customer(call)
            call.over()
        except Exception:
            call.leave(raised=True)
            await call.metering.find_customer(call)
            call.over()
            raise

    return handle


def _async_writer(call: _Call, behavior: Any) -> Any:
    """Wrap a handler that writes its messages by the context."""
    unary = _async_unary(call, behavior)

    async def handle(request: Any, context: Any) -> None:
        if call.metering.options.raises:
            context = _WriterContext(context, call)
        await unary(request, context)
        call.over()

    return handle


def _header(name: str) -> Callable[[Any], str | None]:
    wanted = name.lower()

    def read(request: Any) -> str | None:
        found = request.invocation_metadata
        metadata: Any = found() if callable(found) else found
        values = [value for key, value in metadata or () if key == wanted]
        if not all(isinstance(value, str) for value in values):
            return None
        return customer_in_header(values)

    return read
