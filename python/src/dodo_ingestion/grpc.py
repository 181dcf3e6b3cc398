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
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import grpc

from dodo_ingestion._exchange import current
from dodo_ingestion._grpc_call import Call, WriterContext
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
    "AsyncMeterInterceptor",
    "MeterInterceptor",
    "MissingCustomer",
    "set_customer",
    "set_endpoint",
    "set_metadata",
    "set_units",
    "skip_metering",
]

# What grpc asks a handler for: its pool, and whether it is given a callback for its messages.
_NON_BLOCKING = "experimental_non_blocking"
_EXPERIMENTAL = (_NON_BLOCKING, "experimental_thread_pool")


_metered: ContextVar[bool] = ContextVar("dodo_ingestion_grpc_metered", default=False)
"""Whether a meter outside of this one has the call whose handler is looked for."""


class MeterInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]
    """Meters the calls of a server with threads."""

    def __init__(self, *, ingestion: IngestionSource, **options: Unpack[MeteringOptions]) -> None:
        self._metering = Metering(ingestion, options, header=_header)

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: Any
    ) -> Any:
        """Meter one call."""
        if _metered.get():
            return continuation(handler_call_details)
        call = Call(self._metering, handler_call_details)
        outer = _metered.set(True)
        try:
            handler = continuation(handler_call_details)
        finally:
            _metered.reset(outer)
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
        if _metered.get():
            return await continuation(handler_call_details)
        call = Call(self._metering, handler_call_details)
        outer = _metered.set(True)
        try:
            handler = await continuation(handler_call_details)
        finally:
            _metered.reset(outer)
        if handler is None:
            return call.unimplemented()
        call.loop = asyncio.get_running_loop()
        return _wrapped(handler, call, _async_unary, _async_stream)


def _wrapped(
    handler: Any,
    call: Call,
    unary: Callable[[Call, Any], Any],
    stream: Callable[[Call, Any], Any],
) -> Any:
    kinds = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
    requests, responses = int(handler.request_streaming), int(handler.response_streaming)
    kind = kinds[2 * requests + responses]
    handle = getattr(handler, kind)
    behavior = (stream if responses else unary)(call, handle)
    for name in _EXPERIMENTAL:
        if hasattr(handle, name):
            setattr(behavior, name, getattr(handle, name))
    call.serialized = handler.response_serializer
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    return make(
        behavior,
        request_deserializer=handler.request_deserializer,
        response_serializer=call.serialize,
    )


def _sync_unary(call: Call, behavior: Any) -> Any:
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


def _sync_stream(call: Call, behavior: Any) -> Any:
    if call.loop is None and getattr(behavior, _NON_BLOCKING, False):
        return _sync_sender(call, behavior)

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


def _sync_sender(call: Call, behavior: Any) -> Any:
    """Wrap a handler that hands its messages to a callback, also when it has returned long since.

    That of grpc's own health service is one: it would hold a thread of the pool for each client.
    """

    def handle(request: Any, context: Any, send: Callable[[Any], None]) -> None:
        context = call.enter(context)
        current.set(call)

        def sending(response: Any) -> None:
            if response is None:
                call.left(raised=False)
                call.over()
            else:
                call.check_customer()
            send(response)

        try:
            behavior(request, context, sending)
        except BaseException:
            call.left(raised=True)
            call.over()
            raise
        finally:
            _served(call)

    return handle


def _served(call: Call) -> None:
    # What is thrown away unfinished ends in any thread, which may serve another call.
    if current.get() is call:
        current.set(None)


def _async_unary(call: Call, behavior: Any) -> Any:
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


def _async_stream(call: Call, behavior: Any) -> Any:
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


def _async_writer(call: Call, behavior: Any) -> Any:
    """Wrap a handler that writes its messages by the context."""
    unary = _async_unary(call, behavior)

    async def handle(request: Any, context: Any) -> None:
        if call.metering.options.raises:
            context = WriterContext(context, call)
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
