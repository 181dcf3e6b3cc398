"""The plugin that pytest loads where `dodo-ingestion` is installed: the fixture `dodo_meter`.

It is beside the package and not in it, and imports it for a test that asks for the meter: there are
interpreters that the package refuses, and tests of other things that run there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dodo_ingestion.testing import Meter


@pytest.fixture(scope="session")
def _dodo_meter() -> Iterator[Meter]:
    from dodo_ingestion.testing import Meter  # noqa: PLC0415, RUF100

    with Meter() as meter:
        yield meter


@pytest.fixture
def dodo_meter(_dodo_meter: Meter) -> Iterator[Meter]:
    """Give a local meter to bill to, as on its first day: see `dodo_ingestion.testing.Meter`."""
    _dodo_meter.reset()
    yield _dodo_meter
    _dodo_meter.disconnect()
