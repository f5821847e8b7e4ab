"""What walks into the canonical data model share: a source, a sink, and tables to compare."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from matih_ray.control.authorization import Principal, Role
from matih_ray.control.catalog import collect_catalog
from matih_ray.control.cdm_sinks import provision_cdm_sink
from matih_ray.control.checkpoints import reset_checkpoint
from matih_ray.control.loads import LoadRequest
from matih_ray.control.ports import Ports
from matih_ray.control.runs import start_run
from matih_ray.control.unit_configurations import UnitChange, configure_unit
from matih_ray.model.cdm import CDM_MODELS
from matih_ray.model.ids import EndpointId, RunId, SinkId, UnitId
from matih_ray.model.policy import DataMode, IngestionPolicy, RunMode, Verify
from matih_ray.model.run import RunRecord, RunState
from matih_ray.model.value import JsonValue
from matih_ray.state.base import EndpointRecord
from matih_ray.testing.devstack.postgres import PostgresServer
from tests.ray.lab import TENANT, Lab

PRINCIPAL = Principal("tests", TENANT, frozenset({Role.ADMIN}))
CDM = IngestionPolicy(
    mode=DataMode.CDM,
    run_mode=RunMode.INCREMENTAL,
    target_slice_rows=200,
    commit_interval_s=0,
    verify=Verify.CHECKSUM,
)
Row = dict[str, Any]
# Model, then the source's id, then the columns that a source fills.
Truth = Mapping[str, Mapping[str, Row]]
# Made of where a row comes from; checked by itself, or different in each run.
_PLACE = (
    "cdm_id",
    "tenant_id",
    "source_endpoint_id",
    "source_system",
    "source_unit_id",
    "source_id",
)
_ENVELOPE = {*_PLACE, "run_id", "is_deleted", "loaded_at"}
NUMBERS = itertools.count()
# Up to eight runs at a time.
LOAD_TIMEOUT_S = 300


class Upstream(Protocol):
    """A source with what it holds. `units` are its units that have a model, with the model."""

    type: str
    family: str
    units: Mapping[str, str]
    secrets: dict[str, str]

    @property
    def config(self) -> dict[str, JsonValue]: ...

    @property
    def filter(self) -> dict[str, JsonValue] | None: ...

    def truth(self, endpoint_id: EndpointId) -> Truth:
        """What the tables must hold, made of the server's own objects."""


def reference(model_id: str, endpoint_id: EndpointId, source_id: object) -> str | None:
    """The `cdm_id` of a row, as documented."""
    kind = model_id.removeprefix("cdm.")
    return None if source_id is None else f"{kind}:{endpoint_id}:{source_id}"


def endpoint(
    ports: Ports, type_: str, config: dict[str, JsonValue], secrets: dict[str, str] | None = None
) -> EndpointId:
    """Register a connector."""
    endpoint_id, now = EndpointId(uuid.uuid4().hex), ports.clock()
    if secrets:
        ports.credentials.put(TENANT, endpoint_id, secrets)
    ports.metadata.put_endpoint(
        EndpointRecord(
            endpoint_id=endpoint_id,
            tenant_id=TENANT,
            name=f"{type_} {endpoint_id[:8]}",
            type=type_,
            config=config,
            credential_name=endpoint_id if secrets else None,
            created_at=now,
            updated_at=now,
        )
    )
    return endpoint_id


