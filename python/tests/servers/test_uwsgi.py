"""uWSGI, its workers replaced and killed while clients call: the meter has what clients got.

Without `--lazy-apps` its master loads the app and forks the workers. Without `--enable-threads` a
worker keeps the GIL while it is idle.
"""

import sys
from pathlib import Path

import pytest
from load import ADDS, WORKERS, Load, environment, serving_at

from conftest import serving

# How often the master of uWSGI looks at its workers.
MASTER_LOOKS = 1.0

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
            load.go_on_while_workers_are_replaced(meter)
    # How long uWSGI takes is its own affair: the package's part of it is told by the app.
    by_themselves = server.began.keys() - set(load.killed)
    took = [server.ended[each] - server.began[each] for each in by_themselves & server.ended.keys()]
    assert took
    assert max(took) < ADDS
    # A worker that is at its end when its master is told to stop gets SIGINT in the middle of it,
    # and is gone: its calls are in the spool.
    for worker in by_themselves - server.ended.keys():
        assert -MASTER_LOOKS < server.told - server.began[worker] < ADDS
