"""The exceptions: one class for each kind of error, all of them an `IngestionError`."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar

__all__ = [
    "AuthenticationError",
    "ClosedError",
    "ConfigurationError",
    "IngestionError",
    "IngestionOverflowError",
    "IngestionTimeoutError",
    "NetworkError",
    "RejectedError",
    "StorageError",
    "TooLargeError",
    "ValidationError",
]


class IngestionError(Exception):
    """What went wrong, by kind."""

    kind: ClassVar[str] = ""
    """The kind, the same in every language."""

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        status: int | None = None,
        may_be_billed: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        """The error in words."""
        self.field = field
        """The option or the part of the event that is to blame, such as `metadata.endpoint`."""
        self.status = status
        """The billing API's HTTP status, if it answered."""
        self.may_be_billed = may_be_billed
        """Whether the call may be billed in spite of the error."""


class ConfigurationError(IngestionError, ValueError):
    """An option is unknown, missing or out of range, or contradicts another."""

    kind = "configuration"


class ValidationError(IngestionError, ValueError):
    """The event breaks a limit of the billing API and was not accepted."""

    kind = "validation"


class AuthenticationError(IngestionError):
    """The billing API does not take the key."""

    kind = "authentication"


class RejectedError(IngestionError):
    """The billing API refused the call."""

    kind = "rejected"


class TooLargeError(IngestionError):
    """The call alone is larger than the billing API takes."""

    kind = "too_large"


class IngestionOverflowError(IngestionError):
    """The spool is full, and the call was not accepted."""

    kind = "overflow"


class StorageError(IngestionError, OSError):
    """The spool could not be written."""

    kind = "storage"


class IngestionTimeoutError(IngestionError, TimeoutError):
    """The time given was not enough. What was accepted stays spooled."""

    kind = "timeout"


class NetworkError(IngestionError, ConnectionError):
    """The billing API could not be reached."""

    kind = "network"


class ClosedError(IngestionError):
    """The client has been closed."""

    kind = "closed"


BY_KIND: dict[str, type[IngestionError]] = {
    cls.kind: cls for cls in IngestionError.__subclasses__()
}


def unknown_argument(function: str, given: Iterable[str], known: list[str]) -> TypeError:
    """Make the exception for a keyword argument that `function` does not have."""
    name = next(iter(given))
    nearest = get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"it takes {', '.join(known)}"
    return TypeError(f"{function}() got an unexpected keyword argument {name!r}; {hint}")
