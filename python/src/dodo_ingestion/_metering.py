"""What a finished call comes to: an event that is billed, one that is not, or none.

This module is all that the middlewares share. It knows the options and the metadata, and makes
the event. It knows no framework: how a request's header is read, which route took it and when its
response ended is an adapter's business, which fills an `Exchange` and calls its `finish`.

No exception leaves this module but `MissingCustomer`, and that only if it was asked for: whatever
fails is logged, and the response is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from dodo_ingestion import _fitting, _options
from dodo_ingestion._await import CancelledByOthersError, running_trio, until, within
from dodo_ingestion._client import Client
from dodo_ingestion._native import accept_api_call
from dodo_ingestion._notice import Notice
from dodo_ingestion._routes import climbs
from dodo_ingestion.errors import ClosedError, ConfigurationError, ValidationError

if TYPE_CHECKING:
    from dodo_ingestion._exchange import Exchange
    from dodo_ingestion._options import IngestionSource

PATIENCE: Final = 5.0
"""How long it is waited for a customer that is looked up."""


class MissingCustomer(ValidationError):  # noqa: N818
    """Nothing names the customer of a call to be billed, with `on_missing_customer="raise"`."""


class Metering:
    """The options of a middleware, and what it does with them."""

    def __init__(
        self,
        ingestion: IngestionSource,
        options: Mapping[str, Any],
        *,
        header: Callable[[str], Callable[[Any], str | None]],
        asynchronous: bool = False,
    ) -> None:
        self.options = _options.check(ingestion, options)
        customer = self.options.customer
        if not asynchronous and _options.is_async(customer):
            raise ConfigurationError(
                "customer: an async callable, and this middleware is not", field="customer"
            )
        self.may_await = customer is not None
        """Whether the customer may have to be awaited."""
        name = self.options.customer_header
        self._header = header(name) if name is not None else None
        self.client = Client(ingestion)
        self.unfinished: set[Exchange] = set()
        """The calls that the end of a server has to wait for."""
        self.failed = Notice("the metering failed, and the call is served")
        self._missing = Notice("not metered: nothing names the customer")
        self._refused = Notice("a call was not accepted and will not be billed")
        self._altered = Notice("metadata was changed")

    # Who is billed

    def customer_of(self, exchange: Exchange) -> str | None:
        """Find out whose call it is."""
        found = exchange.customer
        if found is None:
            if self._header is not None:
                return self._header(exchange.request)
            if self.options.customer is not None:
                found = self._ask("customer", self.options.customer, exchange.request)
                if inspect.isawaitable(found):
                    _discard(found)
                    self.failed.occur("customer: awaitable where nothing can be awaited")
                    return None
        return self._named(found)

    async def find_customer(self, exchange: Exchange) -> None:
        """Ask for the customer where that may take an `await`, if the call needs one.

        Cancelled meanwhile, it finishes the call as one that was cut short.
        """
        try:
            await self._find(exchange)
        except BaseException:
            exchange.cancel()
            await self.finish_cancelled(exchange)
            raise

    async def _find(self, exchange: Exchange) -> None:
        with self.guarded("customer"):
            looked_up = self.ask_customer(exchange)
            if looked_up is not None:
                await self.await_customer(exchange, looked_up)

    def ask_customer(self, exchange: Exchange) -> Awaitable[Any] | None:
        """Ask for the customer, if the call needs one. Returns what has to be awaited for it."""
        customer = self.options.customer
        if customer is None or exchange.customer is not None or exchange.finished:
            return None
        if exchange.skipped or not self._is_written(exchange):
            return None
        found = self._ask("customer", customer, exchange.request)
        if inspect.isawaitable(found):
            return found
        # Empty and not `None`: it was asked for.
        exchange.customer = self._named(found) or ""
        return None

    async def await_customer(self, exchange: Exchange, looked_up: Awaitable[Any]) -> None:
        """Wait for the customer: the end of the response waits for it too, and not for ever."""
        found = None
        end = perf_counter() + PATIENCE
        try:
            try:
                found = await within(PATIENCE, looked_up)
            except CancelledByOthersError:
                # With a request that shared the look-up, which is no reason to bill nobody.
                again = self.ask_customer(exchange)
                found = exchange.customer
                if again is not None:
                    found = await within(end - perf_counter(), again)
        except Exception as error:
            self.failed.occur("customer raised", error)
        exchange.customer = self._named(found) or ""

    async def finish_cancelled(self, exchange: Exchange) -> None:
        """Finish the call of a task that is being cancelled, in which nothing is awaited."""
        trio = running_trio()
        if trio is None or self.options.customer is None:
            self.finish_later(exchange)
            return
        try:
            with trio.CancelScope(shield=True):
                await self._find(exchange)
        finally:
            exchange.finish()

    def finish_later(self, exchange: Exchange) -> None:
        """Finish in a task of its own, under asyncio."""
        if self.options.customer is None:
            exchange.finish()
        elif not exchange.finished and not exchange.finishing:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:  # the loop is gone, and its tasks are thrown away
                exchange.finish()
                return
            self.unfinished.add(exchange)
            exchange.finishing = loop.create_task(self._find(exchange))
            # Whatever becomes of the task: it may be cancelled before it has begun.
            exchange.finishing.add_done_callback(lambda _task: exchange.finish())

    async def end(self) -> float:
        """Wait for the calls that the end of a server has cancelled.

        Returns how much is left of the time that the end of the program may take: half at least.
        """
        began = perf_counter()
        limit = self.client.exit_timeout(PATIENCE)
        with self.guarded("the end of the server"):
            await until(lambda: not self.unfinished, limit / 2)
        return max(0.0, limit - (perf_counter() - began))

    async def flush_at_shutdown(self) -> None:
        """Bill what waits, for as long as the end of the program may take."""
        await self.client.flush(await self.end())

    def require_customer(self, exchange: Exchange) -> None:
        """Raise where it was asked for and the call would be billed to nobody."""
        if exchange.finished or self.name_of(exchange, self.endpoint_of(exchange))[1] is not True:
            return
        exchange.customer = self.customer_of(exchange) or ""
        if not exchange.customer:
            exchange.skipped = True
            where = f"{exchange.method} {self.endpoint_of(exchange) or exchange.path}"
            message = f"customer_id: nothing names the customer of {where}"
            raise MissingCustomer(message, field="customer_id")

    def _named(self, found: object) -> str | None:
        if isinstance(found, str):
            return found.strip() or None
        if found is not None:
            self.failed.occur(f"customer: a {type(found).__name__} is no customer's id")
        return None

    # What for

    def endpoint_of(self, exchange: Exchange) -> str | None:
        """Return the route template, if a route took the call."""
        if exchange.endpoint is None and self.options.endpoint is not None:
            endpoint = self._ask("endpoint", self.options.endpoint, exchange.request)
            exchange.endpoint = endpoint if isinstance(endpoint, str) else ""
        return exchange.endpoint or exchange.route

    def name_of(self, exchange: Exchange, endpoint: str | None) -> tuple[str | None, bool | None]:
        """Return the event's name, `None` for the client's; and whether it is billed.

        `None` instead of whether it is billed: there is no event.
        """
        options = self.options
        if exchange.skipped or exchange.method == "OPTIONS":
            return None, None
        if options.excludes:
            if endpoint is not None and self._excludes(endpoint):
                return None, None
            # Also where it stands behind a mount that nobody knows of.
            if (endpoint is None or "/*" in endpoint) and self._excludes(exchange.path):
                return None, None
        if options.skip is not None and self._skips(exchange, options.skip):
            return None, None
        status = exchange.status
        unrouted = status == 404 and (
            # Who names an endpoint has found the route.
            not exchange.endpoint
            and (exchange.route is None or exchange.takes_the_rest(exchange.route))
        )
        if status is not None and not unrouted:
            billed = status < 500 and status not in (401, 403, 429)
            if options.bill_status is not None:
                billed = self._chosen(exchange, options.bill_status, status, billed)
            if billed:
                return options.event_name, True
        name = options.error_event_name
        return name, None if name is None else False

    def _excludes(self, what: str) -> bool:
        options = self.options
        if what in options.excluded:
            return True
        return what.startswith(options.excluded_prefixes) and not climbs(what)

    def _is_written(self, exchange: Exchange) -> bool:
        return self.name_of(exchange, self.endpoint_of(exchange))[1] is not None

    def _skips(self, exchange: Exchange, skip: Callable[[Any], Any]) -> bool:
        if exchange.skip is None:
            exchange.skip = bool(self._ask("skip", skip, exchange.request, _decision))
        return exchange.skip

    def _chosen(
        self, exchange: Exchange, bill_status: Callable[[int], Any], status: int, default: bool
    ) -> bool:
        if exchange.bills is None or exchange.bills[0] != status:
            exchange.bills = (status, self._ask("bill_status", bill_status, status, _decision))
        chosen = exchange.bills[1]
        return default if chosen is None else chosen

    # The event

    def write(self, exchange: Exchange, now: float) -> None:
        """Make the event of a call that has ended."""
        endpoint = self.endpoint_of(exchange)
        name, billed = self.name_of(exchange, endpoint)
        if billed is None:
            return
        customer = self.customer_of(exchange) or self.options.default_customer
        if customer is None:
            # That a call which is not let in has no customer is as it should be.
            if billed:
                self._missing.occur(f"{exchange.method} {endpoint or ''}")
            return
        began, head, first_byte = exchange.began, exchange.head, exchange.first_byte
        fields = (
            endpoint,
            exchange.method,
            exchange.status,
            now - began,
            None if head is None else (head if first_byte is None else first_byte) - began,
            None if head is None else exchange.bytes,
            exchange.aborted or None,
        )
        try:
            metadata = exchange.extra
            if self.options.adds or exchange.units is not None or exchange.metadata:
                metadata = self._metadata(exchange)
            ingestion = self.client.made or self.client.make()
            try:
                left_out = accept_api_call(ingestion, customer, name, fields, metadata)
            except ClosedError:
                another = self.client.instead_of(ingestion)
                if another is ingestion:
                    raise
                left_out = accept_api_call(another, customer, name, fields, metadata)
        except Exception as error:
            self._refused.occur(error)
        else:
            if left_out is not None:
                self._altered.occur(f"{left_out!r}: left out, no Unicode text")

    def _metadata(self, exchange: Exchange) -> dict[str, Any]:
        """Return what there is beside the fields of each call, once something is added."""
        options = self.options
        metadata: dict[str, Any] = {**exchange.extra} if exchange.extra else {}
        units = exchange.units
        if units is None and options.units is not None:
            units = self._units(self._ask("units", options.units, exchange.request))
        if units is not None:
            metadata["units"] = units
        written = frozenset(metadata)
        _fitting.add(metadata, options.fixed_metadata, written, self._altered)
        if options.metadata is not None:
            asked = self._ask("metadata", options.metadata, exchange.request)
            _fitting.add(metadata, asked, written, self._altered)
        _fitting.add(metadata, exchange.metadata, written, self._altered)
        return metadata

    def _units(self, units: object) -> float | None:
        found = _fitting.number(units)
        if found is None and units is not None:
            self._altered.occur(
                f"'units': left out, {_fitting.shown(units)} is no finite number of 64 bits"
            )
        return found

    # The rest

    @contextlib.contextmanager
    def guarded(self, what: str, exchange: Exchange | None = None) -> Iterator[None]:
        """Run what may fail: the response is served all the same, and makes its event."""
        try:
            yield
        except MissingCustomer:
            raise
        except Exception as error:
            self.failed.occur(what, error)
            if exchange is not None:
                exchange.finish()

    def _ask(
        self,
        what: str,
        function: Callable[[Any], Any],
        argument: object,
        read: Callable[[Any], Any] | None = None,
    ) -> Any:
        try:
            found = function(argument)
            if what != "customer" and inspect.isawaitable(found):
                _discard(found)
                self.failed.occur(f"{what}: awaitable, which only `customer` may be")
                return None
            return found if read is None else read(found)
        except (Exception, asyncio.CancelledError) as error:
            # Where nothing is awaited, it is something else that was cancelled.
            self.failed.occur(f"{what} raised", error)
            return None


def _decision(answer: object) -> bool | None:
    return None if answer is None else bool(answer)


def _discard(awaitable: object) -> None:
    """Drop what is not awaited, without a warning."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()
