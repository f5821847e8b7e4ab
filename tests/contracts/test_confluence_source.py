"""Confluence under the source contract: pages of two spaces, in slices of a hundred."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.sources.confluence import ConfluenceSource
from matih_ray.testing.contracts.source import SourceCase, SourceContract
from matih_ray.testing.devstack.confluence_site import TOKEN, ConfluenceSite
from tests.integration.confluence_lab import spec


@pytest.fixture(scope="module")
def site() -> Iterator[ConfluenceSite]:
    with ConfluenceSite() as site:
        site.add_space("2", "OPS", "Operations")
        for number in range(520):
            if number % 7 == 0:
                site.tick()
            site.put(str(1000 + number), f"page {number}", "<p>body</p>", "12"[number % 2])
        site.tick(hours=1)
        yield site


class TestPages(SourceContract):
    @pytest.fixture
    def case(self, site: ConfluenceSite) -> SourceCase:
        return SourceCase(
            build=lambda: ConfluenceSource(spec(site)),
            unit_id="confluence.pages",
            unknown_unit_id="confluence.nothing",
            empty_unit_id="confluence.comments",
            target_rows=100,
            policies=(IngestionPolicy(run_mode=RunMode.INCREMENTAL),),
            open_connections=site.connections,
            secret=TOKEN,
        )
