"""Celery tasks that track calls; their queue, what is done and who has started: files in `WORK`."""

import os
import signal
from pathlib import Path

from celery import Celery
from celery.signals import worker_process_init

from dodo_ingestion import Ingestion, track_api_call

WORK = Path(os.environ["WORK"])

app = Celery("celery_tasks", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": str(WORK / "queue"),
    "data_folder_out": str(WORK / "queue"),
    "control_folder": str(WORK / "control"),
    "polling_interval": 0.01,
}

# Made before the pool's processes are forked.
INGESTION = Ingestion(event_name="task")


@worker_process_init.connect  # type: ignore[untyped-decorator]
def started(**_: object) -> None:
    (WORK / "started" / str(os.getpid())).touch()


@app.task(ignore_result=True)  # type: ignore[untyped-decorator]
def call(number: int, killed: bool) -> None:
    track_api_call(INGESTION, customer_id="cus_celery", metadata={"number": number})
    (WORK / "done" / str(number)).write_text(str(os.getpid()))
    if killed:
        # From outside it may be killed while it has the lock of the pool's queue, which then stops.
        os.kill(os.getpid(), signal.SIGKILL)
