"""Mappers: batches of what a source declares become batches of a model, column by column."""

from __future__ import annotations

import pyarrow as pa
import pytest

from matih_ray.errors import ConfigurationError, MappingError
from matih_ray.mappers import MapperFamily, apply_cdm, find_mapper, register_cdm_mapper
from matih_ray.mappers.expressions import Column, Origin
from matih_ray.mappers.registry import CdmMapper
from matih_ray.model.cdm import CDM_MODELS
from matih_ray.model.cdm.work import ITEM, SPRINT
from matih_ray.model.ids import EndpointId, RunId, TenantId, UnitId
from matih_ray.registry import load_registry
from matih_ray.sources.confluence import schemas as confluence
from matih_ray.sources.jira import schemas as jira
from matih_ray.sources.onedrive import schemas as onedrive

PLUGINS = load_registry()
SOURCES = {"http.confluence": confluence, "http.jira": jira, "http.onedrive": onedrive}
UNITS = [
    (family, unit_id, model_id)
    for family, module in SOURCES.items()
    for unit_id, model_id in module.CDM_MODELS.items()
]


def origin(family: str, unit_id: str) -> Origin:
    return Origin(TenantId("acme"), EndpointId("e1"), family, UnitId(unit_id), RunId("r1"))


@pytest.mark.parametrize(("family", "unit_id", "model_id"), UNITS)
def test_every_unit_that_names_a_model_has_its_mapper(family: str, unit_id: str, model_id: str):
    mapper = find_mapper(PLUGINS, family, unit_id)
    assert mapper is not None
    assert mapper.model.model_id == model_id


@pytest.mark.parametrize("family", SOURCES)
def test_nothing_is_mapped_that_a_source_does_not_offer(family: str):
    mapped = PLUGINS.resolve("mappers", family).mappers
    assert set(mapped) == set(SOURCES[family].CDM_MODELS)


@pytest.mark.parametrize(("family", "unit_id", "model_id"), UNITS)
def test_a_mapper_reads_what_the_source_declares(family: str, unit_id: str, model_id: str):
    schema = SOURCES[family].SCHEMAS[unit_id]
    mapper = find_mapper(PLUGINS, family, unit_id)
    assert mapper.reads <= set(schema.names)
    mapped = apply_cdm(PLUGINS, origin(family, unit_id), empty(schema))
    assert mapped.schema.equals(CDM_MODELS[model_id].schema)


def empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema)


def issue(**columns: object) -> dict[str, object]:
    return {"id": "10001", "_source_version": 5, "_deleted": False, **columns}


def mapped(rows: list[dict[str, object]], unit_id: str = "jira.issues") -> list[dict[str, object]]:
    batch = pa.RecordBatch.from_pylist(rows, jira.SCHEMAS[unit_id])
    return apply_cdm(PLUGINS, origin("http.jira", unit_id), batch).to_pylist()


def test_a_row_says_what_it_is_and_where_it_came_from():
    [row] = mapped([issue()])
    assert {name: row[name] for name in ITEM.schema.names[:9]} == {
        "cdm_id": "work.item:e1:10001",
        "tenant_id": "acme",
        "source_endpoint_id": "e1",
        "source_system": "http.jira",
        "source_unit_id": "jira.issues",
        "source_id": "10001",
        "source_version": 5,
        "run_id": "r1",
        "is_deleted": False,
    }


def test_what_is_gone_has_no_version_and_neither_has_what_the_source_does_not_number():
    rows = [issue(), issue(id="10002", _deleted=True)]
    assert [row["source_version"] for row in mapped(rows)] == [5, None]
    assert [row["source_version"] for row in mapped(rows, "jira.projects")] == [None, None]


