"""Celery's pool, its processes replaced, killed and shut down: what was done is billed, once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from load import HERE, WITHIN, children, environment, eventually, following, numbers

from conftest import Meter
from dodo_ingestion import track_api_call

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Celery forks")

TASKS = 200
POOL = 3
KILLED = (60, 120)
SUBMIT = f"""
import celery_tasks
for number in range({TASKS}):
    celery_tasks.call.delay(number, number in {KILLED})
"""


def is_whole(worker: "subprocess.Popen[bytes]", started: Path) -> bool:
    """Whether no process is being replaced: one that is just made may not hear of the end."""
    pool = children(str(worker.pid))
    ready = pool <= {file.name for file in started.iterdir()}
    time.sleep(0.5)
    return ready and len(pool) == POOL and pool == children(str(worker.pid))


def test_processes_of_the_pool_come_and_go(meter: Meter, tmp_path: Path) -> None:
    spool, done, started = tmp_path / "spool", tmp_path / "done", tmp_path / "started"
    for name in ("queue", "control", "done", "started"):
        (tmp_path / name).mkdir()
    variables = {**environment(meter, spool), "WORK": str(tmp_path)}
    celery = [sys.executable, "-X", "faulthandler", "-m", "celery", "-A", "celery_tasks", "worker"]
    options = ["--pool", "prefork", "--concurrency", str(POOL), "--max-tasks-per-child", "20"]
    quick = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    subprocess.run([sys.executable, "-c", SUBMIT], cwd=HERE, env=variables, check=True)
    log = tmp_path / "log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [*celery, *options, *quick],
            cwd=HERE,
            env=variables,
            stdout=output,
            stderr=output,
        )
    try:
        assert eventually(lambda: len(list(done.iterdir())) == TASKS)
        assert eventually(lambda: is_whole(worker, started)), "the pool is not made whole"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=WITHIN) == 0
    except subprocess.TimeoutExpired:
        for each in [*map(int, children(str(worker.pid))), worker.pid]:
            os.kill(each, signal.SIGABRT)
        worker.wait()
        pytest.fail(f"where each thread stood: {log.read_text()}")
    finally:
        worker.kill()
    processes = {file.read_text() for file in done.iterdir()}
    assert len(processes) > POOL + len(KILLED), "none was replaced"

    # What the last ones left is billed by the next process of the account.
    with following(variables) as process:
        track_api_call(process, customer_id="cus_following")
        process.flush(timeout=WITHIN)
        eventually(lambda: len(numbers(meter, "cus_celery")) >= TASKS)
    assert numbers(meter, "cus_celery") == list(range(TASKS))
