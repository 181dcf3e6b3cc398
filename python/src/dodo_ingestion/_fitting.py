"""Metadata of the user's, made to fit an event: one that is refused is not billed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from dodo_ingestion._metadata import plain
from dodo_ingestion._native import (
    IDENTIFIER_CHARACTERS,
    METADATA_KEY_CHARACTERS,
    METADATA_PAIRS,
    METADATA_VALUE_CHARACTERS,
)
from dodo_ingestion.errors import ValidationError

if TYPE_CHECKING:
    from dodo_ingestion._notice import Notice

_LARGEST: Final = 2**63
OWN_KEY: Final = "the middleware writes this key itself"
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
    }
)
PAIRS: Final = METADATA_PAIRS - len(_OWN_KEYS)
"""So many pairs of the user's an event has room for, whatever becomes of the call."""


def check(customer_id: object, metadata: object, beside: Mapping[str, object]) -> None:
    """Refuse what no call could be billed with, before there is one.

    Args:
        customer_id: The customer of every call.
        metadata: The pairs of every call.
        beside: The pairs that a call may have beside these.

    Raises:
        ValidationError: As the client would raise for each call.

    """
    if not isinstance(customer_id, str):
        raise _refused("customer_id", f"a {type(customer_id).__name__} is not a str")
    if not customer_id:
        raise _refused("customer_id", "is empty; the billing API requires it")
    if not is_unicode(customer_id):
        raise _refused("customer_id", "is no Unicode text")
    if len(customer_id) > IDENTIFIER_CHARACTERS:
        found = f"{len(customer_id)} characters"
        raise _refused("customer_id", f"{found}; at most {IDENTIFIER_CHARACTERS}")
    if metadata is None:
        return
    if not isinstance(metadata, Mapping):
        raise _refused("metadata", f"a {type(metadata).__name__} is not a mapping")
    for key, value in metadata.items():
        if not isinstance(key, str) or not is_unicode(key):
            problem = f"the key {shown(key)} is not a string of Unicode characters"
            raise _refused("metadata", problem)
        if len(key) > METADATA_KEY_CHARACTERS:
            found = f'key "{key[:20]}…": {len(key)} characters'
            raise _refused("metadata", f"{found}; at most {METADATA_KEY_CHARACTERS}")
        try:
            plain(value)
        except TypeError as error:
            problem = f"a value of type {error}; text, integers, doubles and booleans are taken"
            raise _refused(f"metadata.{key}", problem) from None
    pairs = sum(value is not None for value in {**beside, **metadata}.values())
    if pairs > METADATA_PAIRS:
        raise _refused("metadata", f"{pairs} pairs; at most {METADATA_PAIRS}")


def _refused(field: str, why: str) -> ValidationError:
    return ValidationError(f"{field}: {why}", field=field)


def add(metadata: dict[str, Any], pairs: object, written: frozenset[str], altered: Notice) -> None:
    """Add the user's pairs to `metadata`, in which the middleware has `written` some itself.

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
    for key, given in items:
        value = _plain(given)
        if value is None:
            # Said of a pair that was there before, it takes that away.
            if key not in written:
                metadata.pop(key, None)
            continue
        problem = _misfit(key, value)
        if problem is None and key in written:
            problem = OWN_KEY
        if problem is None and key not in metadata and len(metadata) - len(written) >= PAIRS:
            problem = f"a call has room for {PAIRS} pairs of yours"
        if problem is not None:
            altered.occur(f"{shown(key)}: left out, {problem}")
        elif isinstance(value, str) and len(value) > METADATA_VALUE_CHARACTERS:
            altered.occur(f"{key!r}: cut to {METADATA_VALUE_CHARACTERS} characters")
            metadata[key] = value[:METADATA_VALUE_CHARACTERS]
        else:
            metadata[key] = value


def misfit(key: object, value: object) -> str | None:
    """Say why a pair of the user's cannot be one of a call's metadata, if it cannot."""
    return None if value is None else _misfit(key, _plain(value))


def number(value: object) -> float | None:
    """Give the number that the billing API takes `value` as, if it is one."""
    try:
        found = plain(value)
    except Exception:
        return None
    return found if isinstance(found, (int, float)) and _is_number(found) else None


def shown(value: object) -> str:
    """Show any value, also one that cannot show itself."""
    try:
        return repr(value)
    except Exception:
        return f"a {type(value).__name__}"


def _is_number(value: float) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return -_LARGEST <= value < _LARGEST
    return math.isfinite(value)


def _misfit(key: object, value: object) -> str | None:
    if not isinstance(key, str) or not is_unicode(key):
        return "a key is text"
    if key in _OWN_KEYS:
        return OWN_KEY
    if not key or len(key) > METADATA_KEY_CHARACTERS:
        return f"a key has 1 to {METADATA_KEY_CHARACTERS} characters"
    if isinstance(value, (int, float)) and not isinstance(value, bool) and not _is_number(value):
        return "a number is finite and has 64 bits"
    if isinstance(value, str) and not is_unicode(value):
        return "no Unicode text"
    if not isinstance(value, (str, int, float)):
        return f"a {type(value).__name__} is no value of metadata"
    return None


def _plain(value: object) -> object:
    """Convert a value to what is billed; one that cannot be stays as it is."""
    try:
        return plain(value)
    except Exception:
        return value


def is_unicode(text: str) -> bool:
    """Whether a text can be written down: one with a lone surrogate cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
