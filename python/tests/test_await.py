"""Receipts and blocks under the event loops there are."""

import asyncio
import copy
import logging
import pickle
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
import trio

from conftest import Connect, Meter, serving
from dodo_ingestion import (
    ClosedError,
    IngestionTimeoutError,
    RejectedError,
    create_batch,
    track_api_call,
)

Run = Callable[[Callable[[], Awaitable[Any]]], Any]


def run_asyncio(main: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401
    async def awaited() -> Any:  # noqa: ANN401
        return await main()

    return asyncio.run(awaited())


@pytest.fixture(params=["asyncio", "trio", "anyio on asyncio", "anyio on trio"])
def run(request: pytest.FixtureRequest) -> Run:
    runs: dict[str, Run] = {
        "asyncio": run_asyncio,
        "trio": trio.run,
        "anyio on asyncio": lambda main: anyio.run(main, backend="asyncio"),
        "anyio on trio": lambda main: anyio.run(main, backend="trio"),
    }
    return runs[request.param]


def test_delivered_is_awaited(run: Run, connect: Connect, meter: Meter) -> None:
    ingestion = connect(linger=0.1)

    async def main() -> str:
        # `await receipt` is the receipt: there is nothing to wait for.
        receipt = await track_api_call(ingestion, customer_id="cus_loops")
        await receipt.delivered(timeout=60)
        return receipt.event_id

    assert meter.event(run(main))["customer_id"] == "cus_loops"


def test_awaiting_a_receipt_needs_no_loop(connect: Connect) -> None:
    receipt = track_api_call(connect(), customer_id="cus_1")

    async def main() -> object:
        return await receipt

    with pytest.raises(StopIteration) as ended:
        main().send(None)
    assert ended.value.value is receipt


def test_blocks_bill_what_they_hold(run: Run, connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="blocks", linger=300)

    async def main() -> str:
        async with ingestion, create_batch(ingestion) as batch:
            batch.add(customer_id="cus_blocks", event_id=None)
            await batch.aflush(timeout=60)
            await ingestion.aflush(timeout=60)
            receipt = track_api_call(ingestion, customer_id="cus_blocks")
            await batch.acleanup(timeout=60)
        return receipt.event_id

    assert meter.event(run(main))
    with pytest.raises(ClosedError):
        track_api_call(ingestion, customer_id="cus_blocks")


def test_a_wait_times_out_and_can_be_cancelled(run: Run, connect: Connect, silent: str) -> None:
    ingestion = connect(base_url=silent, account="cancelled", linger=300)

    async def main() -> None:
        receipt = track_api_call(ingestion, customer_id="cus_1")
        with pytest.raises(IngestionTimeoutError):
            await receipt.delivered(timeout=0.1)
        await cancelled(receipt.delivered)
        await cancelled(ingestion.aflush)
        with pytest.raises(IngestionTimeoutError):
            await ingestion.aclose(timeout=0.1)

    async def cancelled(wait: Callable[[], Awaitable[None]]) -> None:
        # anyio works in each of the loops.
        with anyio.move_on_after(0.1) as scope:
            await wait()
        assert scope.cancelled_caught

    run(main)


def test_why_a_call_was_refused_is_awaited(run: Run, connect: Connect) -> None:
    with serving("--customers", "cus_known,cus_other") as meter:
        ingestion = connect(base_url=meter.url, account="refused", linger=0)

        async def main() -> None:
            known = track_api_call(ingestion, customer_id="cus_known")
            unknown = track_api_call(ingestion, customer_id="cus_unknown")
            await known.delivered(timeout=60)
            with pytest.raises(RejectedError) as raised:
                await unknown.delivered(timeout=60)
            assert raised.value.status == 400

        run(main)
        assert len(meter.events("cus_known")) == 1


def test_a_failed_block_keeps_its_exception(
    connect: Connect, silent: str, caplog: pytest.LogCaptureFixture
) -> None:
    ingestion = connect(base_url=silent, account="failed", linger=0, exit_timeout=0.1)

    def with_block() -> None:
        with create_batch(ingestion) as batch:
            batch.add(customer_id="cus_1")
            raise KeyError("mine")

    async def async_block() -> None:
        async with ingestion:
            raise KeyError("mine")

    with caplog.at_level(logging.WARNING, "dodo_ingestion"):
        for block in (with_block, lambda: asyncio.run(async_block())):
            caplog.clear()
            with pytest.raises(KeyError, match="mine"):
                block()
            assert any("left by an exception" in line.message for line in caplog.records)
    with pytest.raises(ClosedError):
        track_api_call(ingestion, customer_id="cus_1")


def test_a_block_that_is_cancelled_closes_its_client(run: Run, connect: Connect) -> None:
    ingestion = connect(account="cancelled-block", linger=300, exit_timeout=60)

    async def main() -> None:
        # anyio works in each of the loops.
        with anyio.move_on_after(0.05) as scope:
            async with ingestion:
                receipt = track_api_call(ingestion, customer_id="cus_cancelled_block")
                await anyio.sleep(60)
        assert scope.cancelled_caught
        # It is closed already, and so billed.
        await receipt.delivered(timeout=0)

    run(main)
    with pytest.raises(ClosedError):
        track_api_call(ingestion, customer_id="cus_cancelled_block")


def test_a_block_says_what_it_could_not_bill(connect: Connect, silent: str) -> None:
    batch = create_batch(connect(base_url=silent, account="unbilled"))
    batch.add(customer_id="cus_1")
    with pytest.raises(IngestionTimeoutError):
        batch.cleanup(timeout=0.1)


def test_handles_are_not_copied(connect: Connect) -> None:
    ingestion = connect()
    receipt = track_api_call(ingestion, customer_id="cus_1")
    for handle in (ingestion, create_batch(ingestion), receipt):
        for copied in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match="pickle"):
                copied(handle)
