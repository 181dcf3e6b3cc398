"""A call of gRPC under way: what its handler is given, and how it ends."""

from __future__ import annotations

import asyncio
import copy
import functools
from collections.abc import Callable
from typing import Any

import grpc

from dodo_ingestion._exchange import Exchange
from dodo_ingestion._metering import PATIENCE, Metering

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


def http_status(code: int) -> int:
    """Give the HTTP status that says the same as a code."""
    return _HTTP_STATUS.get(code, 500)


class Call(Exchange):
    """A call, of a server with threads or of asyncio."""

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
        self.status = http_status(ended)

    def serialize(self, message: Any) -> bytes:
        try:
            data: bytes = message if self.serialized is None else self.serialized(message)
            # An asyncio server sends nothing as an empty message, where there is no serializer.
            size = 0 if data is None and self.loop is not None else len(data)
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
        self.status = http_status(self.code)
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


class WriterContext(_Context):
    """That of a handler that writes its messages, of which none is to go to nobody."""

    def __init__(self, context: Any, call: Call) -> None:
        super().__init__(context)
        self._call = call

    async def write(self, message: Any) -> None:
        await self._call.check_customer_async()
        await self._context.write(message)
