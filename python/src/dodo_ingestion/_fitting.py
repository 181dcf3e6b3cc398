"""Metadata of the user's, made to fit an event: one that is refused is not billed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from dodo_ingestion._metadata import plain
from dodo_ingestion._native import (
    METADATA_KEY_CHARACTERS,
    METADATA_PAIRS,
    METADATA_VALUE_CHARACTERS,
)

if TYPE_CHECKING:
    from dodo_ingestion._notice import Notice

_LARGEST: Final = 2**63
_OWN_KEYS: Final = frozenset(
    {
        "endpoint",
        "method",
        "status_code",
        "response_time_ms",
        "ttfb_ms",
        "response_bytes",
        "aborted",
        "units",
        "grpc_status",
        "messages_received",
        "messages_sent",
    }
)


def add(metadata: dict[str, Any], pairs: object, room: int, altered: Notice) -> None:
    """Add the user's pairs to `metadata`, which has room for so many in all.

    What could not stay as it was is told to `altered`.
    """
    if pairs is None:
        return
    if not isinstance(pairs, Mapping):
        altered.occur(f"left out, a {type(pairs).__name__} is not a mapping")
        return
    try:
        items = list(pairs.items())
    except Exception as error:
        altered.occur(f"left out, a {type(pairs).__name__} cannot be read", error)
        return
    for key, value in items:
        if value is None:
            continue
        problem = _misfit(key, value)
        if problem is None and key not in metadata and len(metadata) >= room:
            problem = f"left out, an event has at most {METADATA_PAIRS} pairs"
        if problem is not None:
            altered.occur(f"{key!r}: {problem}")
        elif isinstance(value, str) and len(value) > METADATA_VALUE_CHARACTERS:
            altered.occur(f"{key!r}: cut to {METADATA_VALUE_CHARACTERS} characters")
            metadata[key] = value[:METADATA_VALUE_CHARACTERS]
        else:
            metadata[key] = value


def number(value: object) -> float | None:
    """Give the number that the billing API takes `value` as, if it is one."""
    try:
        found = plain(value)
    except Exception:
        return None
    return found if isinstance(found, (int, float)) and _is_number(found) else None


def _is_number(value: float) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return -_LARGEST <= value < _LARGEST
    return math.isfinite(value)


def _misfit(key: object, value: object) -> str | None:
    if not isinstance(key, str) or not _is_unicode(key):
        return "left out, a key is text"
    if key in _OWN_KEYS:
        return "left out, the middleware writes this key itself"
    if not key or len(key) > METADATA_KEY_CHARACTERS:
        return f"left out, a key has 1 to {METADATA_KEY_CHARACTERS} characters"
    if isinstance(value, (int, float)) and not isinstance(value, bool) and not _is_number(value):
        return "left out, a number is finite and has 64 bits"
    if isinstance(value, str) and not _is_unicode(value):
        return "left out, no Unicode text"
    # Which other types there are is the client's to know.
    return None


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
