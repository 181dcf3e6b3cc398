"""Clients of language models that have their answers looked at.

A proxy stands in front of the client, and of each part of it that is reached through it. It hands
on everything, and looks at what the methods that ask a model return. This module knows no provider
and no shape of usage: `read` makes a reading of an answer, `bill` bills one.
"""

import contextlib
import copy
import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from dodo_ingestion._notice import Notice, warn

_ASKING = frozenset(
    {
        "ainvoke",
        "astream",
        "chat",
        "compact",
        "create",
        "create_and_poll",
        "create_and_run",
        "create_and_run_poll",
        "create_and_run_stream",
        "create_and_stream",
        "edit",
        "embed_content",
        "generate",
        "generate_content",
        "generate_content_stream",
        "invoke",
        "parse",
        "send",
        "send_message",
        "send_message_stream",
        "stream",
        "submit_tool_outputs",
        "submit_tool_outputs_and_poll",
        "submit_tool_outputs_stream",
    }
)
_ANSWERING = frozenset(
    {
        "ainvoke",
        "compact",
        "edit",
        "embed_content",
        "generate",
        "generate_content",
        "invoke",
        "parse",
        "send_message",
    }
)
"""Those of them that return nothing but a model's answer."""
_RAW = ("with_raw_response", "with_streaming_response")
_UNSEEN = ("caches", "sessions", *_RAW)
_LEADING = frozenset({"copy", "fork", "model_copy", "thread", "with_middleware", "with_options"})
"""Those that return another client, or a part of one."""
_COMPOSING = frozenset(
    {
        "abatch",
        "atransform",
        "batch",
        "bind",
        "bind_tools",
        "pipe",
        "transform",
        "with_config",
        "with_fallbacks",
        "with_retry",
    }
)
"""Those of LangChain's that ask the model by `invoke` and `stream`, or make what does."""
_SNAPSHOTS = ("current_message_snapshot", "current_completion_snapshot", "current_run")


_raw = Notice("an answer of a language model is not billed, unless `track` is given it: it goes by")


class Reading(Protocol):
    """What has been seen of an answer."""

    complete: bool
    """Whether nothing more comes of it."""
    answered: bool
    """Whether it looks like what a model writes, with usage or without."""

    def add(self, piece: object) -> None:
        """Take what a piece of it tells."""


def wrapped(
    client: object, read: Callable[[object], Reading], bill: Callable[[Any], bool]
) -> object:
    """Wrap `client`. `read` takes the model that was asked; `bill` says whether there was usage."""
    return _Client(client, _Meter(packages(client), read, bill))


def is_wrapped(client: object) -> bool:
    """Whether `client` is wrapped, or a part of one that is."""
    return isinstance(client, _Proxy)


def packages(client: object) -> list[str]:
    """Name the packages that `client` is made of, the one that it is most of last."""
    roots = [cls.__module__.partition(".")[0] for cls in type(client).__mro__]
    return [root for root in roots if root not in ("abc", "builtins", "pydantic", "typing")]


