"""The plugin that pytest loads where this package is installed: the fixture `dodo_meter`."""

from collections.abc import Iterator

import pytest

from dodo_ingestion.testing import Meter


@pytest.fixture(scope="session")
def _dodo_meter() -> Iterator[Meter]:
    with Meter() as meter:
        yield meter


@pytest.fixture
def dodo_meter(_dodo_meter: Meter) -> Iterator[Meter]:
    """Give a local meter to bill to, as on its first day: see `dodo_ingestion.testing.Meter`."""
    _dodo_meter.reset()
    yield _dodo_meter
    _dodo_meter.disconnect()
