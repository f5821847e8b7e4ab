"""The knowledge base: what rows mean, kept once, found by words and followed by edges."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import SecretStr

from matih_ray.control import knowledge
from matih_ray.control.authorization import Principal, Role
from matih_ray.control.ports import Ports
from matih_ray.errors import FencedError, NotFoundError, ValidationError
from matih_ray.model.cdm import CDM_MODELS
from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.ids import EndpointId, RunId, SinkId, TenantId, UnitId
from matih_ray.model.knowledge import (
    MAX_SUMMARY_CHARS,
    MAX_TITLE_CHARS,
    NodeKind,
    dataset_id,
    stored_id,
)
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.policy import WriteMode
from matih_ray.model.receipt import CommitMarker, WriteReceipt
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.registry import load_registry
from matih_ray.settings import Settings
from matih_ray.sinks.base import CommitOutcome, SinkTarget
from matih_ray.sinks.knowledge_base import KnowledgeBaseSink
from matih_ray.sinks.knowledge_base.rules import RULES
from matih_ray.state.base import EndpointRecord
from matih_ray.state.factory import open_stores
from matih_ray.state.sql import SqlMetadataStore, open_metadata
from matih_ray.testing.devstack.postgres import PostgresServer
from matih_ray.testing.fakes import RecordingLauncher

ACME, OTHER = TenantId("acme"), TenantId("other")
JIRA = EndpointId("jira")
ITEM = "cdm.work.item"


def node(source_id: str, model: str = ITEM) -> str:
    return f"{model}:{JIRA}:{source_id}"


def rows(*given: dict[str, Any], model: str = ITEM, tenant: TenantId = ACME) -> pa.RecordBatch:
    """Rows of a model: `id`, `version` and `gone` are the envelope's, the rest its columns."""
    found = []
    for one in given:
        row = dict(one)
        id_ = str(row.pop("id"))
        found.append(
            {
                "cdm_id": node(id_, model),
                "tenant_id": tenant,
                "source_endpoint_id": JIRA,
                "source_system": "http.jira",
                "source_unit_id": "unit",
                "source_id": id_,
                "source_version": row.pop("version", 1),
                "run_id": "run",
                "is_deleted": row.pop("gone", False),
                **row,
            }
        )
    return pa.RecordBatch.from_pylist(found, CDM_MODELS[model].schema)


