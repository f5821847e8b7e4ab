"""What a slice task reads, and how it sends its batches on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from matih_ray.execution import tasks
from matih_ray.execution.tasks import STAGED_BYTES, SliceTask, announced, reading_policy, together
from matih_ray.mappers import find_mapper
from matih_ray.model.ids import EndpointId, RunId, TenantId, UnitId
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.policy import DataMode, IngestionPolicy
from matih_ray.model.unit import ColumnDescriptor, EndpointUnitDescriptor
from matih_ray.registry import load_registry
from matih_ray.settings import Settings
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.confluence import ConfluenceSource
from matih_ray.sources.jira import JiraSource
from matih_ray.sources.onedrive import OneDriveSource

ROW_BYTES = 8
PLUGINS = load_registry()


def batch(size_bytes: int, first: int = 0) -> pa.RecordBatch:
    numbers = pa.array(range(first, first + size_bytes // ROW_BYTES), pa.int64())
    return pa.record_batch([numbers], ["n"])


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ([], []),
        ([8], [1]),
        ([STAGED_BYTES], [1]),
        ([STAGED_BYTES // 3 + ROW_BYTES] * 7, [3, 3, 1]),
        ([8, 3 * STAGED_BYTES, 8, 8], [2, 2]),
        ([STAGED_BYTES - 8, 8, 8], [2, 1]),
    ],
)
def test_batches_go_on_together_in_their_order(sizes: list[int], groups: list[int]) -> None:
    given = [batch(size, number) for number, size in enumerate(sizes)]
    staged = list(together(given))
    assert [len(one.batches) for one in staged] == groups
    assert [sent for one in staged for sent in one.batches] == given


def test_batches_of_a_slow_source_do_not_wait_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "STAGED_S", 0.05)

    def slow() -> Iterator[pa.RecordBatch]:
        for number in range(4):
            yield batch(8, number)
            time.sleep(0.06)

    assert [len(one.batches) for one in together(slow())] == [2, 2]


def test_what_was_sent_on_is_kept_by_nobody(tmp_path: Path) -> None:
    def source() -> Iterator[pa.RecordBatch]:
        for _ in range(8):
            yield batch(STAGED_BYTES)

    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    task = told("http.jira", described("jira.issues", "id"))
    for one in announced(together(source()), Settings(home=tmp_path), task):
        del one
        assert pool.bytes_allocated() - before < STAGED_BYTES / 2


def test_a_task_takes_what_ray_sends_it(tmp_path: Path) -> None:
    given = [batch(STAGED_BYTES, number) for number in range(3)]
    task = told("http.jira", described("jira.issues", "id"))
    yielded = announced(together(given), Settings(home=tmp_path), task)
    taken = [next(yielded), *(yielded.send({"a": "report"}) for _ in given[1:])]
    assert [one for staged in taken for one in staged.batches] == given


def described(unit_id: str, *columns: str) -> EndpointUnitDescriptor:
    return EndpointUnitDescriptor(
        endpoint_id=EndpointId("endpoint"),
        unit_id=UnitId(unit_id),
        namespace="jira",
        name=unit_id,
        kind="objects",
        columns=tuple(
            ColumnDescriptor(name=name, native_type="text", arrow_type="string") for name in columns
        ),
        primary_key=("id",),
    )


def told(vendor: str, unit: EndpointUnitDescriptor, mode: DataMode = DataMode.CDM) -> SliceTask:
    return SliceTask(
        tenant_id=TenantId("tenant"),
        run_id=RunId("run"),
        endpoint_id=unit.endpoint_id,
        unit=unit,
        slice=IngestionSlice(key="slice", sequence=0, params={}),
        policy=IngestionPolicy(mode=mode),
        staging_provider_id="object_store",
        vendor=vendor,
    )


def test_only_what_is_mapped_is_read() -> None:
    columns = ("id", "_source_version", "_deleted", "summary", "description_adf", "raw")
    task = told("http.jira", described("jira.issues", *columns))
    assert reading_policy(PLUGINS, task).columns == columns[:4]


@pytest.mark.parametrize(
    ("unit_id", "mode"), [("jira.issues", DataMode.RAW), ("jira.unmapped", DataMode.CDM)]
)
def test_all_is_read_of_what_is_not_mapped(unit_id: str, mode: DataMode) -> None:
    task = told("http.jira", described(unit_id, "id", "raw"), mode)
    assert reading_policy(PLUGINS, task) == task.policy


# Where there is no server: nothing is asked of it.
SITE = {"baseUrl": "http://127.0.0.1:1", "user": "u"}
SOURCES = {
    "http.jira": (JiraSource, SITE, "apiToken"),
    "http.confluence": (ConfluenceSource, SITE, "apiToken"),
    "http.onedrive": (
        OneDriveSource,
        {"directoryId": "d", "clientId": "c", "drives": ["d"]},
        "clientSecret",
    ),
}
MAPPED = [
    (family, unit_id)
    for family in SOURCES
    for unit_id in PLUGINS.resolve("mappers", family).mappers
]


@pytest.mark.parametrize(("family", "unit_id"), MAPPED)
def test_a_source_gives_what_its_mapper_needs(family: str, unit_id: str) -> None:
    type_, config, secret = SOURCES[family]
    spec = EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type=family,
        config=config,
        secrets={secret: "s"},
    )
    with contextlib.closing(type_(spec)) as source:
        task = told(family, source.describe_unit(UnitId(unit_id)))
        schema = source.read_schema(task.unit, reading_policy(PLUGINS, task))
    mapper = find_mapper(PLUGINS, family, unit_id)
    assert mapper is not None
    assert mapper.reads <= set(schema.names)
    assert "raw" not in schema.names
