"""Both ways of reading COPY: `from tests.integration.postgres_ways import way` runs all tests of a
module by each, whatever their process has read before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from matih_ray.sources.postgres import copy_kernels

NEVER = 1 << 62


@pytest.fixture(scope="module", params=["drivers", "kernels"], autouse=True)
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    after = -1 if request.param == "kernels" else NEVER
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copy_kernels, "KERNELS_AFTER_BYTES", after)
        yield
