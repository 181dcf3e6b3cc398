"""Gunicorn, its workers replaced and killed while clients call: the meter has what clients got.

A request that was answered is billed, once. One whose worker was killed before it answered may be,
at most once: nobody can know more.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from load import (
    WITHIN,
    WORKERS,
    Load,
    environment,
    eventually,
    following,
    numbers,
    serving_beside_plain,
)

from conftest import Meter, serving
from dodo_ingestion import testing, track_api_call

SERVERS = {
    "sync": ("sync", "wsgi_metered:app"),
    "gthread": ("gthread", "wsgi_metered:app"),
    "gevent": ("gevent", "wsgi_metered:app"),
    "uvicorn": ("uvicorn.workers.UvicornWorker", "asgi_metered:app"),
}


def gunicorn(name: str, *options: str) -> Callable[[int], list[str]]:
    worker, app = SERVERS[name]
    return lambda port: [
        *(sys.executable, "-m", "gunicorn", "--no-control-socket"),
        *("--bind", f"127.0.0.1:{port}", "--workers", str(WORKERS), "--threads", "2"),
        *("--worker-class", worker, "--graceful-timeout", "30"),
        *("--config", "gunicorn_hooks.py", *options, app),
    ]


@pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
@pytest.mark.parametrize("name", SERVERS)
def test_workers_come_and_go(name: str, preload: bool, tmp_path: Path) -> None:
    replaced = ["--max-requests", "50", *(["--preload"] if preload else [])]
    command = gunicorn(name, *replaced)
    with serving() as meter:
        # By default the package takes as long as it may add here, and workers that come and go this
        # fast need it: each bills at its end, and they share the minute's requests.
        variables = environment(meter, tmp_path) | {"DODO_INGESTION_EXIT_TIMEOUT": "2"}
        with serving_beside_plain(command, variables) as server:
            load = Load(server.port, "cus_gunicorn")
            load.go_on_while_workers_are_replaced(meter)
            server.settle()


@pytest.mark.parametrize("outage", [False, True], ids=["", "outage"])
@pytest.mark.parametrize("name", SERVERS)
def test_a_server_is_stopped_while_calls_wait(name: str, outage: bool, tmp_path: Path) -> None:
    command = gunicorn(name)
    with testing.Meter() as local:
        meter = Meter(local.url)
        variables = environment(meter, tmp_path)
        variables["DODO_INGESTION_LINGER"] = "300"
        variables["DODO_INGESTION_EXIT_TIMEOUT"] = "1" if outage else "60"
        if outage:
            local.fault("status=503")
        with serving_beside_plain(command, variables) as server:
            load = Load(server.port, "cus_stopped")
            for number in range(60):
                load.call(number)
            assert load.answered == list(range(60))
            assert numbers(meter, "cus_stopped") == []
            server.settle()
        assert numbers(meter, "cus_stopped") == [] or not outage
        # The end of a worker bills what waits; what it cannot bill is left to the next process.
        if outage:
            local.reset()
            with following(variables) as process:
                track_api_call(process, customer_id="cus_following")
                process.flush(timeout=WITHIN)
                eventually(lambda: len(numbers(meter, "cus_stopped")) == 60)
        assert numbers(meter, "cus_stopped") == load.answered
