"""An empty machine for each test: no Rust, no checkout, no network, and a home of its own."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

LIMIT = 300
# What a user's machine has besides the packages. npm runs programs with `sh`, itself with `env`.
SYSTEM = ["node", "npm", "npx", "sh", "env"]
LICENCES = {"LICENSE-MIT", "LICENSE-APACHE"}
# With what is compiled go those of the crates that are compiled into it.
COMPILED_LICENCES = LICENCES | {"LICENSE-THIRD-PARTY"}
SERVE = ["serve", "--listen", "127.0.0.1:0", "--json"]

README = Path(__file__).parents[2] / "README.md"
README_BILL = [
    ("cus_1", {"endpoint": "/v1/users/{id}", "status_code": 200}),
    ("cus_2", {"endpoint": "/v1/search"}),
]


def dist() -> Path:
    """The directory that `cargo xtask package` has filled."""
    return Path(os.environ["DIST"])


def only(pattern: str) -> Path:
    """The one package of its kind."""
    found = sorted(dist().glob(pattern))
    assert len(found) == 1, found
    return found[0]


def npm_packages(name: str) -> tuple[Path, Path]:
    """A package for npm, and what it needs on this platform."""
    return only(f"{name}-[0-9]*.tgz"), only(f"{name}-[a-z]*-[0-9]*.tgz")


def assert_exact(output: str) -> None:
    """Whether the demo billed every call that was no error, as its last line tells."""
    bill = json.loads(output.splitlines()[-1])
    assert bill["billed"] + bill["errors"] == bill["accepted"] > 0
    assert bill["dead_lettered"] == 0


def readme(language: str) -> str:
    """The lines of the README in a language."""
    (code,) = re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)
    assert isinstance(code, str)
    return code


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

    def assert_bills(self, meter: str | Path, *program: str | Path) -> None:
        """Run the README's lines against an installed meter: it has billed what they say."""
        with serving(self, meter) as (_, url):
            billing = {"DODO_PAYMENTS_API_KEY": "readme", "DODO_PAYMENTS_BASE_URL": url}
            replace(self, environment={**self.environment, **billing}).done(*program)
            request = Request(f"{url}/events", headers={"Authorization": "Bearer readme"})  # noqa: S310
            with urlopen(request, timeout=LIMIT) as answer:  # noqa: S310
                events = json.load(answer)["items"]
        bill = [(event["customer_id"], event["metadata"]) for event in events]
        assert sorted(bill, key=lambda call: call[0]) == README_BILL


def take_terminal() -> None:
    """Make a terminal on standard input that of the session, as it does which opens it first."""
    if os.isatty(0):
        os.close(os.open(os.ttyname(0), os.O_RDWR))


@contextmanager
def serving(
    machine: Machine, dodometer: str | Path, stdin: int = subprocess.DEVNULL
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A meter that is ready, and its URL; in the session of the terminal `stdin`, or its own."""
    process = subprocess.Popen(
        machine.command(dodometer, *SERVE),
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
        ready = json.loads(process.stdout.readline())
        assert ready["listening"]
        yield process, ready["url"]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(LIMIT)
        if process.stdout is not None:
            process.stdout.close()


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