def test_references_are_the_ids_of_the_rows_that_they_mean():
    [row] = mapped([issue(project_id="7", parent_id="9", sprint_ids=["3", "4"])])
    [project] = mapped([issue(id="7")], "jira.projects")
    [sprint] = mapped([issue(id="3")], "jira.sprints")
    assert row["project_cdm_id"] == project["cdm_id"]
    assert row["parent_cdm_id"] == "work.item:e1:9"
    assert row["sprint_cdm_ids"][0] == sprint["cdm_id"]
    assert row["assignee_cdm_id"] is None


def test_lists_keep_their_rows_whatever_the_batch_was_cut_from():
    lists = [None, ["1"], [], ["2", "3"], None, ["4"]]
    batch = pa.RecordBatch.from_pylist(
        [issue(id=str(n), sprint_ids=one) for n, one in enumerate(lists)], jira.ISSUES
    )
    prefix = "work.sprint:e1:"
    for start in range(len(lists)):
        cut = batch.slice(start, 3)
        rows = apply_cdm(PLUGINS, origin("http.jira", "jira.issues"), cut).to_pylist()
        expected = [one and [prefix + id_ for id_ in one] for one in lists[start : start + 3]]
        assert [row["sprint_cdm_ids"] for row in rows] == expected
    assert SPRINT.model_id == "cdm.work.sprint"


def test_mapping_twice_gives_the_same():
    rows = [issue(id=str(n), summary=f"s {n}") for n in range(10)]
    assert mapped(rows) == mapped(rows)


def test_a_comment_that_is_not_public_is_internal_and_unknown_stays_unknown():
    flags = [True, False, None]
    rows = [issue(id=str(n), is_public=flag) for n, flag in enumerate(flags)]
    assert [row["is_internal"] for row in mapped(rows, "jira.comments")] == [False, True, None]


def test_a_missing_column_is_named():
    batch = pa.RecordBatch.from_pylist([issue()], jira.ISSUES).drop_columns(["summary"])
    with pytest.raises(MappingError, match="summary") as raised:
        apply_cdm(PLUGINS, origin("http.jira", "jira.issues"), batch)
    assert raised.value.context["column"] == "summary"


def test_a_column_of_another_type_is_named():
    schema = jira.ISSUES.set(
        jira.ISSUES.get_field_index("updated"), pa.field("updated", pa.string())
    )
    batch = pa.RecordBatch.from_pylist([issue()], schema)
    with pytest.raises(MappingError, match="updated_at"):
        apply_cdm(PLUGINS, origin("http.jira", "jira.issues"), batch)


def test_a_row_without_an_id_is_refused():
    schema = pa.schema([field.with_nullable(True) for field in jira.ISSUES])
    batch = pa.RecordBatch.from_pylist([issue(id=None)], schema)
    with pytest.raises(MappingError, match="no id"):
        apply_cdm(PLUGINS, origin("http.jira", "jira.issues"), batch)


def test_a_unit_without_a_mapper_passes_if_it_speaks_the_model_already():
    unknown = origin("jdbc.postgres", "public.items")
    rows = pa.RecordBatch.from_pylist(mapped([issue()]), ITEM.schema)
    assert apply_cdm(PLUGINS, unknown, rows, ITEM.model_id) is rows
    for default in (None, "cdm.work.project", "cdm.no.such"):
        with pytest.raises(MappingError, match=r"nothing maps public\.items"):
            apply_cdm(PLUGINS, unknown, rows, default)


def test_a_unit_is_mapped_once():
    class Family(MapperFamily):
        """A family of its own."""

    mapper = CdmMapper(ITEM, {"summary": Column("title")})
    register_cdm_mapper(Family, "u", mapper)
    assert Family.mappers == {"u": mapper}
    with pytest.raises(ConfigurationError, match="twice"):
        register_cdm_mapper(Family, "u", mapper)


def test_a_mapper_of_a_column_that_the_model_has_not_is_refused_at_import():
    with pytest.raises(ConfigurationError, match="sumary"):
        CdmMapper(ITEM, {"sumary": Column("title")})
