"""An empty machine for each test: no Rust, no checkout, no network, and a home of its own."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

LIMIT = 300
# What a user's machine has besides the packages. npm runs programs with `sh`, itself with `env`.
SYSTEM = ["node", "npm", "npx", "sh", "env"]


def only(pattern: str) -> Path:
    """The one package of its kind; DIST is the directory that `cargo xtask package` has filled."""
    found = sorted(Path(os.environ["DIST"]).glob(pattern))
    assert len(found) == 1, found
    return found[0]


def platform_package() -> Path:
    return only("dodometer-[a-z]*.tgz")


def launcher_package() -> Path:
    return only("dodometer-[0-9]*.tgz")


def assert_exact(output: str) -> None:
    """Whether the demo billed every call that was no error, as its last line tells."""
    bill = json.loads(output.splitlines()[-1])
    assert bill["billed"] + bill["errors"] == bill["accepted"] > 0
    assert bill["dead_lettered"] == 0


@dataclass
class Machine:
    """A directory to work in, and an environment that has nothing of the checkout's."""

    home: Path
    environment: dict[str, str]

    @property
    def bin(self) -> Path:
        return self.home / "bin"

    def command(self, *arguments: str | Path) -> list[str]:
        """The arguments, with the program as this machine finds it."""
        words = [str(argument) for argument in arguments]
        program = shutil.which(words[0], path=self.environment["PATH"])
        assert program is not None, f"{words[0]} is not installed"
        return [program, *words[1:]]

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    def done(self, *arguments: str | Path) -> str:
        """What a command printed that has to succeed."""
        finished = self.run(*arguments)
        assert finished.returncode == 0, f"{finished.stdout}\n{finished.stderr}"
        return finished.stdout


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    home = tmp_path_factory.mktemp("machine")
    programs = home / "bin"
    programs.mkdir()
    for name in SYSTEM:
        path = shutil.which(name)
        assert path is not None, f"this machine has no {name}"
        (programs / name).symlink_to(path)
    environment = {
        "HOME": str(home),
        "PATH": str(programs),
        "LANG": "C.UTF-8",
        "TMPDIR": str(tmp_path_factory.mktemp("tmp")),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "UV_OFFLINE": "1",
        "UV_PYTHON": sys.executable,
        "UV_NO_CONFIG": "1",
        "npm_config_offline": "true",
        "npm_config_audit": "false",
        "npm_config_fund": "false",
        "npm_config_update_notifier": "false",
    }
    assert shutil.which("cargo", path=environment["PATH"]) is None
    return Machine(home, environment)
