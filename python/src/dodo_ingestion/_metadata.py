"""Metadata values that JSON does not have, as the nearest that it has."""

import sys
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

_DIGITS_END = 2**53
"""Beyond it a double has not every whole number."""
_LARGEST = 2**63


def plain(value: object) -> object:
    """Convert `value` to what stands for it in JSON, `None` if that is nothing.

    Raises:
        TypeError: nothing in JSON stands for it without loss. Its text is what the value is.

    """
    if isinstance(value, Enum):
        value = value.value
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        return _scalar(numpy, value)
    if isinstance(value, Decimal):
        return _number(value)
    if isinstance(value, date):  # a datetime is one, and so is pandas' NaT, which equals nothing
        return None if value != value else value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(type(value).__name__)


def _scalar(numpy: Any, value: Any) -> object:  # noqa: ANN401
    if isinstance(value, numpy.datetime64):
        return None if numpy.isnat(value) else str(value)
    item = value.item()
    if isinstance(value, numpy.floating) and isinstance(item, float):
        # A fraction is the number that it is written as: a double has more digits than a narrower
        # type means. A large whole number is written with fewer than it has.
        return item if item.is_integer() else float(str(value))
    if isinstance(item, str | int | float) and not isinstance(value, numpy.timedelta64):
        return item
    raise TypeError(type(value).__name__)


def _number(value: Decimal) -> float:
    """Give the number that is written with the digits of `value`."""
    if not value.is_finite():
        raise TypeError("Decimal that is not finite")
    if _DIGITS_END < value.copy_abs() < _LARGEST and value == value.to_integral_value():
        return int(value)
    number = float(value)
    if Decimal(repr(number)) != value:
        raise TypeError("Decimal of more digits than a double has")
    return number
