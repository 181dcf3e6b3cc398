import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

import pytest

from conftest import Connect, Meter
from dodo_ingestion import (
    ClosedError,
    Ingestion,
    IngestionError,
    IngestionTimeoutError,
    ValidationError,
    create_batch,
    create_llm_tracker,
    track_api_call,
    track_stream_bytes,
)

BATCHED = 2000
SINGLE = 500


def test_every_call_is_billed_once(connect: Connect, meter: Meter) -> None:
    ingestion = connect()
    with create_batch(ingestion, max_size=100, flush_interval=5.0) as batch:
        for number in range(BATCHED):
            batch.add(customer_id="cus_batch", metadata={"endpoint": "/v1/users", "n": number})
        for number in range(SINGLE):
            track_api_call(
                ingestion,
                customer_id="cus_single",
                metadata={"endpoint": "/v1/orders", "n": number},
            )
    ingestion.flush(timeout=60)

    assert sorted(event["metadata"]["n"] for event in meter.events("cus_batch")) == [
        *range(BATCHED)
    ]
    assert sorted(event["metadata"]["n"] for event in meter.events("cus_single")) == [
        *range(SINGLE)
    ]
    assert billed_on_the_bill(meter, "cus_batch") == BATCHED
    assert billed_on_the_bill(meter, "cus_single") == SINGLE
    stats = ingestion.stats()
    assert stats["accepted"] >= BATCHED + SINGLE
    assert stats["spooled"] == stats["dead_lettered"] == 0


def billed_on_the_bill(meter: Meter, customer_id: str) -> int:
    customers = meter.get("/_dev/bill")["customers"]
    return next(int(each["calls"]) for each in customers if each["customer_id"] == customer_id)


def test_a_receipt_can_be_waited_for(connect: Connect, meter: Meter) -> None:
    receipt = track_api_call(connect(linger=0.1), customer_id="cus_receipt", event_id="mine")
    receipt.wait_delivered(timeout=60)
    assert receipt.event_id == "mine"
    assert meter.event("mine")["customer_id"] == "cus_receipt"


def test_receipts_can_be_awaited(connect: Connect, meter: Meter) -> None:
    ingestion = connect(linger=0.1)

    async def main() -> None:
        receipts = [track_api_call(ingestion, customer_id="cus_await") for _ in range(100)]
        await asyncio.gather(*(receipt.delivered(timeout=60) for receipt in receipts))

    asyncio.run(main())
    assert len(meter.events("cus_await")) == 100


def test_a_wait_that_takes_too_long(connect: Connect, silent: str) -> None:
    ingestion = connect(base_url=silent, account="black-hole", linger=0.1)
    receipt = track_api_call(ingestion, customer_id="cus_1")

    async def main() -> None:
        await receipt.delivered(timeout=0.2)

    waits: list[Any] = [
        lambda: receipt.wait_delivered(timeout=0.2),
        lambda: asyncio.run(main()),
        lambda: ingestion.flush(timeout=0.2),
    ]
    for wait in waits:
        with pytest.raises(IngestionTimeoutError) as raised:
            wait()
        assert raised.value.kind == "timeout"


def test_ctrl_c_interrupts_a_flush(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        base_url = f"http://127.0.0.1:{server.getsockname()[1]}"
        ingestion = connect(base_url=base_url, account="ctrl-c", linger=300)
        track_api_call(ingestion, customer_id="cus_1")

        def interrupt() -> None:
            connection, _ = server.accept()  # nothing is due before the flush
            with connection:
                os.kill(os.getpid(), signal.SIGINT)

        interrupting = threading.Thread(target=interrupt)
        interrupting.start()
        with pytest.raises(KeyboardInterrupt) as interrupted:
            ingestion.flush(timeout=60)
        assert interrupted.value.__context__ is None  # and not when the time was over
        interrupting.join()


def test_a_closed_client_refuses(connect: Connect) -> None:
    ingestion = connect(account="closed")
    ingestion.close(timeout=120)
    with pytest.raises(ClosedError) as raised:
        track_api_call(ingestion, customer_id="cus_1")
    assert isinstance(raised.value, IngestionError)


REFUSED: dict[str, tuple[str, Callable[[Ingestion], object]]] = {
    "by the core": ("customer_id", lambda client: track_api_call(client, customer_id="")),
    "no event": ("customer_id", lambda client: track_api_call(client, customer_id=cast("str", 1))),
    "a verb of its own": (
        "bytes",
        lambda client: track_stream_bytes(client, customer_id="cus_1", bytes=-1),
    ),
    "of a batch": ("customer_id", lambda client: create_batch(client).add(customer_id="")),
    "no event of a batch": (
        "timestamp",
        lambda client: create_batch(client).add(
            customer_id="cus_1",
            timestamp=datetime(2026, 1, 1),
        ),
    ),
    "no usage": (
        "response",
        lambda client: create_llm_tracker(ingestion=client).track(object(), customer_id="cus_1"),
    ),
}


@pytest.mark.parametrize("which", REFUSED)
def test_a_call_that_is_refused_is_counted_and_told(connect: Connect, which: str) -> None:
    field, refused = REFUSED[which]
    alarms: list[tuple[str, str]] = []
    account = "refused_" + which.replace(" ", "_")
    client = connect(account=account, on_alarm=lambda *alarm: alarms.append(alarm))
    with pytest.raises(ValidationError):
        refused(client)
    assert field in dict(alarms)["invalid"]
    assert client.stats()["invalid"] == 1


def test_alarms_are_logged(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValidationError):
        create_batch(connect(account="logged")).add(customer_id="")
    assert any("invalid: customer_id" in record.message for record in caplog.records)


def test_the_end_of_the_program_is_a_close(meter: Meter) -> None:
    program = f"""
from dodo_ingestion import Ingestion, track_api_call
ingestion = Ingestion(api_key="k", environment="test_mode", base_url={meter.url!r},
                      event_name="api_call", durability="memory", exit_timeout=100)
track_api_call(ingestion, customer_id="cus_exit")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert len(meter.events("cus_exit")) == 1
