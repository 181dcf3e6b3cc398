from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime, timedelta
from os import PathLike
from typing import Any, Final, TypeAlias, final

from typing_extensions import Self

_Duration: TypeAlias = float | timedelta
_Metadata: TypeAlias = Mapping[str, str | int | float | bool | None]
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
        metadata: _Metadata | None = None,
        event_id: str | None = None,
        event_name: str | None = None,
        timestamp: datetime | None = None,
    ) -> Receipt: ...
    def flush(self, timeout: _Duration | None = None) -> None: ...
    def close(self, timeout: _Duration | None = None) -> None: ...
    def stats(self) -> dict[str, int]: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        *_exception: object,
    ) -> None: ...

@final
class Batch:
    def add(
        self,
        *,
        customer_id: str,
        metadata: _Metadata | None = None,
        event_id: str | None = None,
        event_name: str | None = None,
        timestamp: datetime | None = None,
    ) -> None: ...
    def flush(self, timeout: _Duration | None = None) -> None: ...
    def cleanup(self, timeout: _Duration | None = None) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        *_exception: object,
    ) -> None: ...

@final
class Receipt:
    @property
    def event_id(self) -> str: ...
    def delivered(self, timeout: _Duration | None = None) -> Coroutine[Any, Any, None]: ...
    def wait_delivered(self, timeout: _Duration | None = None) -> None: ...

@final
class Pending:
    def poll(self) -> bool: ...

def track_api_call(
    ingestion: Ingestion,
    *,
    customer_id: str,
    metadata: _Metadata | None = None,
    event_id: str | None = None,
    event_name: str | None = None,
    timestamp: datetime | None = None,
) -> Receipt: ...
def create_batch(
    ingestion: Ingestion,
    *,
    max_size: int | None = None,
    flush_interval: _Duration | None = None,
) -> Batch: ...
def close_at_exit() -> list[str]: ...
