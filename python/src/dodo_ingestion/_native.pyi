from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from datetime import datetime, timedelta
from os import PathLike
from typing import Any, Final, TypeAlias, final

from typing_extensions import Self

from dodo_ingestion.errors import IngestionError
from dodo_ingestion.types import Duration, Metadata

_Option: TypeAlias = str | int | float | bool | timedelta | PathLike[str] | None
__all__ = [
    "ERROR_KINDS",
    "IDENTIFIER_CHARACTERS",
    "METADATA_KEY_CHARACTERS",
    "METADATA_PAIRS",
    "METADATA_VALUE_CHARACTERS",
    "OPTIONS",
    "Batch",
    "Ingestion",
    "Pending",
    "Receipt",
    "accept_api_call",
    "close_at_exit",
    "create_batch",
    "customer_in_asgi_headers",
    "customer_in_header",
    "make_error",
    "refuse",
    "told",
    "track_api_call",
]
ERROR_KINDS: Final[tuple[str, ...]]
IDENTIFIER_CHARACTERS: Final[int]
METADATA_KEY_CHARACTERS: Final[int]
METADATA_PAIRS: Final[int]
METADATA_VALUE_CHARACTERS: Final[int]
OPTIONS: Final[tuple[str, ...]]

@final
class Ingestion:
    """A client of the billing API: accepts calls in microseconds and delivers them in batches.

    Options are keyword arguments; one that is not given is read from its environment variable, and has
    its default without one. `api_key` and `event_name` have to be given, in either way. The others, with
    their limits: docs/configuration.md in the repository.

    Args:
        on_alarm: Called with an alarm's kind and message, on any thread. Without it alarms are
            warnings of the logger `dodo_ingestion`.

    Raises:
        ConfigurationError: An option is unknown, missing or out of range.
        StorageError: `durability` is "disk" and there is none.

    `with` and `async with` close the client at their end; if the block was left by an exception, for at
    most `exit_timeout`, and with what went wrong in the log. The end of the program closes it too."""

    def __new__(
        cls, *, on_alarm: Callable[[str, str], object] | None = None, **options: _Option
    ) -> Self: ...
    def track(
        self,
        *,
        customer_id: str,
        metadata: Metadata | None = None,
        event_id: str | None = None,
        event_name: str | None = None,
        timestamp: datetime | None = None,
    ) -> Receipt:
        """Accept one call. The same as the function `track_api_call`."""

    def flush(self, timeout: Duration | None = None) -> None:
        """Make everything that this process has accepted on this account due, and block until it is settled:
        billed, or set aside with the API's words. Ctrl-C interrupts it. What was left by clients that are all
        closed is billed as well, and not waited for.

        Args:
            timeout: Seconds, or a timedelta; 30 s by default.

        Raises:
            IngestionTimeoutError: The time was over first. The calls stay spooled.
            AuthenticationError: The same, and the API refuses the key.
            NetworkError: The same, and the API cannot be reached.
            StorageError: The disk failed.
            ClosedError: The client is closed."""

    def aflush(self, timeout: Duration | None = None) -> Coroutine[Any, Any, None]:
        """Await what `flush` blocks for, under asyncio, trio or anyio."""

    def close(self, timeout: Duration | None = None) -> None:
        """Flush, and let go. Calls that come meanwhile are accepted; what is not billed in time stays spooled for the
        next process of the account. Closing twice is no error.

        Arguments and exceptions are those of `flush`; the client is closed also if one is raised."""

    def aclose(self, timeout: Duration | None = None) -> Coroutine[Any, Any, None]:
        """Await what `close` blocks for, under asyncio, trio or anyio. Cancelled before its
        flush is over, it leaves the client open."""

    @property
    def exit_timeout(self) -> float:
        """How long the end of the program waits for what is not billed yet, in seconds."""

    def stats(self) -> dict[str, int]:
        """What this process's clients of the account have done so far, since all that
        were there before were closed: counts by name, such as `accepted`,
        `billed`, `spooled`, `dead_lettered`, `invalid` and `overflowed`."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None = None, *_details: object) -> None: ...
    def __aenter__(self) -> Coroutine[Any, Any, Self]: ...
    def __aexit__(
        self, kind: type[BaseException] | None = None, *_details: object
    ) -> Coroutine[Any, Any, None]: ...

@final
class Batch:
    """Calls that are due together: when there are `max_size`, or the oldest is `flush_interval` old.

    A call that was added is accepted: it survives what a tracked one survives, also where the batch is
    dropped. `with` and `async with` clean it up at their end; if the block was left by an exception,
    for at most the client's `exit_timeout`, and with what went wrong in the log."""

    def add(
        self,
        *,
        customer_id: str,
        metadata: Metadata | None = None,
        event_id: str | None = None,
        event_name: str | None = None,
        timestamp: datetime | None = None,
    ) -> None:
        """Accept one call. It is due with its batch.

        Arguments and exceptions are those of `track_api_call`."""

    def flush(self, timeout: Duration | None = None) -> None:
        """Make everything that this process has accepted on this account due, and block until it is settled.

        Arguments and exceptions are those of `Ingestion.flush`."""

    def aflush(self, timeout: Duration | None = None) -> Coroutine[Any, Any, None]:
        """Await what `flush` blocks for, under asyncio, trio or anyio."""

    def cleanup(self, timeout: Duration | None = None) -> None:
        """Flush for the last time. What is not billed in time stays spooled.

        Arguments and exceptions are those of `flush`."""

    def acleanup(self, timeout: Duration | None = None) -> Coroutine[Any, Any, None]:
        """Await what `cleanup` blocks for, under asyncio, trio or anyio."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None = None, *_details: object) -> None: ...
    def __aenter__(self) -> Coroutine[Any, Any, Self]: ...
    def __aexit__(
        self, kind: type[BaseException] | None = None, *_details: object
    ) -> Coroutine[Any, Any, None]: ...

@final
class Receipt:
    """The proof that a call was accepted. It can be dropped at once, or asked whether the call is billed.

    `await receipt` is the receipt itself, at once: a track verb has nothing that is to be awaited."""

    @property
    def event_id(self) -> str:
        """The call's idempotency key, as the billing API knows it: the caller's own, or one that was made."""

    def delivered(self, timeout: Duration | None = None) -> Coroutine[Any, Any, None]:
        """Await that the billing API has acknowledged the call, under asyncio, trio or anyio. That does not
        hurry the call; `Ingestion.aflush` does.

        Args:
            timeout: Seconds, or a timedelta; 30 s by default. The wait can also be cancelled. The call
                stays spooled in either case.

        Raises:
            RejectedError, TooLargeError: The API refused the call, in its words.
            IngestionTimeoutError: The time was over first.
            AuthenticationError: The same, and the API refuses the key.
            NetworkError: The same, and the API cannot be reached.
            ClosedError: The client was closed first."""

    def wait_delivered(self, timeout: Duration | None = None) -> None:
        """Block this thread until the billing API has acknowledged the call. Ctrl-C interrupts it.

        Arguments and exceptions are those of `delivered`."""

    def __await__(self) -> Generator[Any, None, Self]: ...

@final
class Pending:
    """A wait that an event loop polls."""

    def poll(self) -> bool:
        """Whether the wait is over; raises what it failed with, once."""

def track_api_call(
    ingestion: Ingestion,
    *,
    customer_id: str,
    metadata: Metadata | None = None,
    event_id: str | None = None,
    event_name: str | None = None,
    timestamp: datetime | None = None,
) -> Receipt:
    """Accept one API call for billing, in microseconds. The network is not waited for.

    Args:
        ingestion: The client.
        customer_id: The customer who is billed: 1 to 255 characters.
        metadata: At most 50 pairs. A key has at most 100 characters. A value is a str of at most 500
            characters, an int of 64 bits, a finite float, or a bool; of an Enum its value; a Decimal is
            the float of its digits, a UUID, a datetime and a date are text, a numpy scalar is what it
            holds. A pair with None is left out.
        event_id: The caller's own idempotency key, 1 to 255 characters: the API counts an id once, however
            often it comes. Made if not given.
        event_name: Another event name than the client's, 1 to 255 characters.
        timestamp: When it happened: a datetime with a time zone, at most an hour ago and five minutes
            ahead. Now if not given.

    Returns:
        The receipt. It can be dropped, or waited for.

    Raises:
        ValidationError: The call breaks a limit; `field` says where.
        IngestionOverflowError: The spool is full.
        StorageError: The disk failed.
        ClosedError: The client is closed."""

def create_batch(
    ingestion: Ingestion, *, max_size: int | None = None, flush_interval: Duration | None = None
) -> Batch:
    """Open a batch: calls that are due together.

    Args:
        ingestion: The client.
        max_size: The batch is due when it holds so many calls, and goes out within 50 ms with whatever
            comes meanwhile: 1 to 1000, 100 by default.
        flush_interval: It is also due when its oldest call is so old: seconds or a timedelta, at most
            300 s, 5 s by default.

    Raises:
        ConfigurationError: A setting is out of range."""

def accept_api_call(
    ingestion: Ingestion,
    customer_id: str,
    event_name: str | None,
    fields: tuple[str | None, str, int | None, float, float | None, int | None, bool | None],
    metadata: Metadata | None,
    /,
) -> str | None:
    """Accept one API call by its fields, for a middleware, which wants no receipt.

    Args:
        ingestion: The client.
        customer_id: The customer who is billed.
        event_name: Another event name than the client's.
        fields: The endpoint and the method, which are cut to what a value of metadata may have; the status
            code, the response time and the time to the first byte in seconds, the bytes of the response,
            and whether it was aborted.
        metadata: What there is beside the fields, if anything.

    Returns:
        Which of endpoint and method was left out, if one was: it is no Unicode text.

    Exceptions are those of `track_api_call`."""

def customer_in_header(values: list[str], /) -> str | None:
    """Find the customer whom a header names.

    Args:
        values: All the values that the request has for it. More than one name nobody, nor does one with a
            comma, which is how some servers write the same: one of the two may be the client's own word."""

def customer_in_asgi_headers(headers: Iterable[Sequence[bytes]], name: bytes, /) -> str | None:
    """Find the customer whom a header of ASGI names.

    Args:
        headers: The headers of the scope: pairs of a name and a value.
        name: The name of the header, in lower case."""

def close_at_exit() -> list[str]:
    """Close the clients that are still open, all at once, each for as long as its options allow, and tell no
    alarms after that. Returns what went wrong."""

def make_error(
    kind: str, message: str, field: str | None, status: int | None, may_be_billed: bool
) -> IngestionError:
    """Make the exception for an error of the core."""

def refuse(ingestion: Ingestion, reason: str) -> None:
    """Count and tell a call that could not be made an event of."""

def told() -> None:
    """Take note that a thread of Python's has told an alarm."""
