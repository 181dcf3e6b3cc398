"""uWSGI, its workers replaced and killed while clients call: the meter has what clients got.

Without `--lazy-apps` its master loads the app and forks the workers. Without `--enable-threads` a
worker keeps the GIL while it is idle.
"""

import sys
from pathlib import Path

import pytest
from load import ADDS, WITHIN, WORKERS, Load, environment, eventually, serving_at

from conftest import serving

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uWSGI forks")


@pytest.mark.parametrize(
    "options",
    [[], ["--enable-threads"], ["--lazy-apps"], ["--lazy-apps", "--enable-threads"]],
    ids=" ".join,
)
def test_workers_come_and_go(options: list[str], tmp_path: Path) -> None:
    def command(port: int) -> list[str]:
        return [
            str(Path(sys.executable).with_name("uwsgi")),
            *("--http-socket", f"127.0.0.1:{port}", "--master", "--processes", str(WORKERS)),
            *("--module", "wsgi_metered:app", "--need-app", "--single-interpreter"),
            # A worker that loads the app does not hear of the end, and its master waits a minute.
            *("--max-requests", "50", "--die-on-term", "--worker-reload-mercy", "5"),
            *options,
        ]

    with serving() as meter:
        # By default the package takes as long as uWSGI's mercy, and workers that come and go this
        # fast need it: each bills at its end, and they share the minute's requests.
        variables = environment(meter, tmp_path) | {"DODO_INGESTION_EXIT_TIMEOUT": "2"}
        with serving_at(command, variables) as server:
            load = Load(server.port, "cus_uwsgi")
            with load.running():
                load.kill_workers()
                assert eventually(load.replaced_workers), "none was replaced"
            load.check(meter)
    # How long uWSGI takes is its own affair: the package's part of it is told by the app.
    ends = {worker: took for worker, took in server.ends.items() if int(worker) not in load.killed}
    # Of workers that load the app, one was seen to be gone a second into its end; what ended it is
    # not known. So as many as there are at a time may lack their word that they came to it.
    by_themselves = [took for took in ends.values() if took < WITHIN]
    assert by_themselves
    assert len(ends) - len(by_themselves) <= (WORKERS if "--lazy-apps" in options else 0)
    assert max(by_themselves) < ADDS
