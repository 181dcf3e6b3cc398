"""gevent: who waits lets other greenlets run, and delivery waits for none of them."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ENDS_WITHIN = 120.0

# Python 3.12 and later warn of a fork in a process with threads, such as the engine is.
QUIET = ["-W", "ignore:This process:DeprecationWarning"]

# A billing API that is served by a greenlet: while the thread is held, nothing is answered.
PROLOGUE = """
import json, logging, os
{imports}
import gevent
from gevent.event import Event
from gevent.pywsgi import WSGIServer

asked = set()
answering = Event()
answering.set()

def api(environ, start_response):
    events = json.load(environ["wsgi.input"])["events"]
    asked.update(event["customer_id"] for event in events)
    answering.wait()
    refused = any(event["customer_id"] == "cus_refused" for event in events)
    answer = {{"ingested_count": len(events)}}
    if refused:
        answer = {{"code": "NO_SUCH_CUSTOMER", "message": "there is no such customer"}}
    status = "400 Bad Request" if refused else "200 OK"
    start_response(status, [("content-type", "application/json")])
    return [json.dumps(answer).encode()]

server = WSGIServer(("127.0.0.1", 0), api, log=None)
server.start()

def connect(**options):
    return Ingestion(api_key="k", environment="test_mode", event_name="api_call", linger=0.05,
                     base_url=f"http://127.0.0.1:{{server.server_port}}",
                     spool_dir=os.environ["SPOOL"], **options)
"""
PATCH = "from gevent import monkey; monkey.patch_all()"
IMPORT = "from dodo_ingestion import Ingestion, RejectedError, create_batch, track_api_call"

# gunicorn patches in its workers: with --preload after the app was imported.
ORDERS = {"patched first": f"{PATCH}\n{IMPORT}", "imported first": f"{IMPORT}\n{PATCH}"}


def run(imports: str, spool: Path, program: str) -> str:
    done = subprocess.run(
        [sys.executable, *QUIET, "-c", PROLOGUE.format(imports=imports) + textwrap.dedent(program)],
        env={**os.environ, "SPOOL": str(spool)},
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("imports", ORDERS.values(), ids=ORDERS)
def test_who_waits_lets_other_greenlets_run(imports: str, tmp_path: Path) -> None:
    program = """
        ingestion = connect()
        track_api_call(ingestion, customer_id="cus_1").wait_delivered(timeout=90)
        track_api_call(ingestion, customer_id="cus_1")
        ingestion.flush(timeout=90)
        with create_batch(ingestion) as batch:
            batch.add(customer_id="cus_1")
            batch.flush(timeout=90)
            batch.add(customer_id="cus_1")
        waits = [gevent.spawn(track_api_call(ingestion, customer_id="cus_1").wait_delivered)
                 for _ in range(10)]
        gevent.joinall(waits, raise_error=True)
        track_api_call(ingestion, customer_id="cus_1")
        try:
            with gevent.Timeout(0):
                ingestion.flush(timeout=90)
        except gevent.Timeout:
            print("interrupted")
        ingestion.close(timeout=90)
        print(ingestion.stats()["billed"])
    """
    assert run(imports, tmp_path, program) == "interrupted\n15\n"


@pytest.mark.parametrize("imports", ORDERS.values(), ids=ORDERS)
def test_an_alarm_waits_for_no_greenlet(imports: str, tmp_path: Path) -> None:
    program = """
        class Handler(logging.Handler):
            def emit(self, record):
                gevent.sleep(0.01)  # as one does that writes to a socket
                print(record.getMessage().partition(":")[0])

        handler = Handler()
        logging.getLogger("dodo_ingestion").addHandler(handler)
        ingestion = connect()

        def hold():
            handler.acquire()
            while ingestion.stats()["alarms"] == 0:
                gevent.sleep(0.01)
            track_api_call(ingestion, customer_id="cus_1")
            while ingestion.stats()["billed"] == 0:
                gevent.sleep(0.01)
            handler.release()

        holder = gevent.spawn(hold)
        gevent.sleep(0)
        try:
            track_api_call(ingestion, customer_id="cus_refused").wait_delivered(timeout=90)
        except RejectedError as error:
            refused = error.status
        holder.join()
        ingestion.close(timeout=90)
        print(refused)
    """
    assert run(imports, tmp_path, program) == "dead_lettered\n400\n"


def test_an_alarm_that_no_call_comes_after_is_told_at_the_end(tmp_path: Path) -> None:
    program = """
        class Handler(logging.Handler):
            def emit(self, record):
                print(record.getMessage().partition(":")[0])

        logging.getLogger("dodo_ingestion").addHandler(Handler())
        ingestion = connect()
        track_api_call(ingestion, customer_id="cus_refused")
        ingestion.close(timeout=90)
    """
    assert run(ORDERS["patched first"], tmp_path, program) == "dead_lettered\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_does_not_tell_the_alarms_of_its_parent(tmp_path: Path) -> None:
    program = """
        told = []
        ingestion = connect(on_alarm=lambda kind, _message: told.append(kind))
        told.clear()
        answering.clear()
        track_api_call(ingestion, customer_id="cus_refused")
        while "cus_refused" not in asked:
            gevent.sleep(0.01)
        track_api_call(ingestion, customer_id="cus_1")
        answering.set()
        # The next request comes after the alarm; no call does, and so it is told to nobody yet.
        while "cus_1" not in asked:
            gevent.sleep(0.01)
        before = len(told)
        # Else gevent does so after its first fork, and misses a child that has ended by then.
        gevent.get_hub().loop.install_sigchld()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                ingestion.stats()
                status = len(told)
            finally:
                os._exit(status)
        status = os.waitpid(pid, 0)[1]
        ingestion.stats()
        print(before, status, told)
        ingestion.close(timeout=90)
    """
    assert run(ORDERS["patched first"], tmp_path, program) == "0 0 ['dead_lettered']\n"
