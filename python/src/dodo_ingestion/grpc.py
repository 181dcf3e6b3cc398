"""Metering for gRPC servers, as interceptors.

>>> meter = MeterInterceptor(ingestion=ingestion, customer="x-customer-id")
>>> server = grpc.server(pool, interceptors=[meter])

and `AsyncMeterInterceptor` for `grpc.aio.server`. The options are those of `MeteringOptions`.
Callables are given the servicer context; a header is a metadata key. A code counts as the HTTP
status that says the same, and is `grpc_status` in the metadata.

A call's event is made when its handler has ended, before the last message is handed to the server;
or when the client is gone. Messages are measured and never looked into.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import grpc

from dodo_ingestion._metering import Exchange, Metering, MissingCustomer, current
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
        return _wrapped(handler, call, _async_unary, _async_stream)


class _Call(Exchange):
    def __init__(self, metering: Metering, details: Any) -> None:
        super().__init__(metering, details, "POST", details.method)
        self.code: int | None = None
        self.returned = False
        self.serialized: Callable[[Any], bytes] | None = None

    def unimplemented(self) -> None:
        """Make the event of a call that no method took. Its path may be anything."""
        self.code = _UNIMPLEMENTED
        # There is no context that a callable could be given.
        if self.metering.options.customer is None:
            self.end()

    def enter(self, context: Any) -> None:
        self.request = context
        self.route = self.path
        if hasattr(context, "add_callback"):
            if not context.add_callback(self.end):
                # It has ended already.
                self.end()
        else:
            context.add_done_callback(self.end_later)

    def leave(self, context: Any, *, raised: bool) -> None:
        """Note how the handler ended."""
        code = context.code()
        number = code.value[0] if isinstance(code, grpc.StatusCode) else code
        ended = number or (_UNKNOWN if raised else 0)
        self.code = ended
        self.status = _HTTP_STATUS.get(ended, 500)
        self.returned = True

    def serialize(self, message: Any) -> bytes:
        data: bytes = message if self.serialized is None else self.serialized(message)
        if self.head is None:
            self.begin(200)
        self.sending(len(data))
        if self.returned:
            # The only message, and the last.
            self.end()
        return data

    def end(self) -> None:
        """Make the event of the call, which has ended by its handler or before."""
        if not self.finished:
            self._judge()
            self.finish()

    def end_later(self, _context: Any) -> None:
        """Make the event of a call that its client has left, with the customer awaited."""
        if not self.finished:
            self._judge()
            self.metering.settle_later(self)

    def _judge(self) -> None:
        if self.code is None:
            self.aborted = True
            return
        self.status = _HTTP_STATUS.get(self.code, 500)
        self.extra = {"grpc_status": self.code}
        if self.code == _UNIMPLEMENTED:
            self.route = None

    def require_customer(self) -> None:
        if self.metering.options.raises:
            self.status = 200 if self.status is None else self.status
            self.metering.require_customer(self)


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
        call.enter(context)
        token = current.set(call)
        try:
            response = behavior(request, context)
            call.leave(context, raised=False)
            call.require_customer()
        except BaseException:
            call.leave(context, raised=True)
            call.end()
            raise
        finally:
            current.reset(token)
        return response

    return handle


def _sync_stream(call: _Call, behavior: Any) -> Any:
    def handle(request: Any, context: Any) -> Iterator[Any]:
        call.enter(context)
        current.set(call)
        try:
            for response in behavior(request, context):
                if call.head is None:
                    call.require_customer()
                yield response
            call.leave(context, raised=False)
            call.end()
        except GeneratorExit:
            raise
        except BaseException:
            call.leave(context, raised=True)
            call.end()
            raise
        finally:
            current.set(None)

    return handle


def _async_unary(call: _Call, behavior: Any) -> Any:
    if not inspect.iscoroutinefunction(behavior):
        return _sync_unary(call, behavior)

    async def handle(request: Any, context: Any) -> Any:
        call.enter(context)
        current.set(call)
        try:
            response = await behavior(request, context)
            call.leave(context, raised=False)
            await call.metering.find_customer(call)
            call.require_customer()
        except asyncio.CancelledError:
            raise
        except BaseException:
            call.leave(context, raised=True)
            await call.metering.find_customer(call)
            call.end()
            raise
        return response

    return handle


def _async_stream(call: _Call, behavior: Any) -> Any:
    if inspect.iscoroutinefunction(behavior):
        return _async_writer(call, behavior)
    if not inspect.isasyncgenfunction(behavior):
        return _sync_stream(call, behavior)

    async def handle(request: Any, context: Any) -> AsyncIterator[Any]:
        call.enter(context)
        current.set(call)
        try:
            async for response in behavior(request, context):
                if call.head is None:
                    call.require_customer()
                yield response
            call.leave(context, raised=False)
            await call.metering.find_customer(call)
            call.end()
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException:
            call.leave(context, raised=True)
            await call.metering.find_customer(call)
            call.end()
            raise

    return handle


def _async_writer(call: _Call, behavior: Any) -> Any:
    """Wrap a handler that writes its messages by the context."""
    unary = _async_unary(call, behavior)

    async def handle(request: Any, context: Any) -> None:
        await unary(request, context)
        call.end()

    return handle


def _header(name: str) -> Callable[[Any], str | None]:
    wanted = name.lower()

    def read(request: Any) -> str | None:
        found = request.invocation_metadata
        metadata: Any = found() if callable(found) else found
        for key, value in metadata or ():
            if key == wanted:
                return value if isinstance(value, str) and value.isascii() else None
        return None

    return read
