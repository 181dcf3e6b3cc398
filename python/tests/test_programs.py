"""The examples that are no servers, run as their first lines say."""

import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

from conftest import Meter

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(
    meter: Meter, spool: Path, name: str, *arguments: str | Path, lines: str = ""
) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        env={
            **os.environ,
            "DODO_PAYMENTS_API_KEY": "dodo_test_programs",
            "DODO_PAYMENTS_BASE_URL": meter.url,
            "DODO_INGESTION_SPOOL_DIR": str(spool),
            "DODO_INGESTION_EXIT_TIMEOUT": "100",
        },
        input=lines,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_a_script_that_is_run_again_bills_nothing_twice(meter: Meter, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    began = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(minutes=10)
    times = [began + timedelta(minutes=minute) for minute in (0, 0, 1)]
    endpoints = ["/v1/users", "/v1/users", "/v1/search"]
    calls = [
        f"{time.isoformat()} cus_script {endpoint}\n"
        for time, endpoint in zip(times, endpoints, strict=True)
    ]
    damaged = ["no call\n", "\n", f"{began.isoformat()} {'c' * 256} /v1/users\n"]
    log.write_text("".join([*calls[:1], *damaged, *calls[1:]]))
    for _ in range(2):
        done = run(meter, tmp_path, "script.py", log)
        assert done.stdout == ""
        assert done.stderr.count("left out: ") == len(damaged)

    # Its first lines have gone to another file.
    log.write_text(calls[2] + calls[2].replace("search", "new"))
    run(meter, tmp_path, "script.py", log)
    billed = [
        (datetime.fromisoformat(event["timestamp"].replace("Z", "+00:00")), event["metadata"])
        for event in meter.events("cus_script")
    ]
    assert sorted((time, metadata["endpoint"]) for time, metadata in billed) == sorted(
        zip([*times, times[2]], [*endpoints, "/v1/new"], strict=True)
    )


def test_an_async_worker_hears_of_each_bill(meter: Meter, tmp_path: Path) -> None:
    lines = "cus_worker\n" * 5
    out = run(meter, tmp_path, "async_worker.py", lines=f"{lines}\n{lines}").stdout.splitlines()
    (refused,) = [line for line in out if line != "cus_worker is billed"]
    assert refused.startswith(" is not billed yet: customer_id: ")
    assert len(out) == 11
    assert len(meter.events("cus_worker")) == 10
