"""Stand-ins for the two ports that need servers or a cluster: a source, and what executes runs.

There is no fake store: the real ones run on SQLite and files with nothing installed, and pass the
same contracts in a test's temporary directory.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from matih_ray import errors
from matih_ray.control.building import build_source
from matih_ray.control.ports import Ports
from matih_ray.errors import MatihError, PlanError, SourceError, UnknownUnitError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import EndpointId, RunId, TenantId, UnitId
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.model.run import RunError, RunRecord, RunState, SliceRecord, SliceState
from matih_ray.model.unit import ColumnDescriptor, EndpointUnitDescriptor, Fidelity
from matih_ray.model.value import JsonValue, Value
from matih_ray.planning.planner import make_plan
from matih_ray.registry import Registry, load_registry
from matih_ray.sources.base import ConnectionTest, EndpointSpec, IngestionContext, SourceEndpoint

# Rows of one batch: over 100 KB, as real batches are.
BATCH_ROWS = 20_000

SCHEMA = pa.schema(
    [("id", pa.int64()), ("note", pa.string()), ("score", pa.float64()), ("tags", pa.string())]
)
COLUMNS = (
    ColumnDescriptor(name="id", native_type="bigint", arrow_type="int64", nullable=False),
    ColumnDescriptor(name="note", native_type="text", arrow_type="string"),
    ColumnDescriptor(
        name="score", native_type="real", arrow_type="double", fidelity=Fidelity.WIDENED
    ),
    ColumnDescriptor(
        name="tags",
        native_type="hstore",
        arrow_type="string",
        fidelity=Fidelity.ENCODED,
        encoding="json",
    ),
)


class MemoryConfig(Value):
    """Tables by unit id with their number of rows, and optionally where the source fails."""

    tables: dict[str, Annotated[int, Field(ge=0)]] = {}
    fails_at: Literal["test", "list", "describe", "plan", "read"] | None = None
    fails_with: str = "CONNECTION_REFUSED"
    user: str = "reader"


class MemorySource:
    """A source whose rows are made on demand: `id` counts from 1 and is key and cursor."""

    type: ClassVar[str] = "MEMORY"
    vendor: ClassVar[str] = "test.memory"
    config_model: ClassVar[builtins.type[Value]] = MemoryConfig
    secret_fields: ClassVar[tuple[str, ...]] = ("password", "clientKey")
    # Reads of this process that are under way: what connections are to a real source.
    open_reads: ClassVar[int] = 0

    def __init__(self, spec: EndpointSpec) -> None:
        self._endpoint_id = spec.endpoint_id
        self._config = MemoryConfig.from_json(dict(spec.config))

    def test(self) -> ConnectionTest:
        """Succeeds unless told to fail."""
        self._reach("test")
        return ConnectionTest(latency_ms=0.5, server_version="Memory 1.0")

    def list_units(self, context: IngestionContext) -> list[EndpointUnitDescriptor]:
        """The configured tables, without columns when describing them shall fail."""
        self._reach("list")
        names = [
            name
            for name in sorted(self._config.tables)
            if context.pattern is None or fnmatchcase(name, context.pattern)
        ]
        units = [
            self._unit(name) for name in names[context.offset : context.offset + context.limit]
        ]
        if self._config.fails_at == "describe":
            return [unit.model_copy(update={"columns": ()}) for unit in units]
        return units

    def describe_unit(self, unit_id: UnitId) -> EndpointUnitDescriptor:
        """One configured table."""
        self._reach("describe")
        if unit_id not in self._config.tables:
            raise UnknownUnitError(f"no table {unit_id!r}", unit_id=unit_id)
        return self._unit(unit_id)

    def read_schema(self, unit: EndpointUnitDescriptor, policy: IngestionPolicy) -> pa.Schema:
        """Always the same four columns."""
        del unit, policy
        return SCHEMA

    def plan_incremental_slices(
        self,
        unit: EndpointUnitDescriptor,
        checkpoint: Checkpoint | None,
        policy: IngestionPolicy,
        target_slice_size: int,
    ) -> IngestionPlan:
        """Ranges of `id`, behind the checkpoint's cursor."""
        self._reach("plan")
        if policy.run_mode is RunMode.CDC:
            raise PlanError(f"{unit.unit_id} has no change log; use full or incremental")
        done = checkpoint.cursor if checkpoint is not None else 0
        start = done if isinstance(done, int) else 0
        end = self._config.tables.get(unit.unit_id, 0)
        bounds = [*range(start, end, target_slice_size), end]
        return IngestionPlan(
            endpoint_id=unit.endpoint_id,
            unit_id=unit.unit_id,
            strategy="memory-range",
            cursor_column="id" if policy.cursor_column else None,
            statistics={"rows": end - start},
            slices=tuple(
                IngestionSlice(
                    key=f"id:{lower}-{upper}",
                    sequence=sequence,
                    params={"lower": lower, "upper": upper},
                    estimated_rows=upper - lower,
                    cursor_after=upper,
                )
                for sequence, (lower, upper) in enumerate(pairwise(bounds))
            ),
        )

    def read(
        self, unit: EndpointUnitDescriptor, slice_: IngestionSlice, policy: IngestionPolicy
    ) -> Iterator[pa.RecordBatch]:
        """The rows of one range."""
        del unit, policy
        self._reach("read")
        lower, upper = slice_.params["lower"], slice_.params["upper"]
        if not isinstance(lower, int) or not isinstance(upper, int):
            raise PlanError(f"slice {slice_.key} has no range")
        MemorySource.open_reads += 1
        try:
            for start in range(lower, upper, BATCH_ROWS):
                yield _rows(range(start + 1, min(start + BATCH_ROWS, upper) + 1))
        finally:
            MemorySource.open_reads -= 1

    def close(self) -> None:
        """Nothing to release."""

    def _unit(self, name: str) -> EndpointUnitDescriptor:
        namespace, _, table = name.rpartition(".")
        rows = self._config.tables[name]
        return EndpointUnitDescriptor(
            endpoint_id=self._endpoint_id,
            unit_id=UnitId(name),
            namespace=namespace or "main",
            name=table,
            columns=COLUMNS,
            primary_key=("id",),
            cursor_candidates=("id",),
            estimated_rows=rows,
            estimated_bytes=rows * 40,
        )

    def _reach(self, place: str) -> None:
        if self._config.fails_at == place:
            raise source_error(self._config.fails_with)(
                f"told to fail at {place}", endpoint_id=EndpointId(self._endpoint_id)
            )