@dataclass(frozen=True)
class Model:
    """A connector to a source, its catalog, and a provisioned sink in a database of its own."""

    lab: Lab
    server: PostgresServer
    database: str
    upstream: Upstream
    source: EndpointId
    sink: SinkId

    @classmethod
    def open(cls, lab: Lab, server: PostgresServer, upstream: Upstream) -> Model:
        """Register, collect the catalog, provision, and configure every unit with its filter."""
        database = f"model_{next(NUMBERS)}"
        server.create_database(database)
        url = f"postgresql://{server.user}@{server.host}:{server.port}/{database}"
        source = endpoint(lab.ports, upstream.type, upstream.config, upstream.secrets)
        sink = SinkId(endpoint(lab.ports, "cdm.jdbc", {"connectionUrl": url}))
        collect_catalog(PRINCIPAL, lab.ports, TENANT, source)
        for model_id in sorted(set(upstream.units.values())):
            provision_cdm_sink(PRINCIPAL, lab.ports, TENANT, sink, model_id)
        policy = CDM.model_copy(update={"filter": upstream.filter})
        change = UnitChange(sink_id=sink, policy=policy)
        for unit in upstream.units:
            configure_unit(PRINCIPAL, lab.ports, TENANT, source, UnitId(unit), change)
        return cls(lab, server, database, upstream, source, sink)

    def start(self, unit: str, **changes: object) -> RunRecord:
        """Start a run of a unit as it is configured, but for some fields of its policy."""
        policy = CDM.model_copy(update={"filter": self.upstream.filter, **changes})
        request = LoadRequest(
            endpoint_id=self.source, unit_id=UnitId(unit), policy=policy if changes else None
        )
        return start_run(PRINCIPAL, self.lab.ports, TENANT, request)

    def load(self, units: Iterable[str] | None = None, **changes: object) -> list[RunRecord]:
        """Run units, all at the same time, to their good ends."""
        started = [self.start(unit, **changes) for unit in units or self.upstream.units]
        ended = [self.lab.wait(run.run_id, timeout_s=LOAD_TIMEOUT_S) for run in started]
        for run in ended:
            assert run.state is RunState.COMPLETED, (run.stream.unit_id, run.error)
        return ended

    def load_slices_again(self) -> None:
        """Run once more, as runs of their own, the slices that the last full runs have read."""
        ports = self.lab.ports
        started = []
        for unit in self.upstream.units:
            listed = ports.metadata.list_runs(
                TENANT, endpoint_id=self.source, unit_id=UnitId(unit), limit=10
            )
            # listings come without plans
            runs = (ports.metadata.get_run(TENANT, run.run_id) for run in listed)
            last = next(run for run in runs if run.plan is not None and run.plan.slices)
            again = RunRecord(
                run_id=RunId(uuid.uuid4().hex),
                stream=last.stream,
                state=RunState.QUEUED,
                policy=last.policy,
                plan=last.plan,
                staging_provider_id=last.staging_provider_id,
                created_at=ports.clock(),
            )
            ports.metadata.create_run(again)
            ports.launcher.launch(TENANT, again.run_id)
            started.append(again.run_id)
        for run_id in started:
            run = self.lab.wait(run_id, timeout_s=LOAD_TIMEOUT_S)
            assert run.state is RunState.COMPLETED, (run.stream.unit_id, run.error)

    def forget_checkpoints(self) -> None:
        """Let the next runs begin at the beginning."""
        for unit in self.upstream.units:
            reset_checkpoint(
                PRINCIPAL, self.lab.ports, TENANT, self.source, UnitId(unit), self.sink
            )

    def table(self, model_id: str) -> dict[str, Row]:
        """All rows of a model by their source's id, deleted ones included."""
        names = [*CDM_MODELS[model_id].schema.names, "loaded_at", "xmin::text"]
        rows = self.server.execute(
            f"SELECT {', '.join(names)} FROM cdm.cdm_{CDM_MODELS[model_id].table_name}",
            self.database,
        )
        found = [dict(zip(names, row, strict=True)) for row in rows]
        return {str(row["source_id"]): row for row in found}

    def tables(self) -> dict[str, dict[str, Row]]:
        """All rows of all models."""
        return {model_id: self.table(model_id) for model_id in set(self.upstream.units.values())}

    def assert_true(self, units: Iterable[str] | None = None, but: frozenset[str] = frozenset()):
        """The live rows are the source's objects, field by field; rows that refer to one of `but`
        are not looked at."""
        truth = self.upstream.truth(self.source)
        for unit in units or self.upstream.units:
            model_id = self.upstream.units[unit]
            held = self.table(model_id)
            for source_id, row in held.items():
                self._assert_envelope(unit, source_id, row)
            live = {id_: _own(row) for id_, row in held.items() if not row["is_deleted"]}
            empty = dict.fromkeys(_columns(model_id))
            expected = {id_: {**empty, **row} for id_, row in truth[model_id].items()}
            live, expected = _but(live, but), _but(expected, but)
            assert sorted(live) == sorted(expected), (unit, set(live) ^ set(expected))
            for source_id, row in expected.items():
                assert live[source_id] == row, (unit, source_id)

    def _assert_envelope(self, unit: str, source_id: str, row: Row) -> None:
        assert {name: row[name] for name in _PLACE} == {
            "cdm_id": reference(self.upstream.units[unit], self.source, source_id),
            "tenant_id": TENANT,
            "source_endpoint_id": self.source,
            "source_system": self.upstream.family,
            "source_unit_id": unit,
            "source_id": source_id,
        }


def _columns(model_id: str) -> list[str]:
    return [name for name in CDM_MODELS[model_id].schema.names if name not in _ENVELOPE]


def _own(row: Row) -> Row:
    return {name: row[name] for name in row if name not in _ENVELOPE and name != "xmin::text"}


def _but(rows: dict[str, Row], items: frozenset[str]) -> dict[str, Row]:
    return {
        id_: row
        for id_, row in rows.items()
        if not items & {v for name, v in row.items() if name.endswith("_cdm_id")}
    }
