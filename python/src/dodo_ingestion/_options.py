"""The options of a middleware: what they are called, and what they may be.

They are checked when the middleware is made. A mistake in one is a `ConfigurationError` that names
it, so that it is found when the app starts and not when calls are missing on a bill. Those of the
client are found when that is made, which may be at the first call.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, TypeAlias, TypedDict

from dodo_ingestion import _fitting
from dodo_ingestion._native import IDENTIFIER_CHARACTERS, Ingestion
from dodo_ingestion.errors import ConfigurationError, ValidationError
from dodo_ingestion.types import Metadata, Scalar

Units: TypeAlias = "float | Decimal | Scalar"
IngestionSource: TypeAlias = "Ingestion | Callable[[], Ingestion]"
OnMissingCustomer: TypeAlias = "Literal['skip', 'raise'] | Mapping[Literal['default'], str]"


class MeteringOptions(TypedDict, total=False):
    """The options that every middleware takes. None of them has to be given."""

    customer: str | Callable[[Any], str | Awaitable[str | None] | None] | None
    """Whose call it is: a callable that is given the framework's own request, or a header's name. A
    header is safe only behind a gateway that sets it and drops what clients send under its name.
    The end of the response waits for a callable that is async, for at most 5 seconds."""
    event_name: str | None
    """The name of the events that are billed, instead of the client's."""
    error_event_name: str | None
    """The name of the events of calls that are not billed. With `None` they are not written."""
    bill_status: Callable[[int], bool] | None
    """Which statuses are billed. By default those below 500 except 401, 403 and 429. What no route
    took and ended as 404 is never billed."""
    exclude: Iterable[str]
    """Route templates, and paths of requests that no route took, of calls that make no event. A `*`
    at the end stands for any rest."""
    skip: Callable[[Any], bool] | None
    """Whether a call makes no event, asked with the request when the call has ended."""
    metadata: Metadata | Callable[[Any], Metadata | None] | None
    """Metadata of the user's own, or what makes it of the request when the call has ended."""
    units: Callable[[Any], Units | None] | None
    """How much a call counts, where calls cost unequally. `set_units` wins over it."""
    endpoint: Callable[[Any], str | None] | None
    """The route template, where the framework's cannot be known. `set_endpoint` wins over it."""
    on_missing_customer: OnMissingCustomer
    """What is done with a call that would be billed and has no customer: `"skip"` it; `"raise"`, in
    development; or bill `{"default": "cus_…"}`, who then has the errors of nobody as well."""


@dataclass(frozen=True)
class Checked:
    """The options, checked."""

    customer_header: str | None
    customer: Callable[[Any], Any] | None
    event_name: str | None
    error_event_name: str | None
    bill_status: Callable[[int], bool] | None
    excludes: bool
    excluded: frozenset[str]
    excluded_prefixes: tuple[str, ...]
    skip: Callable[[Any], bool] | None
    metadata: Callable[[Any], Any] | None
    fixed_metadata: Metadata
    units: Callable[[Any], Any] | None
    adds: bool
    """Whether any of them adds to what is said of each call."""
    endpoint: Callable[[Any], Any] | None
    raises: bool
    default_customer: str | None


def check(ingestion: object, options: Mapping[str, Any]) -> Checked:
    """Look at each option, and refuse what is no option."""
    for name in options:
        if name not in MeteringOptions.__annotations__:
            known = ", ".join(MeteringOptions.__annotations__)
            raise _wrong(name, f"no such option; there are: {known}")
    if not isinstance(ingestion, Ingestion) and not callable(ingestion):
        raise _wrong("ingestion", "neither an Ingestion nor a callable that makes one", ingestion)
    if is_async(ingestion):
        raise _wrong("ingestion", "an async callable; only `customer` may be one")
    customer = options.get("customer")
    metadata = options.get("metadata")
    exclude = list(_exclude(options.get("exclude", ())))
    units = _callable("units", options.get("units"))
    raises, default_customer = _on_missing_customer(options.get("on_missing_customer", "skip"))
    return Checked(
        customer_header=_header(customer) if isinstance(customer, str) else None,
        customer=None if isinstance(customer, str) else _callable("customer", customer),
        event_name=_name("event_name", options.get("event_name")),
        error_event_name=_name("error_event_name", options.get("error_event_name", "api_error")),
        bill_status=_callable("bill_status", options.get("bill_status")),
        excludes=bool(exclude),
        excluded=frozenset(entry for entry in exclude if not entry.endswith("*")),
        excluded_prefixes=tuple(entry[:-1] for entry in exclude if entry.endswith("*")),
        skip=_callable("skip", options.get("skip")),
        metadata=None if isinstance(metadata, Mapping) else _callable("metadata", metadata),
        fixed_metadata=_metadata(metadata) if isinstance(metadata, Mapping) else {},
        units=units,
        adds=units is not None or bool(metadata),
        endpoint=_callable("endpoint", options.get("endpoint")),
        raises=raises,
        default_customer=default_customer,
    )


def _wrong(name: str, why: str, value: object = None) -> ConfigurationError:
    shown = "" if value is None else f": {value!r}"
    return ConfigurationError(f"{name}: {why}{shown}", field=name)


def _header(name: str) -> str:
    token = name.replace("-", "").replace("_", "").replace(".", "")
    if not (token.isascii() and token.isalnum()):
        raise _wrong("customer", "neither a header's name nor a callable", name)
    return name


def _callable(name: str, value: Any) -> Callable[..., Any] | None:
    if value is not None and not callable(value):
        raise _wrong(name, "not callable", value)
    if name != "customer" and is_async(value):
        raise _wrong(name, "an async callable; only `customer` may be one")
    function: Callable[..., Any] | None = value
    return function


def is_async(function: object) -> bool:
    """Whether what it returns has to be awaited, as far as can be known without a call."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004 - it is looked into
    )


def _name(name: str, value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and _is_name(value):
        return value
    problem = f"not the name of an event, of 1 to {IDENTIFIER_CHARACTERS} characters"
    raise _wrong(name, problem, value)


def _is_name(text: str) -> bool:
    return 1 <= len(text) <= IDENTIFIER_CHARACTERS and _fitting.is_unicode(text)


def _exclude(value: object) -> Iterable[str]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise _wrong("exclude", "not a list of routes", value)
    for entry in value:
        if not isinstance(entry, str) or "*" in entry[:-1]:
            raise _wrong("exclude", "not a route; a `*` may only be its last character", entry)
        yield entry


def _metadata(value: Mapping[Any, Any]) -> Metadata:
    if len(value) > _fitting.PAIRS:
        raise _wrong("metadata", f"{len(value)} pairs; a call has room for {_fitting.PAIRS}")
    for key, each in value.items():
        problem = _fitting.misfit(key, each)
        if problem is not None:
            name = f"metadata.{key:.40}" if isinstance(key, str) else "metadata"
            raise _wrong(name, problem, each)
    return dict(value)


def _on_missing_customer(value: object) -> tuple[bool, str | None]:
    if value in ("skip", "raise"):
        return value == "raise", None
    if isinstance(value, Mapping) and list(value) == ["default"]:
        customer = value["default"]
        try:
            _fitting.check(customer, None, {})
        except ValidationError as error:
            raise _wrong("on_missing_customer", f"default: {error}") from None
        return False, customer
    raise _wrong("on_missing_customer", 'neither "skip", "raise" nor {"default": "cus_…"}', value)
