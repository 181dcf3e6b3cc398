"""What handlers and auth code say of the call that they serve, in every framework.

`MeteringOptions` are the options that every middleware takes.

Each verb takes the request as its first argument: a Starlette, FastAPI, Litestar, Quart, Flask,
Django, aiohttp, Falcon, Pyramid or Bottle request, an ASGI scope or a WSGI environ. Without one it
speaks of the call that this task or thread is serving.

What is said counts until the response has ended; the last word wins. A middleware that runs outside
of the meter passes the request: the word waits in it for the meter. Where no middleware meters the
call, as in a test that calls the handler, nothing happens. None of the verbs raises because of a
value: what is no customer or no number is logged and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, overload

from dodo_ingestion._exchange import Exchange, current, exchange_of, keep
from dodo_ingestion._fitting import number, shown
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

    def note(exchange: Exchange, customer: Any) -> None:
        if isinstance(customer, str):
            # An empty one is none: what else names the customer is asked.
            exchange.customer = customer.strip() or None
        else:
            exchange.metering.failed.occur(f"set_customer: {shown(customer)} is no customer's id")

    _say("set_customer", arguments, note)


@overload
def set_units(units: Units, /) -> None: ...
@overload
def set_units(request: object, units: Units, /) -> None: ...
def set_units(*arguments: Any) -> None:
    """Say how much this call counts: `units` in its metadata, which a meter can sum."""

    def note(exchange: Exchange, units: Any) -> None:
        found = number(units)
        if found is not None:
            exchange.units = found
        else:
            exchange.metering.failed.occur(
                f"set_units: {shown(units)} is no finite number of 64 bits"
            )

    _say("set_units", arguments, note)


@overload
def set_metadata(metadata: Metadata, /) -> None: ...
@overload
def set_metadata(request: object, metadata: Metadata, /) -> None: ...
def set_metadata(*arguments: Any) -> None:
    """Add metadata of your own to the call's event."""

    def note(exchange: Exchange, metadata: Any) -> None:
        if isinstance(metadata, Mapping):
            with exchange.metering.guarded("set_metadata"):
                exchange.metadata = {**(exchange.metadata or {}), **metadata}
        else:
            exchange.metering.failed.occur(f"set_metadata: {shown(metadata)} is not a mapping")

    _say("set_metadata", arguments, note)


@overload
def set_endpoint(template: str, /) -> None: ...
@overload
def set_endpoint(request: object, template: str, /) -> None: ...
def set_endpoint(*arguments: Any) -> None:
    """Give the route's template where the middleware cannot know it."""

    def note(exchange: Exchange, template: Any) -> None:
        if isinstance(template, str):
            exchange.endpoint = template or None
        else:
            exchange.metering.failed.occur(f"set_endpoint: {shown(template)} is no template")

    _say("set_endpoint", arguments, note)


def skip_metering(request: object = None, /) -> None:
    """Leave the call out: it makes no event at all."""

    def note(exchange: Exchange, skipped: Any) -> None:
        exchange.skipped = skipped

    _say("skip_metering", (True,) if request is None else (request, True), note)


def _say(verb: str, arguments: tuple[Any, ...], note: Callable[[Exchange, Any], None]) -> None:
    """Have the call note it: that of the request, or the one that is served here."""
    if len(arguments) not in (1, 2):
        raise TypeError(f"{verb}() takes a value, or a request and a value")
    *requests, value = arguments
    exchange = exchange_of(requests[0]) if requests else current.get()
    if exchange is not None and not (exchange.finished and requests):
        note(exchange, value)
    elif requests:
        keep(requests[0], lambda later: note(later, value))
