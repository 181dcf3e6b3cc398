"""Where the local meter is looked for."""

import sysconfig
from pathlib import Path

import pytest

from dodo_ingestion._dodometer import find_dodometer


def program(directory: Path) -> str:
    path = directory / "dodometer"
    path.touch(mode=0o755)
    return str(path)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The directories of this environment's programs and of PATH, with nothing in them yet."""
    scripts, path = tmp_path / "scripts", tmp_path / "path"
    scripts.mkdir()
    path.mkdir()
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(scripts))
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.delenv("DODOMETER_BIN", raising=False)
    return scripts, path


def test_the_nearest_is_taken(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    scripts, path = places
    on_path = program(path)
    assert find_dodometer() == on_path
    installed = program(scripts)
    assert find_dodometer() == installed
    monkeypatch.setenv("DODOMETER_BIN", "/named")
    assert find_dodometer() == "/named"


@pytest.mark.usefixtures("places")
def test_without_one_it_is_said_how_to_get_it() -> None:
    with pytest.raises(FileNotFoundError, match="pip install dodometer"):
        find_dodometer()
