"""What handlers and auth code say of the call that they serve, in every framework.

`MeteringOptions` are the options that every middleware takes.

Each verb takes the request as its first argument: a Starlette, FastAPI, Litestar, Quart, Flask,
Django, aiohttp, Falcon, Pyramid or Bottle request, an ASGI scope or a WSGI environ. Without one it
speaks of the call that this task or thread is serving.

What is said counts until the response has ended; the last word wins. Where no middleware meters the
call, as in a test that calls the handler, nothing happens. None of the verbs raises because of a
value: what is no customer or no number is logged and left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, overload

from dodo_ingestion._exchange import Exchange, current, exchange_of
from dodo_ingestion._fitting import number
from dodo_ingestion._options import MeteringOptions

if TYPE_CHECKING:
    from dodo_ingestion._options import Units
    from dodo_ingestion.types import Metadata

__all__ = [
    "MeteringOptions",
    "set_customer",
    "set_endpoint",
    "set_metadata",
    "set_units",
    "skip_metering",
]


@overload
def set_customer(customer_id: str, /) -> None: ...
@overload
def set_customer(request: object, customer_id: str, /) -> None: ...
def set_customer(*arguments: Any) -> None:
    """Say whose call it is. It wins over the middleware's `customer=`."""
    exchange, customer = _parse("set_customer", arguments)
    if exchange is None:
        return
    if isinstance(customer, str):
        exchange.customer = customer
    else:
        exchange.metering.failed.occur(f"set_customer: {customer!r} is no customer's id")


@overload
def set_units(units: Units, /) -> None: ...
@overload
def set_units(request: object, units: Units, /) -> None: ...
def set_units(*arguments: Any) -> None:
    """Say how much this call counts: `units` in its metadata, which a meter can sum."""
    exchange, units = _parse("set_units", arguments)
    if exchange is None:
        return
    found = number(units)
    if found is not None:
        exchange.units = found
    else:
        exchange.metering.failed.occur(f"set_units: {units!r} is no number")


@overload
def set_metadata(metadata: Metadata, /) -> None: ...
@overload
def set_metadata(request: object, metadata: Metadata, /) -> None: ...
def set_metadata(*arguments: Any) -> None:
    """Add metadata of your own to the call's event."""
    exchange, metadata = _parse("set_metadata", arguments)
    if exchange is None:
        return
    if isinstance(metadata, Mapping):
        with exchange.metering.guarded("set_metadata"):
            exchange.metadata = {**(exchange.metadata or {}), **metadata}
    else:
        exchange.metering.failed.occur(f"set_metadata: {metadata!r} is not a mapping")


@overload
def set_endpoint(template: str, /) -> None: ...
@overload
def set_endpoint(request: object, template: str, /) -> None: ...
def set_endpoint(*arguments: Any) -> None:
    """Give the route's template where the middleware cannot know it."""
    exchange, template = _parse("set_endpoint", arguments)
    if exchange is None:
        return
    if isinstance(template, str):
        exchange.endpoint = template
    else:
        exchange.metering.failed.occur(f"set_endpoint: {template!r} is no template")


def skip_metering(request: object = None, /) -> None:
    """Leave the call out: it makes no event at all."""
    exchange = current.get() if request is None else exchange_of(request)
    if exchange is not None:
        exchange.skipped = True


def _parse(verb: str, arguments: tuple[Any, ...]) -> tuple[Exchange | None, Any]:
    if len(arguments) == 1:
        return current.get(), arguments[0]
    if len(arguments) == 2:
        return exchange_of(arguments[0]), arguments[1]
    raise TypeError(f"{verb}() takes a value, or a request and a value")
