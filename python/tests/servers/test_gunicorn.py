"""Gunicorn, its workers replaced and killed while clients call: the meter has what clients got.

A request that was answered is billed, once. One whose worker was killed before it answered may be,
at most once: nobody can know more.
"""

import sys
from pathlib import Path

import pytest
from load import WORKERS, Load, environment, eventually, serving_at

from conftest import Meter

SERVERS = {
    "sync": ("sync", "wsgi_metered:app"),
    "gthread": ("gthread", "wsgi_metered:app"),
    "gevent": ("gevent", "wsgi_metered:app"),
    "uvicorn": ("uvicorn.workers.UvicornWorker", "asgi_metered:app"),
}


@pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
@pytest.mark.parametrize("name", SERVERS)
def test_workers_come_and_go(name: str, preload: bool, meter: Meter, tmp_path: Path) -> None:
    worker, app = SERVERS[name]

    def command(port: int) -> list[str]:
        return [
            *(sys.executable, "-m", "gunicorn", "--no-control-socket"),
            *("--bind", f"127.0.0.1:{port}", "--workers", str(WORKERS), "--threads", "2"),
            *("--worker-class", worker, "--max-requests", "50", "--graceful-timeout", "5"),
            *(["--preload"] if preload else []),
            app,
        ]

    with serving_at(command, environment(meter, tmp_path)) as port:
        load = Load(port, f"cus_gunicorn_{name}_{preload}")
        with load.running():
            load.kill_workers()
            assert eventually(load.replaced_workers), "none was replaced"
        load.check(meter)
