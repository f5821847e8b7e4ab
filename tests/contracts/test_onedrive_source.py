"""OneDrive under the source contract: the delta of a drive in many pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.sources.onedrive import OneDriveSource
from matih_ray.testing.contracts.source import SourceCase, SourceContract
from matih_ray.testing.devstack.graph_drives import SECRET, GraphDrives
from tests.integration.onedrive_lab import spec


@pytest.fixture(scope="module")
def graph() -> Iterator[GraphDrives]:
    with GraphDrives() as graph:
        graph.add_drive("b!other")
        for number in range(30):
            graph.put(f"f{number}", f"folder {number}", is_folder=True)
        for number in range(1000):
            graph.put(f"i{number}", f"file {number}", f"f{number % 30}", size=number)
            graph.put(f"i{number}", f"file {number}", drive="b!other")
        yield graph


class TestItems(SourceContract):
    # a drive always has its root
    test_an_empty_unit_reads_as_nothing = None

    @pytest.fixture
    def case(self, graph: GraphDrives) -> SourceCase:
        asked = spec(graph, pageSize=100, drives=["b!shop", "b!other"])
        return SourceCase(
            build=lambda: OneDriveSource(asked),
            unit_id="onedrive.items",
            unknown_unit_id="onedrive.nothing",
            target_rows=300,
            policies=(IngestionPolicy(run_mode=RunMode.INCREMENTAL),),
            open_connections=graph.connections,
            secret=SECRET,
        )
