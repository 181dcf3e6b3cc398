"""Celery's pool, its processes replaced, killed and shut down: what was done is billed, once."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from load import HERE, WITHIN, environment, eventually, following, numbers

from conftest import Meter
from dodo_ingestion import track_api_call

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Celery forks")

TASKS = 200
KILLED = (60, 120)
SUBMIT = f"""
import celery_tasks
for number in range({TASKS}):
    celery_tasks.call.delay(number, number in {KILLED})
"""


def test_processes_of_the_pool_come_and_go(meter: Meter, tmp_path: Path) -> None:
    spool, done = tmp_path / "spool", tmp_path / "done"
    for name in ("queue", "control", "done"):
        (tmp_path / name).mkdir()
    variables = {**environment(meter, spool), "WORK": str(tmp_path)}
    options = ["--pool", "prefork", "--concurrency", "3", "--max-tasks-per-child", "20"]
    quick = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    subprocess.run([sys.executable, "-c", SUBMIT], cwd=HERE, env=variables, check=True)
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "celery_tasks", "worker", *options, *quick],
        cwd=HERE,
        env=variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert eventually(lambda: len(list(done.iterdir())) == TASKS)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=WITHIN) == 0
    finally:
        worker.kill()
    processes = {file.read_text() for file in done.iterdir()}
    assert len(processes) > 3 + len(KILLED), "none was replaced"

    # What the last ones left is billed by the next process of the account.
    with following(variables) as process:
        track_api_call(process, customer_id="cus_following")
        process.flush(timeout=WITHIN)
        eventually(lambda: len(numbers(meter, "cus_celery")) >= TASKS)
    assert numbers(meter, "cus_celery") == list(range(TASKS))
