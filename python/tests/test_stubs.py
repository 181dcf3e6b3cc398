"""The stubs of the extension module: its signatures, and its documentation for editors."""

import subprocess
import sys
from pathlib import Path

import dodo_ingestion
import stubs
from dodo_ingestion import _native

STUBS = Path(dodo_ingestion.__file__).with_name("_native.pyi")


def test_the_stubs_say_what_the_module_is() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "dodo_ingestion._native"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_stubs_say_what_the_module_says() -> None:
    text = STUBS.read_text("utf-8")
    assert stubs.documented(text, _native) == text, "cargo xtask gen writes it anew"
