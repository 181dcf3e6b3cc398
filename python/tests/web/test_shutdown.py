"""Real servers of ASGI apps, ended as an orchestrator ends them, with calls in memory only."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from serving import WITHIN, eventually

from conftest import Connect, Meter, unused_port
from dodo_ingestion.asgi import MeterMiddleware

CALLS = 20
SERVERS = {
    "uvicorn": ["uvicorn", "shutdown_app:app", "--port", "{port}"],
    "uvicorn-workers": ["uvicorn", "shutdown_app:app", "--port", "{port}", "--workers", "2"],
    "gunicorn-uvicorn": [
        *("gunicorn", "--no-control-socket", "--bind", "127.0.0.1:{port}"),
        *("--worker-class", "uvicorn.workers.UvicornWorker", "shutdown_app:app"),
    ],
    "hypercorn": ["hypercorn", "shutdown_app:app", "--bind", "127.0.0.1:{port}"],
    "hypercorn-trio": [
        *("hypercorn", "shutdown_app:app", "--bind", "127.0.0.1:{port}"),
        *("--worker-class", "trio"),
    ],
}


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM here")
@pytest.mark.parametrize("name", SERVERS)
def test_what_waits_is_billed_before_the_server_ends(name: str, meter: Meter) -> None:
    customer = f"cus_shutdown_{name}"
    environment = {
        **os.environ,
        "DODO_PAYMENTS_API_KEY": "dodo_test_shutdown",
        "DODO_PAYMENTS_BASE_URL": meter.url,
        "DODO_INGESTION_EVENT_NAME": "api_call",
        "DODO_INGESTION_LINGER": "300",
        "DODO_INGESTION_EXIT_TIMEOUT": "100",
        "DODO_INGESTION_DURABILITY": "memory",
        "DODO_INGESTION_ACCOUNT": name,
    }
    port = unused_port()
    process = subprocess.Popen(
        [sys.executable, "-m", *(part.format(port=port) for part in SERVERS[name])],
        cwd=Path(__file__).parent,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}/"

        def get(**headers: str) -> bool:
            with contextlib.suppress(OSError):
                request = urllib.request.Request(url, headers=headers)
                with urllib.request.urlopen(request, timeout=WITHIN) as response:
                    return bool(response.status == 200)
            assert process.poll() is None, "the server has ended"
            return False

        assert eventually(get)
        for _ in range(CALLS):
            assert get(**{"x-customer-id": customer})
        assert meter.events(customer) == []
        process.send_signal(signal.SIGTERM)
        process.wait(WITHIN)
    finally:
        process.kill()
        process.wait(WITHIN)
    assert len(meter.events(customer)) == CALLS


@pytest.mark.parametrize("end", ["complete", "failed"])
@pytest.mark.parametrize("state", ["open", "closed", "unreachable", "unmade"])
def test_the_end_of_the_lifespan_is_passed_on(
    end: str, state: str, connect: Connect, silent: str, caplog: pytest.LogCaptureFixture
) -> None:
    unreachable = {"base_url": silent, "exit_timeout": 0.1}
    options: dict[str, Any] = unreachable if state == "unreachable" else {"exit_timeout": WITHIN}
    ingestion = connect(account=f"lifespan-{state}", linger=300, **options)
    assert ingestion.exit_timeout == options["exit_timeout"]
    ingestion.track(customer_id="cus_lifespan")
    if state == "closed":
        ingestion.close(timeout=WITHIN)
    sent: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401
        assert scope["type"] == "lifespan"
        for kind in ("startup.complete", f"shutdown.{end}"):
            await receive()
            await send({"type": f"lifespan.{kind}"})

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.whatever"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message["type"])

    source = (lambda: pytest.fail("made")) if state == "unmade" else ingestion
    metered: Any = MeterMiddleware(app, ingestion=source)
    asyncio.run(metered({"type": "lifespan"}, receive, send))
    assert sent == ["lifespan.startup.complete", f"lifespan.shutdown.{end}"]
    told = [each for each in caplog.records if "wait for another process" in each.message]
    assert len(told) == (state == "unreachable")
    if state == "open":
        assert ingestion.stats()["spooled"] == 0
