"""The track verbs beside `track_api_call`: the same, with a metadata pair of their own."""

import functools
import inspect
import math
import operator
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, ParamSpec, SupportsIndex

from dodo_ingestion._native import Ingestion, Receipt, refuse, track_api_call
from dodo_ingestion.errors import ValidationError, unknown_argument
from dodo_ingestion.types import Metadata

Arguments = ParamSpec("Arguments")


def _naming_the_nearest(verb: Callable[Arguments, Receipt]) -> Callable[Arguments, Receipt]:
    """Refuse an unknown keyword as `track_api_call` does."""
    ingestion, *known = inspect.signature(verb).parameters

    @functools.wraps(verb)
    def checked(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Receipt:
        unknown = [name for name in kwargs if name not in known and name != ingestion]
        if unknown:
            raise unknown_argument(verb.__name__, unknown, known)
        return verb(*args, **kwargs)

    return checked


@_naming_the_nearest
def track_object_storage(
    ingestion: Ingestion,
    *,
    customer_id: str,
    bytes: SupportsIndex | None = None,  # noqa: A002
    metadata: Metadata | None = None,
    event_id: str | None = None,
    event_name: str | None = None,
    timestamp: datetime | None = None,
) -> Receipt:
    """Accept bytes that were put into an object store, as the metadata pair `bytes`.

    Args:
        ingestion: The client.
        customer_id: The customer who is billed.
        bytes: How many: a whole number, at least 0. Without it there is no such pair.
        metadata: Further pairs. One named `bytes` goes before the argument.
        event_id: As for `track_api_call`, which also has the limits and exceptions.
        event_name: Likewise.
        timestamp: Likewise.

    """
    return track_api_call(
        ingestion,
        customer_id=customer_id,
        metadata=beside(ingestion, {"bytes": _whole(ingestion, "bytes", bytes)}, metadata),
        event_id=event_id,
        event_name=event_name,
        timestamp=timestamp,
    )


@_naming_the_nearest
def track_stream_bytes(
    ingestion: Ingestion,
    *,
    customer_id: str,
    bytes: SupportsIndex | None = None,  # noqa: A002
    metadata: Metadata | None = None,
    event_id: str | None = None,
    event_name: str | None = None,
    timestamp: datetime | None = None,
) -> Receipt:
    """Accept bytes that were streamed to the customer, as the metadata pair `bytes`.

    The arguments are those of `track_object_storage`.
    """
    return track_api_call(
        ingestion,
        customer_id=customer_id,
        metadata=beside(ingestion, {"bytes": _whole(ingestion, "bytes", bytes)}, metadata),
        event_id=event_id,
        event_name=event_name,
        timestamp=timestamp,
    )


@_naming_the_nearest
def track_time_range(
    ingestion: Ingestion,
    *,
    customer_id: str,
    duration_ms: float | Decimal | None = None,
    duration_seconds: float | Decimal | None = None,
    duration_minutes: float | Decimal | None = None,
    metadata: Metadata | None = None,
    event_id: str | None = None,
    event_name: str | None = None,
    timestamp: datetime | None = None,
) -> Receipt:
    """Accept a length of time, as `durationMs`, `durationSeconds` or `durationMinutes`.

    Give the one by which the meter counts; none is made from another.

    Args:
        ingestion: The client.
        customer_id: The customer who is billed.
        duration_ms: Milliseconds: a finite number, at least 0.
        duration_seconds: Seconds, likewise.
        duration_minutes: Minutes, likewise.
        metadata: Further pairs. One of these names goes before the argument.
        event_id: As for `track_api_call`, which also has the limits and exceptions.
        event_name: Likewise.
        timestamp: Likewise.

    """
    durations = {
        "durationMs": _length(ingestion, "duration_ms", duration_ms),
        "durationSeconds": _length(ingestion, "duration_seconds", duration_seconds),
        "durationMinutes": _length(ingestion, "duration_minutes", duration_minutes),
    }
    return track_api_call(
        ingestion,
        customer_id=customer_id,
        metadata=beside(ingestion, durations, metadata),
        event_id=event_id,
        event_name=event_name,
        timestamp=timestamp,
    )


def _whole(ingestion: Ingestion, name: str, value: Any) -> int | None:  # noqa: ANN401
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if number < 0 or isinstance(value, bool):
        raise refused(ingestion, name, f"{value!r} is not a whole number, at least 0")
    return number


def _length(ingestion: Ingestion, name: str, value: Any) -> float | None:  # noqa: ANN401
    if value is None:
        return None
    try:
        number = -1.0 if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = -1.0
    if not (math.isfinite(number) and number >= 0):
        raise refused(ingestion, name, f"{value!r} is not a finite number, at least 0")
    return number


def beside(
    ingestion: Ingestion,
    own: Metadata,
    metadata: Any,  # noqa: ANN401
) -> Metadata:
    """Give the caller's pairs beside a verb's own, of which they go before one of the same name."""
    if metadata is None:
        return own
    if not isinstance(metadata, Mapping):
        raise refused(ingestion, "metadata", f"a {type(metadata).__name__} is not a mapping")
    return {**own, **metadata}


def refused(ingestion: Ingestion, name: str, why: str) -> ValidationError:
    """Count and tell a call of which no event can be made."""
    error = ValidationError(f"{name}: {why}", field=name)
    refuse(ingestion, error.message)
    return error
