"""Alarms of the engine, whose listeners may take for ever, in programs that end and that fork."""

import os
import subprocess
import sys
import textwrap
import threading

import pytest

from conftest import logged
from dodo_ingestion import _alarm

ENDS_WITHIN = 120.0

# Nobody answers at port 9. What a call of the main thread raises is told by that.
PROLOGUE = """
import os, sys, threading, time
from dodo_ingestion import Ingestion, track_api_call

TOLD = threading.Semaphore(0)

def listener(kind, message, sleep=time.sleep):
    if threading.current_thread() is not threading.main_thread():
        TOLD.release()
        for _ in range(12_000):
            sleep(0.01)

def start(account):
    ingestion = Ingestion(
        api_key="k", environment="test_mode", event_name="api_call", account=account,
        base_url="http://127.0.0.1:9", durability="memory", linger=0, exit_timeout=0,
        on_alarm=listener,
    )
    track_api_call(ingestion, customer_id="cus_1")
    return ingestion

def wait(count=1):
    for _ in range(count):
        assert TOLD.acquire(timeout=90)
"""


def run(program: str) -> "subprocess.CompletedProcess[str]":
    quiet = ["-W", "ignore:This process:DeprecationWarning"]
    return subprocess.run(
        [sys.executable, *quiet, "-c", PROLOGUE + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN,
        check=False,
    )


def test_a_listener_that_runs_while_the_interpreter_ends() -> None:
    done = run("""
        import types

        class Slow:
            def __del__(self, sleep=time.sleep, write=os.write):
                sleep(0.5)  # the listener's thread wants the interpreter meanwhile
                write(1, b"ended\\n")

        # Unlike this module, it is not kept alive by the listener.
        sys.modules["slow"] = types.ModuleType("slow")
        sys.modules["slow"].slow = Slow()
        ingestion = start("ends")
        wait()
    """)
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr


def test_where_threads_are_greenlets_an_alarm_is_told_with_the_next_call() -> None:
    done = run("""
        import _thread
        starts = []
        _thread.start_new_thread = lambda *started: starts.append(started)  # and nobody runs it
        told = []
        ingestion = Ingestion(
            api_key="k", environment="test_mode", event_name="api_call", account="greenlets",
            base_url="http://127.0.0.1:9", durability="memory", linger=0, exit_timeout=0,
            on_alarm=lambda kind, message: told.append(kind),  # first of what its own call raises
        )
        track_api_call(ingestion, customer_id="cus_1")
        until = time.monotonic() + 90
        while len(told) < 2 and time.monotonic() < until:
            time.sleep(0.01)
            ingestion.stats()
        print(told, starts)
    """)
    assert (done.returncode, done.stdout) == (0, "['memory_only', 'unreachable'] []\n"), done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere it is another limit")
def test_where_no_thread_can_be_started_an_alarm_is_told_with_the_next_call() -> None:
    done = run("""
        import resource
        told = []
        ingestion = Ingestion(
            api_key="k", environment="test_mode", event_name="api_call", account="threads",
            base_url="http://127.0.0.1:9", durability="memory", linger=0, exit_timeout=0,
            on_alarm=lambda kind, message: told.append(kind),  # first of what its own call raises
        )
        if os.getuid() == 0:
            os.setuid(65534)  # root has no such limit
        most = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        resource.setrlimit(resource.RLIMIT_NPROC, (1, most))
        track_api_call(ingestion, customer_id="cus_1")
        until = time.monotonic() + 90
        while len(told) < 2 and time.monotonic() < until:
            time.sleep(0.01)
            ingestion.stats()
        print(told)
    """)
    assert (done.returncode, done.stdout) == (0, "['memory_only', 'unreachable']\n"), done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_tells_its_alarms_however_many_its_parent_is_telling() -> None:
    done = run("""
        clients = [start(f"parent-{number}") for number in range(16)]
        wait(16)  # and none of them returns
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                client = start("child")
                wait()
                status = 0
            finally:
                os._exit(status)
        print(os.waitpid(pid, 0)[1], flush=True)
    """)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_an_alarm_for_which_no_thread_can_be_started_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", fail)
    _alarm.start_telling(print, "overflow", "the spool is full")
    assert logged(caplog) == ["overflow: the spool is full"]


def test_what_the_end_of_a_program_cannot_do_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> list[str]:
        raise RuntimeError("a defect on purpose")

    monkeypatch.setattr(_alarm, "close_at_exit", fail)
    _alarm.close()
    assert logged(caplog) == ["at exit: a defect on purpose"]


def test_a_listener_that_is_not_awaited_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def page(_kind: str, _message: str) -> None:
        raise AssertionError("is never run")

    _alarm.tell(page, "overflow", "the spool is full")
    (told,) = logged(caplog)
    assert told.startswith("overflow: the spool is full (on_alarm is not awaited")


def test_what_is_logged_is_heard_after_logging_was_configured() -> None:
    done = run("""
        import logging.config
        logging.config.dictConfig({
            "version": 1,
            "handlers": {"all": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}},
            "root": {"handlers": ["all"]},
        })
        Ingestion(
            api_key="k", environment="test_mode", event_name="api_call", exit_timeout=0,
            base_url="http://127.0.0.1:9", durability="memory",
        )
    """)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("memory_only: "), done.stderr
