import subprocess
import sys


def test_the_stubs_say_what_the_module_is() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "dodo_ingestion._native"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