class _Meter:
    """How what a client's methods return is looked at."""

    def __init__(
        self, roots: list[str], read: Callable[[object], Reading], bill: Callable[[Any], bool]
    ) -> None:
        self._roots = roots
        self._bill = bill
        self.read = read

    def is_part(self, value: object) -> bool:
        """Whether it is an object of the client's own packages, and so leads to its methods."""
        return type(value).__module__.partition(".")[0] in self._roots

    def asking(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        answers = name in _ANSWERING

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            model = kwargs.get("model")
            with self._failing(model):
                answer = method(*args, **kwargs)
            return self._answered(answer, model, answers)

        @functools.wraps(method)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            model = kwargs.get("model")
            with self._failing(model):
                answer = await method(*args, **kwargs)
            return self._answered(answer, model, answers)

        return call_async if inspect.iscoroutinefunction(method) else call

    def leading(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            led = method(*args, **kwargs)
            return _Client(led, self) if self.is_part(led) else led

        return call

    @contextlib.contextmanager
    def _failing(self, model: object) -> Iterator[None]:
        """Bill the answer that an error has: OpenAI's, of one that was cut."""
        try:
            yield
        except Exception as error:
            completion = getattr(error, "completion", None)
            if completion is not None:
                reading = self.read(model)
                self.safely(reading.add, completion)
                self.bill(reading)
            raise

    def _answered(self, answer: Any, model: object, answers: bool) -> Any:
        if inspect.isawaitable(answer):

            async def awaited() -> Any:
                return self._answered(await answer, model, answers)

            return awaited()
        kind = type(answer)
        if hasattr(kind, "__next__"):
            return _Stream(answer, _Watch(self, answer, model))
        if hasattr(kind, "__anext__"):
            return _AsyncStream(answer, _Watch(self, answer, model))
        if hasattr(kind, "__enter__"):
            return _Manager(answer, functools.partial(_Watch, self, model=model))
        if hasattr(kind, "__aenter__"):
            return _AsyncManager(answer, functools.partial(_Watch, self, model=model))
        reading = self.read(model)
        if self.safely(reading.add, answer) and self.bill(reading):
            return answer
        if self.is_part(answer) and any(hasattr(kind, name) for name in _ASKING):
            return _Client(answer, self)
        if answers or reading.answered:
            warn("an answer of a language model has no token usage and is not billed")
        return answer

    def bill(self, reading: Reading) -> bool:
        """Bill what was read, if it tells of usage."""
        try:
            return self._bill(reading)
        except Exception as error:  # noqa: BLE001, RUF100 - the caller's own answer goes before the bill
            warn("an answer of a language model is not billed: %s", error)
            return True

    def safely(self, look: Callable[[Any], object], at: object) -> bool:
        """Look at something without a harm to who asked for it."""
        try:
            look(at)
        except Exception as error:  # noqa: BLE001, RUF100 - as above
            warn("an answer of a language model cannot be read: %s", error)
            return False
        return True


_OPEN: "set[_Watch]" = set()


def end_open_streams() -> None:
    """Bill what has been seen of the streams that are still open: the program ends."""
    for watch in list(_OPEN):
        watch.leave()


class _Watch:
    """What is seen of one stream, until it is billed."""

    def __init__(self, meter: _Meter, stream: object, model: object) -> None:
        self._meter = meter
        self._stream = stream
        self._reading = meter.read(model)
        self._process = os.getpid()
        _OPEN.add(self)

    def see(self, piece: object) -> None:
        self._meter.safely(self._reading.add, piece)
        if self._reading.complete:
            self.end()

    def leave(self) -> None:
        """Bill a stream that nobody reads on. A child that was forked leaves it to its parent."""
        if self._process == os.getpid():
            self.end()
        else:
            _OPEN.discard(self)

    def end(self, *, read: bool = False) -> None:
        """Bill the stream, once. `read`: to its end."""
        try:
            _OPEN.remove(self)
        except KeyError:
            return
        self._meter.safely(self._see_snapshot, self._stream)
        if self._meter.bill(self._reading):
            return
        if self._reading.complete:
            warn("a stream of a language model has ended without token usage and is not billed")
        elif read:
            warn(
                "a stream of a language model has ended without token usage and is not billed; "
                "of OpenAI's chat ask for it with stream_options={'include_usage': True}"
            )
        else:
            warn(
                "a stream of a language model was left before it told its token usage and is not "
                "billed; read it to its end"
            )

    def _see_snapshot(self, stream: object) -> None:
        """See what a stream has put together of pieces that were taken past us."""
        for name in _SNAPSHOTS:
            if hasattr(type(stream), name):
                try:
                    snapshot = getattr(stream, name)
                except AssertionError:  # nothing has come yet
                    continue
                self._reading.add(snapshot)


class _Proxy:
    """Whatever it stands in front of, to everyone who asks."""

    def __init__(self, target: Any) -> None:
        object.__setattr__(self, "_target", target)

    _target: Any = None  # a copy is asked for things before it has its own

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return type(self._target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._target, name, value)

    def __repr__(self) -> str:
        return repr(self._target)


class _Client(_Proxy):
    """A client, or a part of one."""

    _meter: _Meter

    def __init__(self, target: Any, meter: _Meter) -> None:
        super().__init__(target)
        object.__setattr__(self, "_meter", meter)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if name in _RAW:
            _raw.occur(name)
        if name.startswith("_") or name in _UNSEEN:
            return value
        if name in _ASKING and callable(value):
            return self._meter.asking(name, value)
        if name in _LEADING and callable(value):
            return self._meter.leading(value)
        if name in _COMPOSING and getattr(value, "__self__", None) is self._target:
            return value.__func__.__get__(self)
        return _Client(value, self._meter) if self._meter.is_part(value) else value

    def __copy__(self) -> Any:
        return _Client(copy.copy(self._target), self._meter)

    def __deepcopy__(self, memo: Any) -> Any:
        return _Client(copy.deepcopy(self._target, memo), self._meter)

    def __or__(self, other: Any) -> Any:
        return self.__class__.__or__(self, other)

    def __ror__(self, other: Any) -> Any:
        return self.__class__.__ror__(self, other)

    def __enter__(self) -> Any:
        self._target.__enter__()
        return self

    def __exit__(self, *exception: object) -> Any:
        return self._target.__exit__(*exception)

    async def __aenter__(self) -> Any:
        await self._target.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> Any:
        return await self._target.__aexit__(*exception)


class _Watched(_Proxy):
    """A stream, in either form."""

    _watch: _Watch

    def __init__(self, target: Any, watch: _Watch) -> None:
        super().__init__(target)
        object.__setattr__(self, "_watch", watch)

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_finalizing():  # there is nothing left then to bill with
            self._watch.leave()


class _Stream(_Watched):
    """A stream that is read as it was, and billed at its end."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if name == "until_done":
            return self._until_done
        if not (name == "close" or name.startswith("get_final_")):
            return value

        @functools.wraps(value)
        def final(*args: Any, **kwargs: Any) -> Any:
            result = value(*args, **kwargs)
            self._watch.see(result)
            self._watch.end(read=name.startswith("get_final_"))
            return result

        return final

    def _until_done(self) -> Any:
        for _ in self:
            pass
        return self._target.until_done()

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        try:
            piece = next(self._target)
        except BaseException as error:
            self._watch.end(read=isinstance(error, StopIteration))
            raise
        self._watch.see(piece)
        return piece

    def __enter__(self) -> Any:
        self._target.__enter__()
        return self

    def __exit__(self, *exception: object) -> Any:
        try:
            return self._target.__exit__(*exception)
        finally:
            self._watch.end()


class _AsyncStream(_Watched):
    """The same for `async for`."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if name == "until_done":
            return self._until_done
        if not (name in ("close", "aclose") or name.startswith("get_final_")):
            return value

        @functools.wraps(value)
        async def final(*args: Any, **kwargs: Any) -> Any:
            result = await value(*args, **kwargs)
            self._watch.see(result)
            self._watch.end(read=name.startswith("get_final_"))
            return result

        return final

    async def _until_done(self) -> Any:
        async for _ in self:
            pass
        return await self._target.until_done()

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        try:
            piece = await self._target.__anext__()
        except BaseException as error:
            self._watch.end(read=isinstance(error, StopAsyncIteration))
            raise
        self._watch.see(piece)
        return piece

    async def __aenter__(self) -> Any:
        await self._target.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> Any:
        try:
            return await self._target.__aexit__(*exception)
        finally:
            self._watch.end()


class _Managing(_Proxy):
    """What gives a stream to a `with`, in either form."""

    _watching: Callable[[Any], _Watch]
    _watch: _Watch | None

    def __init__(self, target: Any, watching: Callable[[Any], _Watch]) -> None:
        super().__init__(target)
        object.__setattr__(self, "_watching", watching)
        object.__setattr__(self, "_watch", None)

    def _watched(self, stream: Any) -> _Watch:
        watch = self._watching(stream)
        object.__setattr__(self, "_watch", watch)
        return watch

    def _end(self) -> None:
        if self._watch is not None:
            self._watch.end()


class _Manager(_Managing):
    def __enter__(self) -> Any:
        stream = self._target.__enter__()
        return _Stream(stream, self._watched(stream))

    def __exit__(self, *exception: object) -> Any:
        try:
            return self._target.__exit__(*exception)
        finally:
            self._end()


class _AsyncManager(_Managing):
    async def __aenter__(self) -> Any:
        stream = await self._target.__aenter__()
        return _AsyncStream(stream, self._watched(stream))

    async def __aexit__(self, *exception: object) -> Any:
        try:
            return await self._target.__aexit__(*exception)
        finally:
            self._end()
