"""What the package's functions take, for annotations of your own."""

from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Protocol, TypeAlias
from uuid import UUID

__all__ = ["Duration", "Metadata", "MetadataValue", "Scalar"]


class Scalar(Protocol):
    """A scalar of numpy's: text, a whole number, a number, true or false, or a date."""

    @property
    def dtype(self) -> Any:  # noqa: ANN401
        """What kind of scalar it is."""

    def item(self) -> Any:  # noqa: ANN401
        """Give the value as one of Python's own."""


MetadataValue: TypeAlias = str | int | float | Decimal | UUID | date | Enum | Scalar | None
"""A metadata value; a bool is an int, a datetime is a date. `None` leaves the pair out."""

Metadata: TypeAlias = Mapping[str, MetadataValue]
"""The metadata of a call: at most 50 pairs."""

Duration: TypeAlias = float | timedelta
"""Seconds, or a timedelta."""
