"""Metering for WSGI apps: Flask, Pyramid, Bottle, Falcon and any other.

>>> app.wsgi_app = MeterMiddleware(app.wsgi_app, ingestion=ingestion, customer="x-customer-id")

or, around any app, `app = MeterMiddleware(app, ingestion=ingestion, customer="x-customer-id")`. Its
options are those of `MeteringOptions`. Callables are given the environ.

A call's event is made when the body has ended; where its length is known, before the last of it is
handed to the server, so that what a client has received is billed even if this process is killed.
Query strings and bodies are never read.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from dodo_ingestion import _routes
from dodo_ingestion._exchange import KEY, SAID, Exchange, current
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
    "MeterMiddleware",
    "MissingCustomer",
    "set_customer",
    "set_endpoint",
    "set_metadata",
    "set_units",
    "skip_metering",
]

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Callable[[bytes], object]]
App: TypeAlias = Callable[[Environ, Any], Iterable[bytes]]


class MeterMiddleware:
    """Meters the calls of a WSGI app."""

    def __init__(
        self,
        app: App,
        *,
        ingestion: IngestionSource,
        **options: Unpack[MeteringOptions],
    ) -> None:
        self.app = app
        self._metering = Metering(ingestion, options, header=header)
        self._templates = _routes.WsgiTemplates(app)
        with self._metering.guarded("no route templates"):
            _routes.watch(app)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve a request, and meter it."""
        if environ["REQUEST_METHOD"] == "OPTIONS" or KEY in environ:
            return self.app(environ, start_response)
        call = _Call(self._metering, self._templates, environ, start_response)
        environ[KEY] = call
        call.hear(environ.pop(SAID, ()))
        current.set(call)
        call.watch_file_wrapper()
        try:
            body = self.app(environ, call.start_response)
        except BaseException as error:
            call.raised(error)
            raise
        if call.is_file(body) and call.closes(body):
            return body
        if isinstance(body, (list, tuple)):
            if len(body) == 1 and call.length is None:
                call.length = len(body[0])
            return _SizedBody(call, body)
        return _Body(call, body)


class _Call(Exchange):
    def __init__(
        self,
        metering: Metering,
        templates: _routes.WsgiTemplates,
        environ: Environ,
        start_response: StartResponse,
    ) -> None:
        super().__init__(
            metering, environ, environ["REQUEST_METHOD"], environ.get("PATH_INFO") or "/"
        )
        self.templates = templates
        self._start_response = start_response
        outer = current.get()
        # One that is finished may be left over, in a thread that has passed a body on.
        self._outer = None if outer is None or outer.finished else outer
        self.length: int | None = None
        self._files: list[object] = []

    def start_response(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: Any = None,
    ) -> Callable[[bytes], object]:
        if not self.bytes:
            # Once a part is sent, the client has its head, and the server raises `exc_info`.
            self.take_head(status, headers)
        # Flask takes its request out of the environ before the app returns.
        self.find_route()
        if self.metering.options.raises:
            self.metering.require_customer(self)
        if exc_info is None:
            write = self._start_response(status, headers)
        else:
            write = self._start_response(status, headers, exc_info)

        def counted(data: bytes) -> object:
            self.sending(len(data))
            return write(data)

        return counted

    def take_head(self, status: str, headers: list[tuple[str, str]]) -> None:
        with contextlib.suppress(ValueError):
            self.begin(int(status[:3]))
        self.length = None
        for name, value in headers:
            if name.lower() == "content-length" and value.isdecimal():
                self.length = int(value)

    def find_route(self) -> None:
        try:
            self.route = self.templates.of(self.request, self.path) or self.route
        except Exception as error:
            self.metering.failed.occur("no route template", error)

    def end(self) -> None:
        """Make the event of the call, whose body has ended."""
        if not self.finished:
            environ = self.request
            self.find_route()
            self.finish()
            if environ is not None:  # another thread may have made the event meanwhile
                # A server's `start_response` leads to the environ, and this to `start_response`.
                environ.pop(KEY, None)
            outer, self._outer = self._outer, None
            if current.get() is self:
                current.set(None if outer is None or outer.finished else outer)

    def raised(self, error: BaseException) -> None:
        """Note that the app raised, before its body or amid it."""
        if not self.bytes:
            # The server has sent nothing yet, and answers with an error of its own.
            self.head = None
        self.fail(error)
        self.end()

    def close(self) -> None:
        """Note that the server wants no more of the body."""
        if self.finished:
            return
        if self.status is None:
            self.fail()
        elif not self.has_sent(self.length):
            self.aborted = True
        self.end()

    def watch_file_wrapper(self) -> None:
        """See which bodies a server's function for files makes: it may know them by identity."""
        wrapper = self.request.get("wsgi.file_wrapper")
        if wrapper is None or isinstance(wrapper, type):
            return
        files = self._files

        def wrapped(*arguments: Any, **named: Any) -> Any:
            file = wrapper(*arguments, **named)
            files.append(file)
            return file

        self.request["wsgi.file_wrapper"] = wrapped

    def is_file(self, body: object) -> bool:
        """Whether the server may send the body in a way of its own."""
        wrapper = self.request.get("wsgi.file_wrapper")
        if isinstance(wrapper, type):
            return isinstance(body, wrapper)
        return any(body is file for file in self._files)

    def closes(self, body: Any) -> bool:
        """Let the server send a file in its own way, and hear of the end when it closes it."""
        close = getattr(body, "close", None)

        def closed() -> None:
            try:
                if close is not None:
                    close()
            finally:
                self.bytes = self.length
                self.end()

        try:
            body.close = closed
        except (AttributeError, TypeError):
            return False
        return True


class _Body:
    """The app's body, on its way to the server."""

    __slots__ = ("_body", "_call", "_chunks")

    def __init__(self, call: _Call, body: Iterable[bytes]) -> None:
        self._call = call
        self._body = body
        self._chunks: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._chunks is None:
                self._chunks = iter(self._body)
            chunk = next(self._chunks)
        except StopIteration:
            self._call.end()
            raise
        except BaseException as error:
            self._call.raised(error)
            raise
        self._call.sending(len(chunk))
        if self._call.has_sent(self._call.length):
            self._call.end()
        return chunk

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._call.close()

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # A middleware that only iterates does not close what it has not read to its end.
        if not is_finalizing():  # there is nothing left then to bill with
            self._call.close()


class _SizedBody(_Body):
    """A body of so many chunks; of one, and the server declares its length by itself."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self._body)  # type: ignore[arg-type]


def header(name: str) -> Callable[[Environ], str | None]:
    """Make what reads a header in an environ.

    There a header that came twice is one with a comma, also where the second was written with `_`
    instead of `-`.
    """
    wanted = "HTTP_" + name.upper().replace("-", "_")

    def read(environ: Environ) -> str | None:
        value = environ.get(wanted)
        return customer_in_header([value]) if isinstance(value, str) else None

    return read
