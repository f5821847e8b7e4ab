"""Data mode `cdm`: what is checked before a run, and making a sink ready."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from matih_ray.control.authorization import Principal, Role
from matih_ray.control.cdm_sinks import check_data_mode, provision_cdm_sink
from matih_ray.control.loads import LoadRequest, checked_load
from matih_ray.control.ports import Ports
from matih_ray.control.unit_configurations import UnitChange, configure_unit
from matih_ray.errors import (
    CdmModelMissingError,
    CdmModelUnsupportedError,
    CdmSinkNotProvisionedError,
    CdmSinkRequiredError,
    ForbiddenError,
    NotFoundError,
    ValidationError,
)
from matih_ray.model.cdm import CDM_MODELS, covers
from matih_ray.model.ids import EndpointId, SinkId, TenantId, UnitId
from matih_ray.model.policy import DataMode, IngestionPolicy, RunMode, WriteMode
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.registry import BUILT_INS, Registry
from matih_ray.settings import Settings
from matih_ray.state.base import EndpointRecord
from matih_ray.state.factory import open_stores
from matih_ray.testing.devstack.postgres import PostgresServer
from matih_ray.testing.fakes import RecordingLauncher

TENANT = TenantId("acme")
ADMIN = Principal("tests", TENANT, frozenset({Role.ADMIN}))
CDM = IngestionPolicy(mode=DataMode.CDM)
SOURCE, SINK = EndpointId("source"), SinkId("sink")
PACKAGE = Path(__file__).parents[2] / "matih_ray"


class NamesOnlySink:
    """A plugin that takes a model and has nowhere to put it."""

    supported_cdm_models = ("cdm.*",)


@pytest.fixture
def ports(tmp_path: Path, postgres: PostgresServer) -> Iterator[Ports]:
    settings = Settings(home=tmp_path)
    stores = open_stores(settings)
    sinks = {**BUILT_INS["sinks"], "names_only": f"{__name__}:NamesOnlySink"}
    ports = Ports(
        settings=settings,
        registry=Registry({**BUILT_INS, "sinks": sinks}),
        metadata=stores.metadata,
        kv=stores.kv,
        credentials=stores.credentials,
        launcher=RecordingLauncher(),
    )
    database = f"sinks_{tmp_path.name.replace('-', '_')}"[:60]
    postgres.create_database(database)
    url = f"postgresql://{postgres.user}@{postgres.host}:{postgres.port}/{database}"
    store(ports, SOURCE, "JIRA", {})
    store(ports, EndpointId(SINK), "cdm.jdbc", {"connectionUrl": url})
    for name, model_id in (("jira.issues", "cdm.work.item"), ("jira.statuses", None)):
        ports.metadata.put_unit(
            TENANT,
            EndpointUnitDescriptor(
                endpoint_id=SOURCE,
                unit_id=UnitId(name),
                namespace="jira",
                name=name,
                cdm_model_id=model_id,
            ),
        )
    yield ports
    stores.close()


def store(ports: Ports, endpoint_id: EndpointId, type_: str, config: dict[str, object]) -> None:
    now = ports.clock()
    ports.metadata.put_endpoint(
        EndpointRecord(
            endpoint_id=endpoint_id,
            tenant_id=TENANT,
            name=endpoint_id,
            type=type_,
            config=config,
            created_at=now,
            updated_at=now,
        )
    )


def check(ports: Ports, sink: str = SINK, unit: str = "jira.issues", policy=CDM) -> None:
    request = LoadRequest(
        endpoint_id=SOURCE, unit_id=UnitId(unit), sink_id=SinkId(sink), policy=policy
    )
    checked_load(ports, TENANT, request)


def provision(ports: Ports, model_id: str = "cdm.work.item", sink: str = SINK):
    return provision_cdm_sink(ADMIN, ports, TENANT, SinkId(sink), model_id)


# --- the three checks


def test_check_one_the_unit_must_have_a_model(ports: Ports):
    with pytest.raises(CdmModelMissingError, match=r"jira\.statuses"):
        check(ports, unit="jira.statuses")


def test_check_two_the_sink_must_take_the_model(ports: Ports):
    with pytest.raises(CdmModelUnsupportedError, match=r"cdm\.work\.item") as raised:
        check(ports, sink="iceberg")
    assert raised.value.context["sink_id"] == "iceberg"


@pytest.mark.parametrize("sink", ["names_only", "cdm.jdbc"])
def test_check_three_the_sink_must_say_where_the_tables_are(ports: Ports, sink: str):
    with pytest.raises(CdmSinkRequiredError, match=r"cdm\.jdbc"):
        check(ports, sink=sink)


def test_a_sink_must_be_provisioned_for_the_model(ports: Ports):
    with pytest.raises(CdmSinkNotProvisionedError, match="provision"):
        check(ports)
    provision(ports, "cdm.work.project")
    with pytest.raises(CdmSinkNotProvisionedError):
        check(ports)
    provision(ports)
    check(ports)


def test_the_operators_database_needs_no_endpoint(ports: Ports):
    settings = ports.settings.model_copy(update={"cdm_database_url": "postgresql://u@h/d"})
    check(replace(ports, settings=settings), sink="cdm.jdbc")


def test_the_same_checks_hold_when_a_unit_is_configured(ports: Ports):
    def configure(unit: str, **change: object) -> None:
        configure_unit(ADMIN, ports, TENANT, SOURCE, UnitId(unit), UnitChange(**change))

    with pytest.raises(CdmModelMissingError):
        configure("jira.statuses", policy=CDM, sink_id=SINK)
    with pytest.raises(CdmModelUnsupportedError):
        configure("jira.issues", policy=CDM)
    with pytest.raises(CdmSinkNotProvisionedError):
        configure("jira.issues", policy=CDM, sink_id=SINK)
    provision(ports)
    configure("jira.issues", policy=CDM, sink_id=SINK)


def test_raw_rows_do_not_go_into_a_models_table(ports: Ports):
    with pytest.raises(ValidationError, match="mode=cdm") as raised:
        check(ports, policy=IngestionPolicy())
    assert raised.value.context["field"] == "policy.mode"


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("policy.target", {"target": "x"}),
        ("policy.partitionBy", {"partition_by": ("day(created_at)",)}),
        ("policy.writeMode", {"write_mode": WriteMode.MERGE}),
    ],
)
def test_what_a_model_decides_itself_cannot_be_chosen(
    ports: Ports, field: str, change: dict[str, object]
):
    provision(ports)
    unit = ports.metadata.get_unit(TENANT, SOURCE, UnitId("jira.issues"))
    ports.metadata.put_unit(TENANT, unit.model_copy(update={"primary_key": ("id",)}))
    with pytest.raises(ValidationError) as raised:
        check(ports, policy=CDM.model_copy(update=change))
    assert raised.value.context["field"] == field


def test_a_full_run_into_a_model_adds_and_changes_unless_asked_to_overwrite():
    assert CDM.run_mode is RunMode.FULL
    assert CDM.effective_write_mode is WriteMode.APPEND
    overwriting = CDM.model_copy(update={"write_mode": WriteMode.OVERWRITE})
    assert overwriting.effective_write_mode is WriteMode.OVERWRITE


@pytest.mark.parametrize(
    ("supported", "expected"),
    [
        (["cdm.work.item"], True),
        (["cdm.work.*"], True),
        (["cdm.*"], True),
        (["cdm.doc.*", "cdm.work.item"], True),
        ([], False),
        (["cdm.work"], False),
        (["cdm.work.it"], False),
        (["cdm.work.it*"], False),
        (["cdm.wor.*"], False),
        (["*"], False),
        (["cdm.doc.*"], False),
    ],
    ids=str,
)
def test_sinks_name_models_exactly_or_by_family(supported: list[str], expected: bool):
    assert covers(supported, "cdm.work.item") is expected


# --- provisioning


@pytest.mark.parametrize("model_id", CDM_MODELS)
def test_a_provisioned_table_is_in_the_catalog_with_its_labels(ports: Ports, model_id: str):
    first = provision(ports, model_id)
    assert provision(ports, model_id) == first
    stored = ports.metadata.get_unit(TENANT, EndpointId(SINK), UnitId(model_id))
    assert stored == first.dataset
    assert stored.labels == (f"sink-endpoint:{SINK}", f"cdm_model:{model_id}")
    assert [column.name for column in stored.columns] == CDM_MODELS[model_id].schema.names
    assert (stored.namespace, stored.name) == (first.table.namespace, first.table.name)
    assert stored.primary_key == ("cdm_id",)


def test_what_is_no_model_or_no_sink_cannot_be_provisioned(ports: Ports):
    with pytest.raises(ValidationError, match="known"):
        provision(ports, "cdm.work.unicorn")
    with pytest.raises(CdmModelUnsupportedError):
        provision(ports, sink="iceberg")
    with pytest.raises(NotFoundError):
        provision(ports, sink="nowhere")
    with pytest.raises(NotFoundError, match="source"):
        provision(ports, sink=SOURCE)


def test_who_may_only_look_may_not_provision(ports: Ports):
    viewer = Principal("tests", TENANT, frozenset({Role.VIEWER}))
    with pytest.raises(ForbiddenError):
        provision_cdm_sink(viewer, ports, TENANT, SINK, "cdm.work.item")


# --- AC4


def test_ac4_nothing_that_runs_a_unit_knows_a_vendor():
    """Names of vendors appear in sources, mappers and the table of plugins, nowhere below."""
    vendors = ("jira", "confluence", "onedrive")
    parts = ("execution", "planning", "sinks", "staging", "model")
    guilty = []
    for path in (path for part in parts for path in (PACKAGE / part).rglob("*.py")):
        tree = ast.parse(path.read_text())
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        imports = [n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))]
        names |= {alias.name for node in imports for alias in node.names}
        names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        compared = {
            side.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Compare)
            for side in (node.left, *node.comparators)
            if isinstance(side, ast.Constant) and isinstance(side.value, str)
        }
        if any(vendor in name.lower() for vendor in vendors for name in names | compared):
            guilty.append(path)
    assert guilty == []


# --- sinks that need no endpoint, and write modes


def test_the_knowledge_base_takes_models_without_an_endpoint_or_a_database(ports: Ports):
    check(ports, sink="kb")
    with pytest.raises(CdmModelMissingError):
        check(ports, sink="kb", unit="jira.statuses")


@pytest.mark.parametrize(
    ("sink", "policy"),
    [
        ("kb", CDM.model_copy(update={"write_mode": WriteMode.OVERWRITE})),
        ("raw", IngestionPolicy(write_mode=WriteMode.MERGE, key_columns=("id",))),
    ],
)
def test_a_write_mode_that_a_sink_has_not_is_refused_before_a_run(
    ports: Ports, sink: str, policy: IngestionPolicy
):
    unit = ports.metadata.get_unit(TENANT, SOURCE, UnitId("jira.issues"))
    with pytest.raises(ValidationError, match="writeMode is one of"):
        check_data_mode(ports, TENANT, unit, SinkId(sink), policy)
