"""The wheel, with pip and with uvx."""

import os
import sys
from pathlib import Path

import pytest

from conftest import Machine, assert_exact, only

VENV = "venv"


@pytest.fixture(scope="module")
def installed(machine: Machine) -> Path:
    (machine.bin / "python").symlink_to(sys.executable)
    machine.done("python", "-m", "venv", VENV)
    programs = machine.home / VENV / "bin"
    machine.done(programs / "pip", "install", "--no-index", only("*.whl"))
    return programs / "dodometer"


def test_pip_installs_the_program(machine: Machine, installed: Path) -> None:
    assert_exact(machine.done(installed, "demo", "--seconds", "2", "--json"))


def test_it_is_the_version_of_the_wheel(machine: Machine, installed: Path) -> None:
    version = only("*.whl").name.split("-")[1]
    assert machine.done(installed, "--version") == f"dodometer {version}\n"


def test_the_wheel_carries_the_licences(machine: Machine, installed: Path) -> None:
    assert installed.exists()
    (information,) = machine.home.glob(f"{VENV}/lib/python*/site-packages/dodometer-*.dist-info")
    notices = {path.name for path in information.rglob("LICENSE-*")}
    assert notices == {"LICENSE-MIT", "LICENSE-APACHE"}


def test_uvx_runs_the_program(machine: Machine) -> None:
    output = machine.done(
        os.environ["UVX"],
        *("--from", only("*.whl"), "dodometer", "demo", "--seconds", "2", "--json"),
    )
    assert_exact(output)
