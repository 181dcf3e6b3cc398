"""Look-ups of a customer that several requests share: what cancels one is not the others' end."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest
from serving import billed

from conftest import Connect, Meter
from dodo_ingestion import _await, _metering
from dodo_ingestion.asgi import MeterMiddleware

Within = Callable[[float, Awaitable[Any]], Awaitable[Any]]

WITHIN: list[Within] = [_await.within_a_task]
if sys.version_info >= (3, 11):
    WITHIN.append(_await.within)


@pytest.fixture(params=WITHIN, ids=lambda each: each.__name__, autouse=True)
def within(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Within:
    """Wait as this Python does and as the oldest, and longer than any test needs."""
    waiting: Within = request.param
    monkeypatch.setattr(_metering, "within", waiting)
    monkeypatch.setattr(_metering, "PATIENCE", 120.0)
    return waiting


@pytest.fixture
def customer_id(request: pytest.FixtureRequest, within: Within) -> str:
    """Give a customer of the test's own."""
    return f"cus_{request.node.originalname}_{within.__name__}"


class Shared:
    """One look-up at a time, of which the first takes long."""

    def __init__(self, customer: str) -> None:
        self.customer = customer
        self.asked = 0
        self.under_way: asyncio.Future[str] | None = None

    async def look_up(self) -> str:
        self.asked += 1
        await asyncio.sleep(600 if self.asked == 1 else 0.01)
        return self.customer

    async def __call__(self, _scope: object) -> str:
        if self.under_way is None or self.under_way.done():
            self.under_way = asyncio.ensure_future(self.look_up())
        return await self.under_way


class Request:
    """A request, and what was sent in answer."""

    def __init__(self, metered: Any) -> None:  # noqa: ANN401
        self.sent: list[bytes] = []
        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        self.task = asyncio.create_task(metered(scope, None, self.send))

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message.get("body", b""))


async def answered(_scope: object, _receive: object, send: Any) -> None:  # noqa: ANN401
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"all"})


def test_a_shared_look_up_whose_time_is_over(
    customer_id: str,
    within: Within,
    connect: Connect,
    meter: Meter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of_the_first = iter([0.5])

    def impatient_first(limit: float, awaitable: Awaitable[Any]) -> Awaitable[Any]:
        return within(next(of_the_first, limit), awaitable)

    monkeypatch.setattr(_metering, "within", impatient_first)
    ingestion = connect(account="shared-slow")
    shared = Shared(customer_id)
    metered = MeterMiddleware(answered, ingestion=ingestion, customer=shared)

    async def main() -> list[Request]:
        requests = [Request(metered) for _ in range(3)]
        await asyncio.gather(*(each.task for each in requests))
        return requests

    assert [each.sent for each in asyncio.run(main())] == [[b"", b"all"]] * 3
    # The first waited as long as it may. The others asked again.
    assert len(billed(meter, ingestion, customer_id)) == 2
    assert shared.asked == 2


def test_a_shared_look_up_of_a_client_that_leaves(
    customer_id: str, connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="shared-left")
    shared = Shared(customer_id)
    metered = MeterMiddleware(answered, ingestion=ingestion, customer=shared)

    async def main() -> Request:
        first, second = Request(metered), Request(metered)
        await asyncio.sleep(0.1)
        first.task.cancel()
        await second.task
        with pytest.raises(asyncio.CancelledError):
            await first.task
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
        return second

    assert asyncio.run(main()).sent == [b"", b"all"]
    events = billed(meter, ingestion, customer_id)
    assert sorted(each["metadata"].get("aborted", False) for each in events) == [False, True]


def cancelled(_scope: object) -> str:
    raise asyncio.CancelledError


async def cancelled_later(_scope: object) -> str:
    await asyncio.sleep(0)
    raise asyncio.CancelledError


@pytest.mark.parametrize("customer", [cancelled, cancelled_later])
def test_a_look_up_that_is_cancelled_each_time(
    customer: Callable[[object], Any], connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    metered = MeterMiddleware(answered, ingestion=connect(), customer=customer)

    async def main() -> list[bytes]:
        request = Request(metered)
        await request.task
        return request.sent

    assert asyncio.run(main()) == [b"", b"all"]
    assert "customer raised" in caplog.text


def test_a_look_up_sees_the_context_of_its_request(
    customer_id: str, connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="context")
    tenant = ContextVar("tenant", default="nobody")

    async def app(*arguments: Any) -> None:  # noqa: ANN401
        tenant.set(customer_id)
        await answered(*arguments)

    async def customer(_scope: object) -> str:
        await asyncio.sleep(0.01)
        return tenant.get()

    metered = MeterMiddleware(app, ingestion=ingestion, customer=customer)

    async def main() -> None:
        await Request(metered).task

    asyncio.run(main())
    assert len(billed(meter, ingestion, customer_id)) == 1
