from collections.abc import Callable, Coroutine, Generator
from datetime import datetime, timedelta
from os import PathLike
from typing import Any, Final, TypeAlias, final

from typing_extensions import Self

from dodo_ingestion.types import Duration, Metadata

_Option: TypeAlias = str | int | float | bool | timedelta | PathLike[str] | None

__all__ = [
    "ERROR_KINDS",
    "OPTIONS",
    "Batch",
    "Ingestion",
    "Pending",
    "Receipt",
    "close_at_exit",
    "create_batch",
    "track_api_call",
]

ERROR_KINDS: Final[tuple[str, ...]]
OPTIONS: Final[tuple[str, ...]]

@final
class Ingestion:
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
    ) -> Receipt: ...
    def flush(self, timeout: Duration | None = None) -> None: ...
    def aflush(self, timeout: Duration | None = None) -> Coroutine[Any, Any, None]: ...
    def close(self, timeout: Duration | None = None) -> None: ...
    def aclose(self, timeout: Duration | None = None) -> Coroutine[Any, Any, None]: ...
    def stats(self) -> dict[str, int]: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None = None, *_details: object) -> None: ...
    def __aenter__(self) -> Coroutine[Any, Any, Self]: ...
    def __aexit__(
        self, kind: type[BaseException] | None = None, *_details: object
    ) -> Coroutine[Any, Any, None]: ...

@final
class Batch:
    def add(
        self,
        *,
        customer_id: str,
        metadata: Metadata | None = None,
        event_id: str | None = None,
        event_name: str | None = None,
        timestamp: datetime | None = None,
    ) -> None: ...
    def flush(self, timeout: Duration | None = None) -> None: ...
    def aflush(self, timeout: Duration | None = None) -> Coroutine[Any, Any, None]: ...
    def cleanup(self, timeout: Duration | None = None) -> None: ...
    def acleanup(self, timeout: Duration | None = None) -> Coroutine[Any, Any, None]: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None = None, *_details: object) -> None: ...
    def __aenter__(self) -> Coroutine[Any, Any, Self]: ...
    def __aexit__(
        self, kind: type[BaseException] | None = None, *_details: object
    ) -> Coroutine[Any, Any, None]: ...

@final
class Receipt:
    @property
    def event_id(self) -> str: ...
    def delivered(self, timeout: Duration | None = None) -> Coroutine[Any, Any, None]: ...
    def wait_delivered(self, timeout: Duration | None = None) -> None: ...
    def __await__(self) -> Generator[Any, None, Self]: ...

@final
class Pending:
    def poll(self) -> bool: ...

def track_api_call(
    ingestion: Ingestion,
    *,
    customer_id: str,
    metadata: Metadata | None = None,
    event_id: str | None = None,
    event_name: str | None = None,
    timestamp: datetime | None = None,
) -> Receipt: ...
def create_batch(
    ingestion: Ingestion,
    *,
    max_size: int | None = None,
    flush_interval: Duration | None = None,
) -> Batch: ...
def close_at_exit() -> list[str]: ...
