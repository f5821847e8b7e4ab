"""Both ways of reading COPY: `from tests.integration.postgres_ways import way` runs all tests of a
module by each, whatever their process has read before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from matih_ray.sources.postgres import copy_kernels

NEVER = 1 << 62
WAYS = ("drivers", "kernels")


@contextmanager
def reading_by(way: str) -> Iterator[None]:
    """One of the ways for a while."""
    after = -1 if way == "kernels" else NEVER
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copy_kernels, "KERNELS_AFTER_BYTES", after)
        yield


@pytest.fixture(scope="module", params=WAYS, autouse=True)
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    with reading_by(request.param):
        yield
