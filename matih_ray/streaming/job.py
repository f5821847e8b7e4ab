"""Scripts: statements in order; each INSERT is planned, fitted to its table and run to its end."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import IO

import numpy as np
import pyarrow as pa

from matih_ray.errors import SqlInvalidError, SqlNotSupportedError, StreamRowError
from matih_ray.model.ids import TenantId
from matih_ray.settings import Settings
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.streaming.connectors.catalog_tables import CatalogTables, Owner
from matih_ray.streaming.connectors.options import local_path, option
from matih_ray.streaming.connectors.reader import INSERT, KIND_NAMES
from matih_ray.streaming.connectors.sinks import FileSink, TableSink, open_sink
from matih_ray.streaming.engine import Engine, Progress, Work
from matih_ray.streaming.operators import Chunk, Origins
from matih_ray.streaming.parallel import Crew, ParallelPipeline
from matih_ray.streaming.pipeline import Aside, Counts, Pipeline
from matih_ray.streaming.rejects import SCHEMA, changed_rows
from matih_ray.streaming.side_sink import SUFFIX, SidedSink
from matih_ray.streaming.sql.plan import Node, lines, scans
from matih_ray.streaming.sql.query import QueryPlanner
from matih_ray.streaming.sql.script import (
    CreateCatalog,
    CreateTable,
    CreateView,
    Insert,
    Options,
    SetOption,
    Statement,
)
from matih_ray.streaming.sql.targets import TargetColumn, fitted, target_columns
from matih_ray.streaming.tasks import TaskPlan

# What SET may say, and the only values: others would be ignored silently.
_KNOWN_SETTINGS = {"table.local-time-zone": "UTC", "execution.runtime-mode": "streaming"}


@dataclass(frozen=True)
class JobResult:
    """What one INSERT did."""

    target: str
    rows: int
    counts: Counts


class Script:
    """Runs the statements of one script in this process.

    `options` are overrides, by `table.key`; `out` is where `print` tables write. With a tenant,
    catalog tables are those of the tenant.
    """

    def __init__(
        self,
        settings: Settings,
        options: Mapping[str, str],
        out: IO[str],
        tenant_id: TenantId | None = None,
    ) -> None:
        self._catalog = CatalogTables(settings, tenant_id)
        self.policy = HostPolicy.of(settings)
        self._overrides = dict(options)
        self._used: set[str] = set()
        self._out = out
        self._tables: dict[tuple[str, ...], CreateTable] = {}
        self._views: dict[tuple[str, ...], CreateView] = {}

    def prepare(self, statements: list[Statement]) -> list[Insert]:
        """Declare everything in order, without creating anything; the INSERTs are left.

        Raises:
            SqlInvalidError: A name is taken, or an override names no table.
        """
        inserts = []
        for statement in statements:
            if isinstance(statement, Insert):
                inserts.append(statement)
            else:
                self._declare(statement)
        unused = sorted(set(self._overrides) - self._used)
        if unused:
            raise SqlInvalidError(f"option {unused[0]} is of no table of this script")
        return inserts

    def _declare(self, statement: CreateTable | CreateView | CreateCatalog | SetOption) -> None:
        if isinstance(statement, CreateTable):
            self._new(statement.path)
            self._tables[statement.path] = self._overridden(statement)
        elif isinstance(statement, CreateView):
            self._new(statement.path)
            self._views[statement.path] = statement
        elif isinstance(statement, CreateCatalog):
            raise SqlNotSupportedError(
                f"CREATE CATALOG {statement.name}: catalogs come from settings "
                "(MATIH_ICEBERG_CATALOG_URI and others) and may have any name",
                clause="CREATE CATALOG",
            )
        elif _KNOWN_SETTINGS.get(statement.key, "").lower() != statement.value.lower():
            raise SqlNotSupportedError(
                f"SET '{statement.key}' to this value is not supported", clause=statement.key
            )

    def _new(self, path: tuple[str, ...]) -> None:
        if path in self._tables or path in self._views:
            raise SqlInvalidError(f"{'.'.join(path)} is there twice")

    def _overridden(self, table: CreateTable) -> CreateTable:
        prefix = ".".join(table.path) + "."
        mine = {key: text for key, text in self._overrides.items() if key.startswith(prefix)}
        self._used |= set(mine)
        changes = {key[len(prefix) :]: text for key, text in mine.items()}
        options: Options = table.options.overridden(changes)
        return replace(table, options=options)

    def effective_options(self) -> dict[str, dict[str, str]]:
        """The options of each table as they are used, secrets redacted."""
        return {".".join(path): table.options.shown() for path, table in self._tables.items()}

    def explain(self, insert: Insert) -> list[str]:
        """The plan of an INSERT or query as text."""
        target = f"Sink({'.'.join(insert.path) or 'nowhere'})"
        return [target, *(f"  {line}" for line in lines(self._plan(insert)))]

    def create_tables(self) -> list[str]:
        """Create the catalog tables that the script declares, unless they are there."""
        made = []
        for path, table in self._tables.items():
            if is_catalog_table(table):
                schema = pa.schema(
                    pa.field(one.name, one.type.arrow, nullable=not one.not_null)
                    for one in table.columns
                    if one.type is not None
                )
                self._catalog.create(table.path, schema, table.partition_by)
                made.append(".".join(path))
        return made

    def run(self, insert: Insert, aside: Aside | None = None) -> JobResult:
        """Run an INSERT to the end of its input, and commit once.

        Raises:
            SqlInvalidError: The query does not fit the table.
            SqlNotSupportedError: Its input has no end: that is for jobs, which have checkpoints.
            StreamRowError: A row stops the job; nothing is visible in the target then, except in
                `print` tables.
        """
        for scan in scans(self._plan(insert)):
            if not is_bounded(scan.table):
                raise SqlNotSupportedError(
                    f"table {'.'.join(scan.table.path)} has no end: submit the script as a job, or "
                    "bound the table ('scan.bounded.mode' of kafka)",
                    clause="unbounded",
                )
        engine = self.engine(insert, Owner(job_id=uuid.uuid4().hex), aside)
        engine.run()
        return JobResult(".".join(insert.path), engine.progress.rows_out, engine.pipeline.counts)

    @property
    def tables(self) -> Mapping[tuple[str, ...], CreateTable]:
        """The tables of the script, with their options as overridden."""
        return self._tables

    def fitted_plan(self, insert: Insert) -> Node:
        """The plan of an INSERT, under the columns of its table.

        Raises:
            SqlInvalidError: The query does not fit the table.
        """
        return fitted(self._plan(insert), self._columns(insert), insert.columns)

    def engine(
        self,
        insert: Insert,
        owner: Owner,
        aside: Aside | None = None,
        *,
        hire: Callable[[TaskPlan], Crew] | None = None,
        parallelism: int = 1,
        side_table: bool = False,
    ) -> Engine:
        """An INSERT ready to run, without checkpoints unless the caller sets `directory`.

        With `hire` tasks do the work, of that `parallelism`. With `side_table` rows that are left
        out are kept beside the target.
        """
        columns = self._columns(insert)
        node = self.fitted_plan(insert)
        schema = pa.schema([pa.field(one.name, one.type) for one in columns])
        sink = self._sink(insert, schema, owner)
        if side_table and self.has_side(insert):
            sink = sided = SidedSink(sink, self._side(insert, owner))
            aside = replace(aside or Aside(), rejects=sided.reject)
        progress = Progress()
        left_out = aside or Aside()

        def write(chunk: Chunk) -> None:
            chunk = inserts_of(chunk, work.counts, left_out, insert)
            if chunk.batch.num_rows == 0:
                return
            _check_rows(chunk, columns, insert)
            sink.write(chunk.batch.cast(schema))
            progress.rows_out += chunk.batch.num_rows

        work: Work = Pipeline(node, write, self.policy, left_out)
        if hire is not None:
            tasks = TaskPlan(node, self.policy, parallelism, left_out.rejects is not None)
            work = ParallelPipeline(tasks, write, partial(hire, tasks), left_out)
        plan = tuple(lines(node, with_options=False))
        return Engine(work, sink, plan, owner, progress=progress)

    def _plan(self, insert: Insert) -> Node:
        return QueryPlanner(self._tables, self._views).plan(insert.query)

    def _columns(self, insert: Insert) -> tuple[TargetColumn, ...]:
        table = self._tables.get(insert.path)
        if table is not None and not is_catalog_table(table):
            return tuple(
                TargetColumn(one.name, one.type.arrow, one.not_null)
                for one in table.columns
                if one.type is not None
            )
        if len(insert.path) < 2:
            raise SqlInvalidError(f"there is no table {'.'.join(insert.path)!r}")
        return target_columns(self._catalog.schema(insert.path))

    def has_side(self, insert: Insert) -> bool:
        """Whether a target can have a side table; those that keep nothing have none."""
        table = self._tables.get(insert.path)
        if table is None or is_catalog_table(table):
            return True
        return option(table, "connector") == "filesystem"

    def _side(self, insert: Insert, owner: Owner) -> TableSink:
        """The sink of a target's side table."""
        table = self._tables.get(insert.path)
        if table is not None and not is_catalog_table(table):
            where = local_path(table)
            return FileSink(where.with_name(where.name + SUFFIX), "parquet", SCHEMA)
        path = (*insert.path[:-1], insert.path[-1] + SUFFIX)
        self._catalog.create(path, SCHEMA, ("day(rejected_at)",))
        return self._catalog.open_sink(path, SCHEMA, owner)

    def _sink(self, insert: Insert, schema: pa.Schema, owner: Owner) -> TableSink:
        table = self._tables.get(insert.path)
        if table is not None and not is_catalog_table(table):
            return open_sink(table, schema, self._out)
        return self._catalog.open_sink(insert.path, schema, owner)


