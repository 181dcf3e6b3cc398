"""A call under way, and what was said of it. Adapters fill it in, and handlers speak to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextvars import ContextVar, Token
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio

    from dodo_ingestion._metering import Metering
    from dodo_ingestion.types import MetadataValue

KEY: Final = "dodo_ingestion.exchange"
"""Where an exchange lies in an ASGI scope, a WSGI environ and the like."""
KEYS: Final[list[Any]] = [KEY]
"""The same, with the keys of frameworks that want their own."""
SAID: Final = "dodo_ingestion.said"
"""Where what was said before there was an exchange lies in these."""
SAID_KEYS: Final[list[tuple[Any, Any]]] = [(MutableMapping, SAID)]
"""The same, by the type of what it lies in."""

_CATCH_ALL: Final = re.compile(
    r"""(?:
        \{ \w+ :path \}                        # Starlette, Falcon
      | < path: \w+ > | < \w+ :path >          # Flask, Quart, Django; Bottle
      | < \w* :re: \.[*+] >                   # Bottle
      | \* \w*                                # Pyramid
      | (?: \( (?: \?P<\w+> )? )? \.[*+] \)?  # a regular expression of Django's
    )$""",
    re.VERBOSE,
)

BODILESS: Final = (204, 304)
"""The statuses of responses that have no body, whatever the app sends."""

_MOST_WORDS: Final = 1000
"""So many words are kept in a request that no meter may ever come to."""

_CARRIERS: Final = ("scope", "environ", "env", "META")

current: ContextVar[Exchange | None] = ContextVar("dodo_ingestion_exchange", default=None)


def reset(token: Token[Exchange | None]) -> None:
    """Make `current` what it was, in the context where it was set."""
    try:  # noqa: SIM105 - which takes longer than all of this
        current.reset(token)
    except ValueError:
        pass  # What is thrown away with its loop ends in any context, and threads share a stream.


class Exchange:
    """A call under way, and what was said of it. An adapter fills it in."""

    # What few calls have. CPython remembers where an object's own attributes lie, and looks a
    # class's up each time: those of each call are the object's.
    finishing: asyncio.Task[None] | None = None
    """The task of its own that finishes it."""
    skip: bool | None = None
    """What the option `skip` has said of it, which is asked once."""
    bills: tuple[int, bool | None] | None = None
    """The same of `bill_status`, with the status."""

    def __init__(self, metering: Metering, request: Any, method: str, path: str) -> None:
        self.metering = metering
        self.request: Any = request
        self.method = method
        self.path = path
        self.began = perf_counter()
        self.head: float | None = None
        self.first_byte: float | None = None
        self.status: int | None = None
        self.bytes: int | None = 0
        self.aborted = False
        self.route: str | None = None
        self.extra: dict[str, MetadataValue] | None = None
        self.finished = False
        """Whether its event is made, or it makes none."""
        self._claims = [True]

        # What handlers say.
        self.customer: str | None = None
        self.endpoint: str | None = None
        self.units: float | None = None
        self.metadata: dict[str, Any] | None = None
        self.skipped = False

    def __deepcopy__(self, _memo: object = None) -> Exchange:
        return self  # it is one call in each copy of a scope, as hypercorn's ProxyFix makes one

    __copy__ = __deepcopy__

    def hear(self, words: Iterable[Callable[[Exchange], None]]) -> None:
        """Take over what was said of the call before a meter had it."""
        for word in words:
            word(self)

    def begin(self, status: int) -> None:
        """Note that the response has begun."""
        self.status = status
        self.head = perf_counter()

    def sending(self, size: int) -> None:
        """Count a part of the body that is about to be sent."""
        if size and not (self.method == "HEAD" or self.status in BODILESS):
            if self.first_byte is None:
                self.first_byte = perf_counter()
            if self.bytes is not None:
                self.bytes += size

    def is_bodiless(self) -> bool:
        """Whether the response has begun and its head is all that a client waits for."""
        return self.head is not None and (self.method == "HEAD" or self.status in BODILESS)

    def has_sent(self, length: int | None) -> bool:
        """Whether a client that was told this length has the whole, before the response's end."""
        if self.is_bodiless():
            return True
        return length is not None and self.bytes is not None and self.bytes >= length

    def fail(self, error: BaseException | None = None) -> None:
        """Note that the app raised: the server answers for it, if no response has begun."""
        if error is not None and not isinstance(error, Exception):
            self.cancel()
        elif self.head is None:
            self.status = 500
        else:
            self.aborted = True

    def cancel(self) -> None:
        """Note that whoever serves the call was told to stop, and serves nothing instead."""
        self.aborted = True
        if self.head is None:
            self.status = None

    def takes_the_rest(self, template: str) -> bool:
        """Whether the template is that of a route for whatever is left of a path."""
        return _CATCH_ALL.search(template) is not None

    def finish(self) -> None:
        """Make the event of the call, which has ended. Only the first time counts."""
        metering = self.metering
        metering.unfinished.discard(self)
        try:
            # Of several threads one makes it.
            self.finished = self._claims.pop()
        except IndexError:
            return
        try:
            metering.write(self, perf_counter())
        except Exception as error:
            metering.failed.occur("an event was not made", error)
        self.request = None


def exchange_of(request: object) -> Exchange | None:
    """Find the exchange that a middleware put into a request, whichever framework's."""
    for carrier in _carriers(request):
        if isinstance(carrier, Mapping):
            for key in KEYS:
                found = carrier.get(key)
                if isinstance(found, Exchange):
                    return found
    return current.get()


def keep(request: object, word: Callable[[Exchange], None]) -> None:
    """Leave a word in a request for the meter that it has yet to come to."""
    for carrier in _carriers(request):
        for kind, key in SAID_KEYS:
            if isinstance(carrier, kind):
                words = carrier.setdefault(key, [])
                if len(words) < _MOST_WORDS:
                    words.append(word)
                return


def _carriers(request: object) -> Iterator[Any]:
    yield request
    for name in _CARRIERS:
        yield getattr(request, name, None)
