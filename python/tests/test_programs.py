"""The examples that are no servers, run as their first lines say."""

import os
import subprocess
import sys
from pathlib import Path

from conftest import Meter

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(meter: Meter, spool: Path, name: str, *arguments: str | Path, lines: str = "") -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        env={
            **os.environ,
            "DODO_PAYMENTS_API_KEY": "dodo_test_programs",
            "DODO_PAYMENTS_BASE_URL": meter.url,
            "DODO_INGESTION_SPOOL_DIR": str(spool),
        },
        input=lines,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_script_that_is_run_again_bills_nothing_twice(meter: Meter, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text("cus_script /v1/users\ncus_script /v1/users\ncus_script /v1/search\n")
    for _ in range(2):
        assert run(meter, tmp_path, "script.py", log) == ""
    endpoints = [event["metadata"]["endpoint"] for event in meter.events("cus_script")]
    assert sorted(endpoints) == ["/v1/search", "/v1/users", "/v1/users"]


def test_an_async_worker_hears_of_each_bill(meter: Meter, tmp_path: Path) -> None:
    out = run(meter, tmp_path, "async_worker.py", lines="cus_worker\n" * 10)
    assert out.splitlines() == ["cus_worker is billed"] * 10
    assert len(meter.events("cus_worker")) == 10