class Base:
    """One metadata store, and what a run does with it."""

    def __init__(self, store: SqlMetadataStore, tmp_path: Path) -> None:
        self.store = store
        self.runs = 0
        settings = Settings(home=tmp_path)
        stores = open_stores(settings)
        self.ports = Ports(
            settings=settings,
            registry=load_registry(),
            metadata=store,
            kv=stores.kv,
            credentials=stores.credentials,
            launcher=RecordingLauncher(),
        )
        for tenant in (ACME, OTHER):
            now = self.ports.clock()
            store.put_endpoint(
                EndpointRecord(
                    endpoint_id=JIRA,
                    tenant_id=tenant,
                    name="jira",
                    type="JIRA",
                    config={},
                    created_at=now,
                    updated_at=now,
                )
            )

    def target(self, model: str = ITEM, tenant: TenantId = ACME) -> SinkTarget:
        stream = StreamKey(
            tenant_id=tenant,
            vendor="http.jira",
            endpoint_id=JIRA,
            unit_id=UnitId(model),
            sink_id=SinkId("kb"),
        )
        schema = CDM_MODELS[model].schema
        return SinkTarget(stream, (tenant, model), schema, WriteMode.APPEND)

    def load(self, *batches: pa.RecordBatch, model: str = ITEM, tenant: TenantId = ACME) -> None:
        """A run with a slice for each batch."""
        self.runs += 1
        sink = KnowledgeBaseSink.over(self.store, tenant)
        prepared = sink.prepare(self.target(model, tenant))
        receipts = [write(sink, prepared, one, n) for n, one in enumerate(batches)]
        outcome = sink.commit(prepared, receipts, marker(1, run=f"run {self.runs}"))
        assert outcome is CommitOutcome.APPLIED

    def search(self, text: str, tenant: TenantId = ACME, **chosen: Any) -> list[str]:
        page = knowledge.search(reader(tenant), self.ports, tenant, text, **chosen)
        return [one.title for one in page.items]

    def neighbours(self, source_id: str, model: str = ITEM) -> list[tuple[str, bool, str]]:
        page = knowledge.neighbours(reader(ACME), self.ports, ACME, node(source_id, model))
        return [(one.kind, one.outgoing, one.node_id) for one in page.items]

    def everything(self) -> list[Any]:
        with self.store.database.read("look") as connection:
            return [
                connection.exec_driver_sql(f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4").all()
                for table in ("kb_nodes", "kb_edges", "kb_stages")
            ]


def reader(tenant: TenantId) -> Principal:
    return Principal("tests", tenant, frozenset({Role.VIEWER}))


def marker(sequence: int, *, run: str = "run", epoch: int = 1) -> CommitMarker:
    return CommitMarker(run_id=RunId(run), epoch=epoch, sequence=sequence, through=sequence)


def write(
    sink: KnowledgeBaseSink, prepared: Any, batch: pa.RecordBatch, n: int = 0
) -> WriteReceipt:
    writer = sink.writer(prepared, IngestionSlice(key=f"s-{n}", sequence=n))
    writer.write(batch)
    return writer.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def base(
    request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer
) -> Iterator[Base]:
    url = f"sqlite:///{tmp_path}/kb.db"
    if request.param == "postgresql":
        name = f"kb_{tmp_path.name}".replace("-", "_")[:50]
        postgres.create_database(name)
        url = f"postgresql://{postgres.user}@{postgres.host}:{postgres.port}/{name}"
    store = open_metadata(SecretStr(url))
    yield Base(store, tmp_path)
    store.close()


ISSUES = rows(
    {
        "id": 1,
        "item_key": "SHOP-1",
        "summary": "Checkout fails at 100% load",
        "description": "long " * 1000,
        "project_cdm_id": node("10", "cdm.work.project"),
        "assignee_cdm_id": node("ann", "cdm.work.user"),
        "sprint_cdm_ids": [node("7", "cdm.work.sprint")],
        "url": "https://jira/SHOP-1",
    },
    {"id": 2, "item_key": "SHOP-2", "summary": "Pay by card", "parent_cdm_id": node("1")},
)
PROJECTS = rows({"id": 10, "name": "Shop", "project_key": "SHOP"}, model="cdm.work.project")


def test_rows_become_short_nodes_and_edges(base: Base) -> None:
    base.load(ISSUES)
    base.load(PROJECTS, model="cdm.work.project")
    found = knowledge.node(reader(ACME), base.ports, ACME, node("1"))
    assert (found.kind, found.key, found.url) == (NodeKind.ISSUE, "SHOP-1", "https://jira/SHOP-1")
    assert found.summary is not None
    assert len(found.summary) <= MAX_SUMMARY_CHARS
    assert len(found.title) <= MAX_TITLE_CHARS
    assert base.neighbours("1") == [
        ("assigned_to", True, node("ann", "cdm.work.user")),
        ("in_project", True, node("10", "cdm.work.project")),
        ("in_sprint", True, node("7", "cdm.work.sprint")),
        ("part_of", False, node("2")),
    ]
    page = knowledge.neighbours(reader(ACME), base.ports, ACME, node("1"))
    known = {one.node_id: one.node for one in page.items}
    assert known[node("ann", "cdm.work.user")] is None, "its unit was not loaded"
    project = known[node("10", "cdm.work.project")]
    assert project is not None
    assert project.title == "Shop"


def test_loading_again_changes_nothing_and_older_never_replaces_newer(base: Base) -> None:
    base.load(ISSUES)
    before = base.everything()
    base.load(ISSUES)
    base.load(ISSUES.slice(0, 1), ISSUES.slice(1))
    assert base.everything() == before
    base.load(rows({"id": 1, "version": 3, "summary": "new"}))
    assert base.neighbours("1") == [("part_of", False, node("2"))]
    base.load(rows({"id": 1, "version": 2, "summary": "late"}))
    assert base.search("new") == ["new"]
    base.load(rows({"id": 1, "version": 4, "gone": True}))
    base.load(rows({"id": 1, "version": 3, "summary": "new"}))
    assert base.search("new") == []
    with pytest.raises(NotFoundError):
        knowledge.node(reader(ACME), base.ports, ACME, node("1"))


def test_words_are_found_as_they_are_written_and_pages_go_on(base: Base) -> None:
    base.load(ISSUES)
    base.load(PROJECTS, model="cdm.work.project")
    assert base.search("CHECKOUT load") == ["Checkout fails at 100% load"]
    assert base.search("100%") == ["Checkout fails at 100% load"]
    assert base.search("100_") == base.search("checkout card") == []
    assert base.search("shop", kinds=(NodeKind.PROJECT,)) == ["Shop"]
    pages = [base.search("shop", offset=n, limit=1) for n in range(4)]
    assert [len(page) for page in pages] == [1, 1, 1, 0]
    for wrong in ("", "  ", "x" * 1000):
        with pytest.raises(ValidationError):
            base.search(wrong)


def test_a_completed_run_tells_where_a_dataset_comes_from_and_goes_to(base: Base) -> None:
    unit = EndpointUnitDescriptor(
        endpoint_id=JIRA, unit_id=UnitId("jira.projects"), namespace="jira", name="projects"
    )
    base.store.put_unit(ACME, unit)
    for sink in ("iceberg", "kb", "iceberg"):
        before = base.everything()
        stream = base.target().stream.model_copy(
            update={"unit_id": unit.unit_id, "sink_id": SinkId(sink)}
        )
        knowledge.note_lineage(base.ports, stream)
    assert base.everything() == before
    batch = rows({"id": 10, "name": "Shop"}, model="cdm.work.project")
    position = batch.schema.get_field_index("source_unit_id")
    units = pa.array(["jira.projects"])
    batch = batch.set_column(position, batch.schema.field(position), units)
    base.load(batch, model="cdm.work.project")
    found = knowledge.neighbours(reader(ACME), base.ports, ACME, dataset_id(JIRA, unit.unit_id))
    told = [(one.kind, one.outgoing, one.node and one.node.title) for one in found.items]
    assert told == [
        ("read_from", False, "Shop"),
        ("loaded_into", True, "iceberg"),
        ("loaded_into", True, "kb"),
        ("part_of", True, "jira"),
    ]


def test_a_tenant_sees_nothing_of_another(base: Base) -> None:
    base.load(ISSUES)
    assert base.search("checkout", OTHER) == []
    with pytest.raises(NotFoundError):
        knowledge.node(reader(OTHER), base.ports, OTHER, node("1"))
    assert knowledge.path(reader(OTHER), base.ports, OTHER, node("1"), node("2")).nodes == ()
    base.store.delete_endpoint(OTHER, JIRA)
    assert base.search("checkout") == ["Checkout fails at 100% load"]
    base.store.delete_endpoint(ACME, JIRA)
    assert base.everything() == [[], [], []]


def test_the_shortest_path_is_found_within_its_depth(base: Base) -> None:
    chain = [{"id": n, "summary": f"{n}", "parent_cdm_id": node(str(n + 1))} for n in range(9)]
    base.load(rows(*chain, {"id": 9, "summary": "9"}))

    def path(end: int, depth: int) -> tuple[list[str], bool]:
        found = knowledge.path(
            reader(ACME), base.ports, ACME, node("0"), node(str(end)), max_depth=depth
        )
        assert len(found.edges) == max(len(found.nodes) - 1, 0)
        return [one.title for one in found.nodes], found.complete

    assert path(3, 6) == (["0", "1", "2", "3"], True)
    assert path(3, 2) == ([], True)
    assert path(0, 1) == (["0"], True)
    base.load(rows({"id": 0, "version": 2, "summary": "0", "parent_cdm_id": node("3")}))
    assert path(3, 6) == (["0", "3"], True)
    with pytest.raises(ValidationError):
        path(3, 100)


def test_a_search_that_meets_a_hub_says_that_it_gave_up(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knowledge, "MAX_EDGES_SEEN", 50)
    hub = node("10", "cdm.work.project")
    base.load(rows(*({"id": n, "summary": f"{n}", "project_cdm_id": hub} for n in range(120))))
    found = knowledge.path(reader(ACME), base.ports, ACME, hub, node("none"))
    assert (found.nodes, found.complete) == ((), False)


def test_a_commit_counts_once_and_two_owners_end_as_one(base: Base) -> None:
    sink = KnowledgeBaseSink.over(base.store, ACME)
    prepared = sink.prepare(base.target())
    receipt = write(sink, prepared, ISSUES)
    assert base.search("checkout") == [], "nothing is seen before its commit"
    assert sink.last_marker(prepared) is None
    assert sink.commit(prepared, [receipt], marker(1)) is CommitOutcome.APPLIED
    assert sink.commit(prepared, [receipt], marker(1)) is CommitOutcome.ALREADY_APPLIED
    assert sink.last_marker(prepared) == marker(1)
    late = write(sink, prepared, rows({"id": 3, "summary": "late"}))
    for wrong in (marker(1, epoch=2), marker(3), marker(1, run="other")):
        with pytest.raises(FencedError):
            sink.commit(prepared, [late], wrong)
    assert base.search("late") == []
    sink.abort(prepared, [late])
    write(sink, prepared, rows({"id": 4, "summary": "abandoned"}))
    base.load(rows({"id": 5, "summary": "next"}))
    assert base.everything()[2] == [], "stages of dead writers go with the next run's commit"


def test_every_rule_reads_columns_of_its_model_and_no_bulk() -> None:
    for model_id, rule in RULES.items():
        assert set(rule.columns) <= set(CDM_MODELS[model_id].schema.names)
        assert "body" not in rule.columns
        assert "email" not in rule.columns
    assert not set(RULES) & {"cdm.work.comment", "cdm.work.worklog", "cdm.doc.revision"}
    long = "x" * 5000
    assert stored_id(long) != stored_id(long + "y")
    assert len(stored_id(long)) < 500
