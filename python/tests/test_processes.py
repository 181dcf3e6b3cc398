"""Forks, exits and signals of real processes: all that they accepted is billed, and once."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Meter, serving
from dodo_ingestion import Ingestion, track_api_call

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks and signals")

# How long a program may take on a loaded machine.
ENDS_WITHIN = 120.0

# Python 3.12 and later warn of a fork in a process with threads, such as the engine is.
QUIET = ["-W", "ignore:This process:DeprecationWarning"]

PROLOGUE = """
import os, sys, signal, threading, time, multiprocessing
from dodo_ingestion import Ingestion, create_batch, track_api_call

def connect(**options):
    settings = dict(api_key="k", environment="test_mode", event_name="api_call",
                    base_url=os.environ["URL"], spool_dir=os.environ["SPOOL"],
                    linger=float(os.environ.get("LINGER", "0.05")), exit_timeout=100)
    return Ingestion(**{**settings, **options})

def track(ingestion, count, who="cus_1"):
    for number in range(count):
        track_api_call(ingestion, customer_id=who, metadata={"n": number, "pid": os.getpid()})
"""


class Host:
    """Runs programs that share a spool directory and a meter of their own."""

    def __init__(self, meter: Meter, spool_dir: Path) -> None:
        self.meter = meter
        self.spool_dir = spool_dir

    def start(self, program: str, **variables: str) -> "subprocess.Popen[str]":
        environment = {"URL": self.meter.url, "SPOOL": str(self.spool_dir), **variables}
        return subprocess.Popen(
            [sys.executable, *QUIET, "-c", PROLOGUE + textwrap.dedent(program)],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, program: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        process = self.start(program, **variables)
        out, err = process.communicate(timeout=ENDS_WITHIN)
        return subprocess.CompletedProcess(program, process.returncode, out, err)

    def bills(self, count: int, customer_id: str = "cus_1") -> list[dict[str, Any]]:
        """Deliver what was left, as the next process does, and see that it is all there, once."""
        with Ingestion(
            api_key="k",
            environment="test_mode",
            event_name="api_call",
            base_url=self.meter.url,
            spool_dir=self.spool_dir,
        ) as following:
            # Whatever is due takes along what waits for others to share its request.
            track_api_call(following, customer_id="cus_following")
            following.flush(timeout=ENDS_WITHIN)
            until(lambda: len(self.meter.events(customer_id)) >= count)
        events = self.meter.events(customer_id)
        ids = [event["event_id"] for event in events]
        assert len(ids) == len(set(ids)) == count
        return [event["metadata"] for event in events]


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + ENDS_WITHIN
    while not done() and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.fixture
def host(tmp_path: Path) -> Any:  # noqa: ANN401
    with serving() as meter:
        yield Host(meter, tmp_path)


def test_a_pool_of_forked_workers(host: Host) -> None:
    done = host.run("""
        ingestion = connect()
        track(ingestion, 10)
        def work(number):
            track(ingestion, 25)
            return os.getpid()
        with multiprocessing.get_context("fork").Pool(4) as pool:
            pids = set(pool.map(work, range(8), chunksize=1))
        track(ingestion, 10)
        ingestion.close(timeout=90)
    """)
    assert (done.returncode, done.stderr) == (0, "")
    host.bills(220)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_spawned_workers(host: Host, tmp_path: Path, method: str) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(
        PROLOGUE
        + textwrap.dedent("""
            from dodo_ingestion import RejectedError

            def work(number):
                ingestion = connect()
                track(ingestion, 25)
                if number == 3:
                    raise RejectedError("refused", field="customer_id", status=400)
                ingestion.close(timeout=90)

            if __name__ == "__main__":
                with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
                    results = [pool.apply_async(work, (number,)) for number in range(4)]
                    for result in results[:3]:
                        result.get()
                    try:
                        results[3].get()
                    except RejectedError as error:
                        print(error.field, error.status, error)
        """)
    )
    environment = {"URL": host.meter.url, "SPOOL": str(host.spool_dir)}
    done = subprocess.run(
        [sys.executable, *QUIET, worker, method],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN,
        check=False,
    )
    # An exception of ours crosses from one process to another whole.
    assert (done.returncode, done.stdout, done.stderr) == (0, "customer_id 400 refused\n", "")
    host.bills(100)


def test_forks_while_threads_track(host: Host) -> None:
    done = host.run("""
        ingestion = connect()
        batch = create_batch(ingestion)
        going = True
        counts = [0, 0, 0]
        def run(place):
            while going:
                track_api_call(ingestion, customer_id="cus_1")
                batch.add(customer_id="cus_1")
                counts[place] += 2
                if counts[place] % 200 == 0:
                    time.sleep(0.05)  # more than this could not be billed in the time there is
        threads = [threading.Thread(target=run, args=(place,)) for place in range(3)]
        for thread in threads: thread.start()
        children = []
        for _ in range(8):
            pid = os.fork()
            if pid == 0:
                track(ingestion, 20, "cus_child")
                batch.add(customer_id="cus_child")
                ingestion.flush(timeout=90)
                os._exit(0)
            children.append(pid)
        going = False
        for thread in threads: thread.join()
        codes = [os.waitpid(pid, 0)[1] for pid in children]
        ingestion.close(timeout=90)
        print(sum(counts), codes)
    """)
    assert done.stderr == ""
    count, codes = done.stdout.split(" ", 1)
    assert json.loads(codes) == [0] * 8
    host.bills(8 * 21, "cus_child")
    host.bills(int(count))


def test_a_child_that_tracks_what_it_inherited_exits_as_any_program(host: Host) -> None:
    done = host.run("""
        ingestion = connect()
        track(ingestion, 5)
        if os.fork() == 0:
            track(ingestion, 5)
            sys.exit(0)  # by the exit handlers, as the parent does
        os.wait()
    """)
    assert (done.returncode, done.stderr) == (0, "")
    host.bills(10)


@pytest.mark.parametrize(
    "end",
    [
        "os._exit(0)",
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os.kill(os.getpid(), signal.SIGTERM)",
        "os.abort()",
    ],
)
def test_an_end_without_exit_handlers_leaves_the_calls_to_the_next(host: Host, end: str) -> None:
    host.run(f"track(connect(), 50); {end}", LINGER="300")
    assert host.meter.events("cus_1") == []
    host.bills(50)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise KeyError('mine')", 1),
        ("threading.Thread(target=track, args=(ingestion, 50)).start()", 0),
        ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); os.kill(os.getpid(), 15)", 0),
    ],
)
def test_the_end_of_a_program_bills_what_waits(host: Host, end: str, code: int) -> None:
    done = host.run(f"ingestion = connect()\ntrack(ingestion, 50)\n{end}", LINGER="300")
    assert done.returncode == code
    assert len(host.meter.events("cus_1")) == (100 if "Thread" in end else 50)


def test_the_end_of_a_program_bills_a_batch_whose_client_nobody_has(host: Host) -> None:
    done = host.run("""
        batch = create_batch(connect(), flush_interval=300)
        batch.add(customer_id="cus_1")
    """)
    assert done.returncode == 0
    assert len(host.meter.events("cus_1")) == 1


@pytest.mark.parametrize(
    "call",
    [
        "track_api_call(closed, customer_id='cus_1')",
        "closed.flush()",
        "ingestion.flush()",
        "batch.add(customer_id='')",
    ],
)
def test_a_daemon_thread_may_be_in_a_call_when_the_program_ends(host: Host, call: str) -> None:
    done = host.run(f"""
        import queue, types
        from dodo_ingestion import IngestionError

        closed = connect()
        closed.close()
        ingestion = connect(account="open", on_alarm=lambda kind, message: None)
        batch = create_batch(ingestion)
        rounds = queue.SimpleQueue()

        def linger(frame, event, argument, sleep=time.sleep):
            if event == "call":  # a call of ours runs Python's code, which may be ended there
                rounds.put("linger")
                for _ in range(12_000):
                    sleep(0.01)

        def work():
            sys.setprofile(linger)
            while True:
                try:
                    {call}
                except IngestionError:
                    pass
                rounds.put("done")

        class Slow:
            def __del__(self, sleep=time.sleep, write=os.write):
                sleep(0.5)  # the daemon thread wants the interpreter meanwhile
                write(1, b"ended\\n")

        # Unlike this module, it is not kept alive by the daemon thread.
        sys.modules["slow"] = types.ModuleType("slow")
        sys.modules["slow"].slow = Slow()
        threading.Thread(target=work, daemon=True).start()
        print(rounds.get(), flush=True)
    """)
    assert (done.returncode, done.stdout) == (0, "done\nended\n"), done.stderr


def test_the_end_of_a_program_is_bounded_and_keeps_what_it_cannot_bill(
    host: Host, silent: str
) -> None:
    started = time.monotonic()
    done = host.run(
        """
        clients = [connect(account=f"a{number}", exit_timeout=10) for number in range(10)]
        for client in clients:
            track(client, 5)
        """,
        URL=silent,
    )
    # One bound of ten seconds for all, not ten for each.
    assert time.monotonic() - started < 60
    assert done.returncode == 0
    assert done.stderr.count(" 5 calls are not billed yet and stay spooled") == 10


def test_a_server_that_is_dead_takes_no_time_of_the_others_at_the_end(
    host: Host, silent: str
) -> None:
    done = host.run(
        """
        memory = {"durability": "memory", "exit_timeout": 10}
        dead = connect(base_url=os.environ["DEAD"], **memory)
        live = connect(**memory)
        for client in (dead, live):
            track(client, 5)
        """,
        DEAD=silent,
        LINGER="300",
    )
    assert done.returncode == 0
    assert len(host.meter.events("cus_1")) == 5
    lost = "5 calls are not billed yet and are lost when this process ends"
    assert (done.stderr.count("at exit: "), done.stderr.count(lost)) == (1, 1)


def test_ctrl_c_ends_the_wait_at_the_end_of_a_program(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(ENDS_WITHIN)
        process = host.start(
            """
            ingestion = connect()
            track(ingestion, 5)
            """,
            URL=f"http://127.0.0.1:{server.getsockname()[1]}",
            LINGER="300",
        )
        connection, _ = server.accept()  # nothing is due before the end
        with connection:
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "at exit: interrupted\n")


@pytest.mark.parametrize("wait", ["ingestion.flush()", "receipt.wait_delivered()", "batch.flush()"])
def test_ctrl_c_interrupts_a_wait(host: Host, silent: str, wait: str) -> None:
    process = host.start(
        f"""
        ingestion = connect(exit_timeout=0)
        batch = create_batch(ingestion)
        batch.add(customer_id="cus_1")
        receipt = track_api_call(ingestion, customer_id="cus_1")
        try:
            print("waiting", flush=True)
            {wait}
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        """,
        URL=silent,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    interrupted = time.monotonic()
    assert process.stdout.readline() == "interrupted\n"
    # The wait is of 30 s, and looks at signals every 50 ms.
    assert time.monotonic() - interrupted < 20
    process.communicate(timeout=ENDS_WITHIN)


def test_ctrl_c_in_a_program_that_does_not_wait(host: Host) -> None:
    process = host.start(
        """
        ingestion = connect()
        track(ingestion, 50)
        print("tracked", flush=True)
        time.sleep(60)
        """,
        LINGER="300",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "tracked\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=ENDS_WITHIN)
    assert err.rstrip().endswith("KeyboardInterrupt")
    host.bills(50)


def test_a_repl_tracks_and_ends(host: Host) -> None:
    process = subprocess.Popen(
        [sys.executable, "-i", "-q"],
        env={**os.environ, "URL": host.meter.url, "SPOOL": str(host.spool_dir)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = [
        "import os",
        "from dodo_ingestion import *",
        "options = dict(api_key='k', environment='test_mode', event_name='api_call')",
        "options.update(base_url=os.environ['URL'], spool_dir=os.environ['SPOOL'], linger=300)",
        "options.update(exit_timeout=100)",
        "ingestion = Ingestion(**options)",
        "track_api_call(ingestion, customer_id='cus_1', event_id='repl')",
        # A cell that is run again: another client of the same account in the same process.
        "ingestion = Ingestion(**options)",
        "track_api_call(ingestion, customer_id='cus_1')",
        "track_api_call(ingestion, customer_id='')",
        "create_batch(ingestion)",
    ]
    out, _ = process.communicate("\n".join(lines) + "\n", timeout=ENDS_WITHIN)
    assert process.returncode == 0
    assert "<Receipt repl>" in out
    assert "ValidationError: customer_id: is empty" in out
    assert len(host.meter.events("cus_1")) == 2


def test_a_notebook_whose_kernel_is_killed_and_started_again(host: Host) -> None:
    cell = "ingestion = connect()\ntrack(ingestion, 10)\nprint('ready', flush=True)\n"
    kernel = host.start(cell + "time.sleep(60)", LINGER="300")
    assert kernel.stdout is not None
    assert kernel.stdout.readline() == "ready\n"
    kernel.kill()
    kernel.communicate(timeout=ENDS_WITHIN)
    again = host.run(cell + "ingestion.close(timeout=90)")
    assert (again.returncode, again.stderr) == (0, "")
    host.bills(20)


def test_an_interpreter_beside_the_first_is_refused() -> None:
    program = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
import dodo_ingestion
other = interpreters.create()
interpreters.run_string(other, '''
try:
    import dodo_ingestion
except ImportError as error:
    print(type(error).__name__, error, flush=True)
''')
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ImportError dodo_ingestion cannot be imported into a subinterp")


def test_an_interpreter_without_the_gil_is_refused() -> None:
    # What a free-threaded Python says of itself; the check must not need one.
    program = "import sys; sys._is_gil_enabled = lambda: False; import dodo_ingestion"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN,
        check=False,
    )
    assert (
        done.stderr.rstrip()
        .splitlines()[-1]
        .startswith("ImportError: dodo_ingestion needs the GIL")
    )


def test_a_client_that_is_collected_leaves_its_calls(host: Host) -> None:
    done = host.run("""
        import gc
        track(connect(), 20)
        gc.collect()
        again = connect()
        track(again, 20)
        again.close(timeout=90)
        again.close()
        try:
            again.flush()
        except Exception as error:
            print(type(error).__name__)
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ClosedError\n", "")
    host.bills(40)
