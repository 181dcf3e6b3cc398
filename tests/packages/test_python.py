"""The wheels, with pip and with uvx, and the source distribution."""

import json
import os
import sys
import tarfile
from pathlib import Path

import pytest

from conftest import COMPILED_LICENCES, LICENCES, Machine, assert_exact, dist, only, readme

VENV = "venv"


@pytest.fixture(scope="module")
def installed(machine: Machine) -> Path:
    """Where the programs of an environment are that had nothing before."""
    (machine.bin / "python").symlink_to(sys.executable)
    machine.done("python", "-m", "venv", VENV)
    programs = machine.home / VENV / "bin"
    places = ["--no-index", "--only-binary", ":all:", "--find-links", dist()]
    machine.done(programs / "pip", "install", *places, "dodo-ingestion", "dodometer")
    return programs


def site_packages(machine: Machine) -> Path:
    (found,) = machine.home.glob(f"{VENV}/lib/python*/site-packages")
    return found


def version_of(pattern: str) -> str:
    return only(pattern).name.split("-")[1]


def test_the_readme_bills_two_calls(machine: Machine, installed: Path) -> None:
    machine.assert_bills(installed / "dodometer", installed / "python", "-c", readme("python"))


def test_nothing_else_is_pulled_in(machine: Machine, installed: Path) -> None:
    listing = json.loads(machine.done(installed / "pip", "list", "--format=json"))
    found = {package["name"] for package in listing} - {"pip", "setuptools"}
    assert found == {"dodo-ingestion", "dodometer"}


def test_the_library_is_typed_and_of_the_stable_abi(machine: Machine, installed: Path) -> None:
    assert installed.exists()
    package = site_packages(machine) / "dodo_ingestion"
    assert (package / "py.typed").exists()
    assert sorted(path.suffixes for path in package.glob("_native*")) == [
        [".abi3", ".so"],
        [".pyi"],
    ]
    assert "-cp310-abi3-" in only("dodo_ingestion-*.whl").name
    # Beside it, for pythons that refuse to import it.
    assert (package.with_name("dodo_ingestion_pytest") / "__init__.py").exists()


def test_the_wheels_carry_the_licences(machine: Machine, installed: Path) -> None:
    assert installed.exists()
    for name in ["dodometer", "dodo_ingestion"]:
        (information,) = site_packages(machine).glob(f"{name}-*.dist-info")
        licences = {path.name: path for path in information.rglob("LICENSE-*")}
        assert licences.keys() == COMPILED_LICENCES
        assert "\nring 0." in licences["LICENSE-THIRD-PARTY"].read_text()


def test_the_source_is_all_that_a_build_needs() -> None:
    source = only("dodo_ingestion-*.tar.gz")
    top = source.name.removesuffix(".tar.gz")
    with tarfile.open(source) as archive:
        names = {name.removeprefix(f"{top}/") for name in archive.getnames()}
    crates = ["bindings/pyo3", "crates/dodo-ingestion"]
    assert {f"{crate}/{file}" for crate in crates for file in ["Cargo.toml", "src/lib.rs"]} <= names
    python = {"pyproject.toml", "README.md", "src/dodo_ingestion/py.typed"}
    python.add("src/dodo_ingestion_pytest/__init__.py")
    assert python | LICENCES | {"Cargo.toml", "Cargo.lock", "PKG-INFO"} <= names
    assert not {name for name in names if name.endswith((".so", ".pyc")) or "xtask" in name}


def test_pip_installs_the_program(machine: Machine, installed: Path) -> None:
    assert_exact(machine.done(installed / "dodometer", "demo", "--seconds", "2", "--json"))


def test_they_are_the_versions_of_the_wheels(machine: Machine, installed: Path) -> None:
    version = version_of("dodometer-*.whl")
    assert machine.done(installed / "dodometer", "--version") == f"dodometer {version}\n"
    assert version_of("dodo_ingestion-*.whl") == version


def test_uvx_runs_the_program(machine: Machine) -> None:
    output = machine.done(
        os.environ["UVX"],
        *("--from", only("dodometer-*.whl"), "dodometer", "demo", "--seconds", "2", "--json"),
    )
    assert_exact(output)
