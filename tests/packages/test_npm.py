"""The npm packages: the launcher, and the program of this platform."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import LIMIT, Machine, assert_exact, launcher_package, platform_package

SERVE = ["serve", "--listen", "127.0.0.1:0", "--json"]


@pytest.fixture(scope="module")
def launcher(machine: Machine) -> Path:
    machine.done("npm", "init", "--yes")
    machine.done("npm", "install", launcher_package(), platform_package())
    return machine.home / "node_modules" / ".bin" / "dodometer"


def test_npx_runs_what_npm_installed(machine: Machine, launcher: Path) -> None:
    assert launcher.exists()
    output = machine.done("npx", "--no", "dodometer", "demo", "--seconds", "2", "--json")
    assert_exact(output)


def test_npx_runs_the_packages_themselves(machine: Machine, tmp_path: Path) -> None:
    elsewhere = Machine(tmp_path, machine.environment)
    packages = [f"--package={launcher_package()}", f"--package={platform_package()}"]
    arguments = ["demo", "--seconds", "2", "--json"]
    assert_exact(elsewhere.done("npx", "--yes", *packages, "--", "dodometer", *arguments))


def test_it_is_the_version_of_the_packages(machine: Machine, launcher: Path) -> None:
    manifest = json.loads((machine.home / "node_modules/dodometer/package.json").read_text())
    assert machine.done(launcher, "--version") == f"dodometer {manifest['version']}\n"
    assert set(manifest["optionalDependencies"].values()) == {manifest["version"]}


def test_the_packages_carry_the_licences(machine: Machine, launcher: Path) -> None:
    assert launcher.exists()
    modules = machine.home / "node_modules"
    for package in [modules / "dodometer", *(modules / "@dodometer").iterdir()]:
        assert {path.name for path in package.glob("LICENSE-*")} == {
            "LICENSE-MIT",
            "LICENSE-APACHE",
        }


def test_exit_statuses_pass_through(machine: Machine, launcher: Path) -> None:
    for arguments, status in [
        (["--help"], 0),
        (["serve", "--customers", "no/such/file"], 1),
        (["serve", "--no-such-option"], 2),
    ]:
        finished = machine.run(launcher, *arguments)
        assert finished.returncode == status, finished.stderr


def take_terminal() -> None:
    """Make a terminal on standard input that of the session, as it does which opens it first."""
    if os.isatty(0):
        os.close(os.open(os.ttyname(0), os.O_RDWR))


@contextmanager
def serving(machine: Machine, launcher: Path, stdin: int) -> Iterator[subprocess.Popen[str]]:
    """A meter that is ready, in a session of its own: that of `stdin` if it is a terminal."""
    process = subprocess.Popen(
        machine.command(launcher, *SERVE),
        env=machine.environment,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["listening"]
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(LIMIT)
        if process.stdout is not None:
            process.stdout.close()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_to_the_launcher_ends_the_program(
    machine: Machine, launcher: Path, name: str
) -> None:
    with serving(machine, launcher, subprocess.DEVNULL) as process:
        process.send_signal(signal.Signals[name])
        assert process.wait(LIMIT) == 0
        # The program held the other end too.
        assert process.stdout is not None
        assert process.stdout.read() == ""


def test_ctrl_c_ends_the_program(machine: Machine, launcher: Path) -> None:
    controller, terminal = pty.openpty()
    try:
        with serving(machine, launcher, terminal) as process:
            os.write(controller, b"\x03")
            assert process.wait(LIMIT) == 0
    finally:
        os.close(terminal)
        os.close(controller)


@pytest.mark.skipif(not Path("/proc").exists(), reason="the program is found in /proc")
def test_a_signal_that_ends_the_program_ends_the_launcher(machine: Machine, launcher: Path) -> None:
    with serving(machine, launcher, subprocess.DEVNULL) as process:
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
    alone.done("npm", "install", "--omit=optional", launcher_package())
    finished = alone.run(alone.home / "node_modules" / ".bin" / "dodometer", "--version")
    assert finished.returncode == 1
    installed = platform_package().name.removeprefix("dodometer-").rsplit("-", 1)[0]
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
