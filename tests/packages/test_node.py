"""The library from npm: the package, and the addon of this platform."""

import json
import os
import re
import shutil
import sys
import tarfile
from pathlib import Path

import pytest

from conftest import COMPILED_LICENCES, LICENCES, Machine, npm_packages, readme

DODOMETER = "node_modules/.bin/dodometer"
ARCHITECTURE = {"x86_64": "x64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


@pytest.fixture(scope="module")
def project(machine: Machine) -> Machine:
    """A project that has installed the library, and the meter to bill to."""
    machine.done("npm", "init", "--yes")
    machine.done("npm", "install", *npm_packages("dodo-ingestion"), *npm_packages("dodometer"))
    return machine


def test_the_readme_bills_two_calls(project: Machine) -> None:
    (project.home / "program.mjs").write_text(readme("js"))
    project.assert_bills(project.home / DODOMETER, "node", "program.mjs")


def test_the_readme_bills_two_calls_in_common_js(project: Machine) -> None:
    required = re.sub(r"import (\{.*?\}) from ('.*?');", r"const \1 = require(\2);", readme("js"))
    assert "require(" in required
    program = f"(async () => {{\n{required}}})();\n"
    (project.home / "program.cjs").write_text(program)
    project.assert_bills(project.home / DODOMETER, "node", "program.cjs")


def test_the_readme_bills_two_calls_in_typescript(project: Machine) -> None:
    (project.home / "typescript.mts").write_text(readme("js"))
    modules = Path(os.environ["NODE_MODULES"])
    for name in ["@types", "undici-types"]:
        (project.home / "node_modules" / name).symlink_to(modules / name)
    options = ["--strict", "--target", "es2022", "--module", "nodenext", "--types", "node"]
    project.done("node", modules / "typescript/bin/tsc", *options, "typescript.mts")
    project.assert_bills(project.home / DODOMETER, "node", "typescript.mjs")


def test_the_tarballs_have_what_is_needed_and_no_more() -> None:
    package, platform = npm_packages("dodo-ingestion")
    with tarfile.open(package) as archive:
        names = {name.removeprefix("package/") for name in archive.getnames()}
    assert {"package.json", "README.md", "COMPATIBILITY.md"} | LICENCES == {
        name for name in names if not name.startswith("dist/")
    }
    for kind in [".js", ".d.ts", ".mjs", ".d.mts"]:
        assert f"dist/index{kind}" in names
    with tarfile.open(platform) as archive:
        names = {name.removeprefix("package/") for name in archive.getnames()}
    assert names == {"package.json", "README.md", "dodo_ingestion.node"} | COMPILED_LICENCES


def test_the_manifests_belong_together(project: Machine) -> None:
    modules = project.home / "node_modules"
    manifest = json.loads((modules / "dodo-ingestion/package.json").read_text())
    assert not {"devDependencies", "scripts"} & set(manifest)
    (directory,) = (modules / "@dodo-ingestion").iterdir()
    platform = json.loads((directory / "package.json").read_text())
    assert platform["version"] == manifest["version"]
    assert manifest["optionalDependencies"][platform["name"]] == manifest["version"]
    assert set(manifest["optionalDependencies"].values()) == {manifest["version"]}
    assert (platform["os"], platform["cpu"]) == ([sys.platform], [ARCHITECTURE])
    assert platform.get("libc") == (["glibc"] if sys.platform == "linux" else None)


def assert_refused(machine: Machine, words: list[str], *before: str | Path) -> None:
    """Whether both ways to load the library end with an error that has the words."""
    for program in ["require('dodo-ingestion')", "import('dodo-ingestion')"]:
        finished = machine.run("node", *before, "-e", program)
        assert finished.returncode == 1
        for word in words:
            assert word in finished.stderr


def test_a_platform_that_was_left_out_is_told_of(machine: Machine, tmp_path: Path) -> None:
    alone = Machine(tmp_path, machine.environment)
    package, platform = npm_packages("dodo-ingestion")
    alone.done("npm", "init", "--yes")
    alone.done("npm", "install", "--omit=optional", package)
    name = platform.name.removeprefix("dodo-ingestion-").rsplit("-", 1)[0]
    here = f"{sys.platform}-{ARCHITECTURE}"
    words = [here, f"@dodo-ingestion/{name} is not installed", "--omit=optional", "package-lock"]
    assert_refused(alone, [*words, "npm install --include=optional"])


def elsewhere(directory: Path, setting: str) -> list[str | Path]:
    """Arguments with which Node believes to be on another platform."""
    (directory / "elsewhere.cjs").write_text(setting)
    return ["--require", directory / "elsewhere.cjs"]


def test_a_platform_that_there_is_not_is_told_of(project: Machine, tmp_path: Path) -> None:
    setting = "Object.defineProperty(process, 'arch', { value: 's390x' });"
    known = ["linux-x64-musl", "darwin-arm64", "rustup.rs", "cargo build", "dodo_ingestion.node"]
    words = [f"{sys.platform}-s390x", *known]
    assert_refused(project, words, *elsewhere(tmp_path, setting))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one C library")
def test_musl_is_known(project: Machine, tmp_path: Path) -> None:
    node = tmp_path / "node"
    node.write_bytes(b"\x7fELF" + bytes(800) + b"/lib/ld-musl-x86_64.so.1\0")
    setting = f"process.execPath = {json.dumps(str(node))};"
    words = ["with musl", f"@dodo-ingestion/linux-{ARCHITECTURE}-musl is not installed"]
    assert_refused(project, words, *elsewhere(tmp_path, setting))


def test_an_addon_that_cannot_be_loaded_is_told_of(project: Machine, tmp_path: Path) -> None:
    broken = Machine(tmp_path, project.environment)
    modules = tmp_path / "node_modules"
    for name in ["dodo-ingestion", "@dodo-ingestion"]:
        shutil.copytree(project.home / "node_modules" / name, modules / name)
    (addon,) = modules.glob("@dodo-ingestion/*/dodo_ingestion.node")
    addon.write_bytes(b"no library")
    assert_refused(broken, [f"{addon} cannot be loaded", f"{sys.platform}-{ARCHITECTURE}"])