def _rows(ids: range) -> pa.RecordBatch:
    return pa.record_batch(
        {
            "id": pa.array(ids, pa.int64()),
            "note": pa.array([f"row {number}" for number in ids]),
            "score": pa.array([number / 2 for number in ids]),
            "tags": pa.array([None] * len(ids), pa.string()),
        },
        schema=SCHEMA,
    )


def source_error(code: str) -> type[SourceError]:
    """The source error of that code; `SourceError` itself if there is none."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    for kind in kinds:
        if issubclass(kind, SourceError) and kind.code == code:
            return kind
    return SourceError


class RecordingLauncher:
    """A `RunLauncher` that only notes what was launched: runs stay QUEUED."""

    def __init__(self) -> None:
        self.launched: list[tuple[TenantId, RunId]] = []

    def launch(self, tenant_id: TenantId, run_id: RunId) -> None:
        """Note a run."""
        self.launched.append((tenant_id, run_id))


class InlineLauncher(RecordingLauncher):
    """A `RunLauncher` that executes runs before it returns: rows are read, counted and dropped.

    It keeps the ledger and the checkpoint as a planner does, slice by slice. With `stop_after` a
    run ends in `stop_as` behind that many slices of its plan.
    """

    def __init__(self, stop_after: int | None = None, stop_as: RunState = RunState.PAUSED) -> None:
        super().__init__()
        self.stop_after = stop_after
        self.stop_as = stop_as
        self._ports: Ports | None = None

    def attach(self, ports: Ports) -> Ports:
        """Use these ports; returns them with this launcher in place."""
        self._ports = replace(ports, launcher=self)
        return self._ports

    def launch(self, tenant_id: TenantId, run_id: RunId) -> None:
        """Execute a queued run to its end."""
        super().launch(tenant_id, run_id)
        assert self._ports is not None, "attach the ports first"
        ports = self._ports
        run = ports.metadata.get_run(tenant_id, run_id)
        if run.state is not RunState.QUEUED:
            return
        run = _updated(
            ports, run, state=RunState.RUNNING, epoch=run.epoch + 1, started_at=ports.clock()
        )
        source = build_source(ports, tenant_id, run.stream.endpoint_id)
        try:
            self._execute(ports, source, run)
        finally:
            source.close()

    def _execute(self, ports: Ports, source: SourceEndpoint, run: RunRecord) -> None:
        stream = run.stream
        unit = ports.metadata.get_unit(stream.tenant_id, stream.endpoint_id, stream.unit_id)
        try:
            stored = ports.kv.get(stream.tenant_id, stream.kv_key())
            checkpoint = None
            if stored is not None:
                assert isinstance(stored.value, dict)
                checkpoint = Checkpoint.from_json(stored.value)
            plan = run.plan or make_plan(source, unit, checkpoint, run.policy)
            run = _updated(ports, run, plan=plan, target={"displayName": f"memory.{unit.name}"})
            for slice_ in plan.slices[run.through :]:
                if self.stop_after == slice_.sequence:
                    _end(ports, run, self.stop_as)
                    return
                rows = sum(batch.num_rows for batch in source.read(unit, slice_, run.policy))
                run = _committed(ports, run, slice_, rows)
        except MatihError as error:
            _end(ports, run, RunState.FAILED, error)
        else:
            _end(ports, run, RunState.COMPLETED)


def memory_registry() -> Registry:
    """The installed plugins and `MemorySource`."""
    plugins = load_registry().plugins
    sources = {**plugins["sources"], MemorySource.type: f"{__name__}:MemorySource"}
    return Registry({**plugins, "sources": sources})


def _committed(ports: Ports, run: RunRecord, slice_: IngestionSlice, rows: int) -> RunRecord:
    stream, through = run.stream, slice_.sequence + 1
    stored = ports.kv.get(stream.tenant_id, stream.kv_key())
    has_cursor = run.plan is not None and run.plan.cursor_column is not None
    checkpoint = Checkpoint(
        cursor=slice_.cursor_after if has_cursor else None,
        cursor_column="id" if has_cursor else None,
        run_id=run.run_id,
        through=through,
    )
    value: JsonValue = checkpoint.to_dict()
    version = 0 if stored is None else stored.version
    ports.kv.compare_and_set(stream.tenant_id, stream.kv_key(), value, version)
    ports.metadata.put_slices(
        stream.tenant_id,
        run.run_id,
        [
            SliceRecord(
                sequence=slice_.sequence,
                key=slice_.key,
                state=SliceState.COMMITTED,
                attempts=1,
                rows=rows,
                bytes=rows * 40,
            )
        ],
    )
    return _updated(ports, run, through=through, rows=run.rows + rows, bytes=run.bytes + rows * 40)


def _end(ports: Ports, run: RunRecord, state: RunState, error: MatihError | None = None) -> None:
    _updated(
        ports,
        run,
        state=state,
        requested=None,
        error=None if error is None else RunError.of(error),
        finished_at=ports.clock() if state.is_terminal else None,
    )


def _updated(ports: Ports, run: RunRecord, **changes: object) -> RunRecord:
    return ports.metadata.update_run(run.model_copy(update=changes))