def is_catalog_table(table: CreateTable) -> bool:
    """A table in a catalog has no connector of its own."""
    return "connector" not in table.options.values and len(table.path) > 1


def is_bounded(table: CreateTable) -> bool:
    """Whether reading a table ends by itself."""
    connector = option(table, "connector")
    if connector == "kafka":
        return option(table, "scan.bounded.mode", "unbounded") != "unbounded"
    if connector == "postgres-cdc":
        return option(table, "scan.startup.mode", "initial") == "snapshot"
    return connector in ("filesystem", "datagen")


def inserts_of(chunk: Chunk, counts: Counts, aside: Aside, insert: Insert) -> Chunk:
    """The rows that can be appended. Others go to the side table, and are counted.

    Raises:
        StreamRowError: There are others, and no side table.
    """
    if chunk.kinds is None or not chunk.kinds.any():
        return chunk
    others, inserted = np.flatnonzero(chunk.kinds), np.flatnonzero(chunk.kinds == INSERT)
    if aside.rejects is None:
        raise StreamRowError(
            f"a row of kind {KIND_NAMES[int(chunk.kinds[others[0]])]} cannot be appended to "
            f"{'.'.join(insert.path)}: it changes or removes a row"
        )
    known = chunk.origins
    origins = None if known is None else Origins(known.numbers[others], known.look_up)
    changed = chunk.batch.take(pa.array(others))
    aside.rejects(changed_rows(changed, chunk.kinds[others], origins))
    counts.changed += len(others)
    return replace(chunk, batch=chunk.batch.take(pa.array(inserted)), kinds=None, origins=None)


def _check_rows(chunk: Chunk, columns: tuple[TargetColumn, ...], insert: Insert) -> None:
    """What a column that is NOT NULL cannot take."""
    target = ".".join(insert.path)
    for place, column in enumerate(columns):
        if column.not_null and chunk.batch.column(place).null_count:
            raise StreamRowError(
                f"column {column.name} of {target} is NOT NULL, and a row has NULL"
            )
