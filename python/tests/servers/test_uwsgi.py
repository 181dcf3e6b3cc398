"""uWSGI, its workers replaced and killed while clients call: the meter has what clients got.

Without `--lazy-apps` its master loads the app and forks the workers. Without `--enable-threads` a
worker keeps the GIL while it is idle.
"""

import sys
from pathlib import Path

import pytest
from load import WORKERS, Load, environment, eventually, serving_at

from conftest import Meter

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uWSGI forks")


@pytest.mark.parametrize(
    "options",
    [[], ["--enable-threads"], ["--lazy-apps"], ["--lazy-apps", "--enable-threads"]],
    ids=" ".join,
)
def test_workers_come_and_go(options: list[str], meter: Meter, tmp_path: Path) -> None:
    def command(port: int) -> list[str]:
        return [
            str(Path(sys.executable).with_name("uwsgi")),
            *("--http-socket", f"127.0.0.1:{port}", "--master", "--processes", str(WORKERS)),
            *("--module", "wsgi_metered:app", "--need-app", "--single-interpreter"),
            # A worker that loads the app does not hear of the end, and its master waits a minute.
            *("--max-requests", "50", "--die-on-term", "--worker-reload-mercy", "5"),
            *options,
        ]

    with serving_at(command, environment(meter, tmp_path)) as port:
        load = Load(port, f"cus_uwsgi_{''.join(options)}")
        with load.running():
            load.kill_workers()
            assert eventually(load.replaced_workers), "none was replaced"
        load.check(meter)
