"""The program from npm: the launcher, and the program of this platform."""

import json
import os
import pty
import shutil
import signal
import sys
from pathlib import Path

import pytest

from conftest import (
    COMPILED_LICENCES,
    LICENCES,
    LIMIT,
    Machine,
    assert_exact,
    npm_packages,
    serving,
)


@pytest.fixture(scope="module")
def launcher(machine: Machine) -> Path:
    machine.done("npm", "init", "--yes")
    machine.done("npm", "install", *npm_packages("dodometer"))
    return machine.home / "node_modules" / ".bin" / "dodometer"


def test_npx_runs_what_npm_installed(machine: Machine, launcher: Path) -> None:
    assert launcher.exists()
    output = machine.done("npx", "--no", "dodometer", "demo", "--seconds", "2", "--json")
    assert_exact(output)


def test_npx_runs_the_packages_themselves(machine: Machine, tmp_path: Path) -> None:
    elsewhere = Machine(tmp_path, machine.environment)
    packages = [f"--package={package}" for package in npm_packages("dodometer")]
    arguments = ["demo", "--seconds", "2", "--json"]
    assert_exact(elsewhere.done("npx", "--yes", *packages, "--", "dodometer", *arguments))


def test_it_is_the_version_of_the_packages(machine: Machine, launcher: Path) -> None:
    manifest = json.loads((machine.home / "node_modules/dodometer/package.json").read_text())
    assert machine.done(launcher, "--version") == f"dodometer {manifest['version']}\n"
    assert set(manifest["optionalDependencies"].values()) == {manifest["version"]}


def test_the_packages_carry_the_licences(machine: Machine, launcher: Path) -> None:
    assert launcher.exists()
    modules = machine.home / "node_modules"
    for package, licences in [
        (modules / "dodometer", LICENCES),
        *((package, COMPILED_LICENCES) for package in (modules / "@dodometer").iterdir()),
    ]:
        assert {path.name for path in package.glob("LICENSE-*")} == licences


def test_exit_statuses_pass_through(machine: Machine, launcher: Path) -> None:
    for arguments, status in [
        (["--help"], 0),
        (["serve", "--customers", "no/such/file"], 1),
        (["serve", "--no-such-option"], 2),
    ]:
        finished = machine.run(launcher, *arguments)
        assert finished.returncode == status, finished.stderr


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_to_the_launcher_ends_the_program(
    machine: Machine, launcher: Path, name: str
) -> None:
    with serving(machine, launcher) as (process, _):
        process.send_signal(signal.Signals[name])
        assert process.wait(LIMIT) == 0
        # The program held the other end too.
        assert process.stdout is not None
        assert process.stdout.read() == ""


def test_ctrl_c_ends_the_program(machine: Machine, launcher: Path) -> None:
    controller, terminal = pty.openpty()
    try:
        with serving(machine, launcher, terminal) as (process, _):
            os.write(controller, b"\x03")
            assert process.wait(LIMIT) == 0
    finally:
        os.close(terminal)
        os.close(controller)


@pytest.mark.skipif(not Path("/proc").exists(), reason="the program is found in /proc")
def test_a_signal_that_ends_the_program_ends_the_launcher(machine: Machine, launcher: Path) -> None:
    with serving(machine, launcher) as (process, _):
        (program,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(program), signal.SIGHUP)
        assert process.wait(LIMIT) == -signal.SIGHUP


def test_the_path_of_the_program_is_for_other_packages(machine: Machine, launcher: Path) -> None:
    assert launcher.exists()
    script = "process.stdout.write(require('dodometer').binaryPath())"
    program = machine.done("node", "-e", script)
    assert Path(program).is_absolute()
    assert machine.done(program, "--version").startswith("dodometer ")


def test_a_platform_that_was_left_out_is_told_of(machine: Machine, tmp_path: Path) -> None:
    alone = Machine(tmp_path, machine.environment)
    alone.done("npm", "init", "--yes")
    package, platform = npm_packages("dodometer")
    alone.done("npm", "install", "--omit=optional", package)
    finished = alone.run(alone.home / "node_modules" / ".bin" / "dodometer", "--version")
    assert finished.returncode == 1
    installed = platform.name.removeprefix("dodometer-").rsplit("-", 1)[0]
    for words in [f"@dodometer/{installed} is not installed", "--omit=optional", "cargo install"]:
        assert words in finished.stderr


def test_a_platform_that_there_is_not_is_told_of(
    machine: Machine, launcher: Path, tmp_path: Path
) -> None:
    shutil.copytree(machine.home / "node_modules" / "dodometer", tmp_path / "dodometer")
    elsewhere = "Object.defineProperty(process, 'arch', { value: 's390x' });"
    (tmp_path / "elsewhere.cjs").write_text(elsewhere)
    assert launcher.exists()
    finished = machine.run(
        "node", "--require", tmp_path / "elsewhere.cjs", tmp_path / "dodometer" / "launch.js"
    )
    assert finished.returncode == 1
    for words in [
        f"no dodometer for {sys.platform}-s390x",
        "  linux-x64-musl",
        "  darwin-arm64",
        "rustup.rs",
    ]:
        assert words in finished.stderr
