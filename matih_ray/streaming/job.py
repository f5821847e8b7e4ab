"""Scripts: statements in order; each INSERT is planned, fitted to its table and run to its end."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import IO

import pyarrow as pa

from matih_ray.errors import (
    NotFoundError,
    SqlInvalidError,
    SqlNotSupportedError,
)
from matih_ray.model.ids import TenantId
from matih_ray.settings import Settings
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.streaming.backends.opening import OPTION, StateBackend
from matih_ray.streaming.connectors.catalog_tables import CatalogTables, Owner
from matih_ray.streaming.connectors.options import local_path, option
from matih_ray.streaming.connectors.sinks import FileSink, TableSink, open_sink
from matih_ray.streaming.engine import Engine, Progress, Work
from matih_ray.streaming.output import (
    KEPT_UPSERT,
    UPSERT,
    Output,
    refuse_half_changes,
    table_properties,
    upsert_key,
)
from matih_ray.streaming.parallel import Crew, ParallelPipeline
from matih_ray.streaming.pipeline import Aside, Counts, Pipeline
from matih_ray.streaming.rejects import SCHEMA
from matih_ray.streaming.side_sink import SUFFIX, SidedSink
from matih_ray.streaming.sql.plan import Node, lines, scans
from matih_ray.streaming.sql.query import QueryPlanner
from matih_ray.streaming.sql.script import (
    CreateCatalog,
    CreateTable,
    CreateTableAs,
    CreateView,
    Insert,
    Options,
    Query,
    SetOption,
    Statement,
)
from matih_ray.streaming.sql.targets import (
    TargetColumn,
    declared_columns,
    fitted,
    query_columns,
    target_columns,
)
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
        self.backend = StateBackend.of(settings)
        self._overrides = dict(options)
        self._used: set[str] = set()
        self._out = out
        self._tables: dict[tuple[str, ...], CreateTable] = {}
        self._views: dict[tuple[str, ...], CreateView] = {}
        self._undeclared: dict[tuple[str, ...], CreateTable] = {}  # targets
        self._new: set[tuple[str, ...]] = set()  # tables that must not be there yet

    def prepare(self, statements: list[Statement]) -> list[Insert]:
        """Declare everything in order, without creating anything; the INSERTs are left.

        Raises:
            SqlInvalidError: A name is taken, or an override names no table.
        """
        inserts = []
        for statement in statements:
            if isinstance(statement, Insert):
                self._note_target(statement)
                inserts.append(statement)
            elif isinstance(statement, CreateTableAs):
                inserts.append(self._declare_as(statement))
            elif isinstance(statement, Query):
                raise SqlNotSupportedError(
                    "SELECT on its own is for sessions of the SQL gateway; write INSERT INTO … "
                    "SELECT, or CREATE TABLE … AS SELECT",
                    clause="SELECT",
                )
            else:
                self._declare(statement)
        unused = sorted(set(self._overrides) - self._used)
        if unused:
            raise SqlInvalidError(f"option {unused[0]} is of no table of this script")
        return inserts

    def _declare(self, statement: CreateTable | CreateView | CreateCatalog | SetOption) -> None:
        if isinstance(statement, CreateTable):
            self._declare_table(statement)
        elif isinstance(statement, CreateView):
            if not self._is_there(statement):
                self._views[statement.path] = statement
        elif isinstance(statement, CreateCatalog):
            raise SqlNotSupportedError(
                f"CREATE CATALOG {statement.name}: catalogs come from settings "
                "(MATIH_ICEBERG_CATALOG_URI and others) and may have any name",
                clause="CREATE CATALOG",
            )
        elif statement.key == OPTION:
            self.backend = self.backend.named(statement.value)
        elif _KNOWN_SETTINGS.get(statement.key, "").lower() != statement.value.lower():
            raise SqlNotSupportedError(
                f"SET '{statement.key}' to this value is not supported", clause=statement.key
            )

    def _note_target(self, insert: Insert) -> None:
        """A catalog table that other scripts declare can have options from outside, too."""
        if insert.path not in self._tables:
            table = self._overridden(CreateTable(insert.path, (), Options({})))
            for key in table.options.values:
                if key not in (UPSERT, KEPT_UPSERT):
                    raise SqlInvalidError(
                        f"option {key!r} is none of a catalog table; there is {UPSERT}", option=key
                    )
            self._undeclared[insert.path] = table

    def _declare_table(self, table: CreateTable) -> None:
        if not self._is_there(table):
            self._tables[table.path] = self._overridden(table)

    def _declare_as(self, statement: CreateTableAs) -> Insert:
        """Declare a table with the columns of its query; what fills it. As in Flink, IF NOT EXISTS
        is about the table alone: rows come to one that is there, too."""
        table, query = statement.table, statement.query
        planned = QueryPlanner(self._tables, self._views).plan(query)
        table = replace(table, columns=query_columns(planned))
        self._declare_table(table)
        if not is_catalog_table(table):
            option(self._tables[table.path], "connector")  # refuses one without
        elif not table.if_not_exists:
            self._new.add(table.path)
        return Insert(table.path, (), query)

    def _is_there(self, statement: CreateTable | CreateView) -> bool:
        path = statement.path
        is_there = path in self._tables or path in self._views
        if is_there and not statement.if_not_exists:
            raise SqlInvalidError(
                f"{'.'.join(path)} is there twice; a table or view has one declaration"
            )
        return is_there

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

    def plan(self, statement: Insert | Query) -> Node:
        """The plan of a query, under its own names."""
        return QueryPlanner(self._tables, self._views).plan(statement.query)

    def explain(self, insert: Insert) -> list[str]:
        """The plan of an INSERT or query as text."""
        target = f"Sink({'.'.join(insert.path) or 'nowhere'})"
        return [target, *(f"  {line}" for line in lines(self.plan(insert)))]

    def create_tables(self) -> list[str]:
        """Create the catalog tables that the script declares, unless they are there.

        Raises:
            SqlInvalidError: `CREATE TABLE … AS` names one that is there.
        """
        self.refuse_existing()
        made = []
        for path, table in self._tables.items():
            if is_catalog_table(table):
                schema = pa.schema(
                    pa.field(one.name, one.type.arrow, nullable=not one.not_null)
                    for one in table.columns
                    if one.type is not None
                )
                properties = table_properties(table)
                self._catalog.create(table.path, schema, table.partition_by, properties)
                made.append(".".join(path))
        return made

    def refuse_existing(self) -> None:
        """Let only tables be made of queries that are not there.

        Raises:
            SqlInvalidError: `CREATE TABLE … AS` names one that is.
        """
        for path in sorted(self._new):
            if self._stored_columns(path) is not None:
                raise SqlInvalidError(
                    f"table {'.'.join(path)} is there already; INSERT INTO it, or write "
                    "CREATE TABLE IF NOT EXISTS",
                    table=".".join(path),
                )

    def run(self, insert: Insert, aside: Aside | None = None) -> JobResult:
        """Run an INSERT to the end of its input, and commit once.

        Raises:
            SqlInvalidError: The query does not fit the table.
            SqlNotSupportedError: Its input has no end: that is for jobs, which have checkpoints.
            StreamRowError: A row stops the job; nothing is visible in the target then, except in
                `print` tables.
        """
        refuse_endless(self.plan(insert), "submit the script as a job")
        engine = self.engine(insert, Owner(job_id=uuid.uuid4().hex), aside)
        engine.run()
        return JobResult(".".join(insert.path), engine.progress.rows_out, engine.pipeline.counts)

    @property
    def tables(self) -> Mapping[tuple[str, ...], CreateTable]:
        """The tables of the script, with their options as overridden."""
        return self._tables

    def fitted_plan(self, insert: Insert, *, may_create: bool = False) -> Node:
        """The plan of an INSERT, under the columns of its table. With `may_create` a catalog table
        that the script declares need not be there.

        Raises:
            SqlInvalidError: The query does not fit the table.
            NotFoundError: There is no such table.
        """
        columns = self._columns(insert, may_create=may_create)
        return fitted(self.plan(insert), columns, insert.columns)

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
        sink = target = self._sink(insert, node, schema, owner)
        if side_table and self.has_side(insert):
            sink = sided = SidedSink(sink, self._side(insert, owner))
            aside = replace(aside or Aside(), rejects=sided.reject)
        progress = Progress()
        left_out = aside or Aside()

        def told(rows: int) -> None:
            progress.rows_out += rows

        name = ".".join(insert.path)
        write = Output(name, target, columns, left_out, lambda: work.counts, told).write
        work: Work = Pipeline(node, write, self.policy, left_out, backend=self.backend)
        if hire is not None:
            keeps = left_out.rejects is not None
            tasks = TaskPlan(node, self.policy, parallelism, keeps, self.backend)
            work = ParallelPipeline(tasks, write, partial(hire, tasks), left_out)
        plan = tuple(lines(node, with_options=False))
        return Engine(work, sink, plan, owner, progress=progress)

    def _columns(self, insert: Insert, *, may_create: bool = False) -> tuple[TargetColumn, ...]:
        table = self._tables.get(insert.path)
        if table is not None and not is_catalog_table(table):
            return declared_columns(table)
        if len(insert.path) < 2:
            raise SqlInvalidError(f"there is no table {'.'.join(insert.path)!r}")
        if table is not None and may_create:
            return self._stored_columns(insert.path) or declared_columns(table)
        return target_columns(self._catalog.schema(insert.path))

    def _stored_columns(self, path: tuple[str, ...]) -> tuple[TargetColumn, ...] | None:
        """The columns of a catalog table, None while there is none."""
        try:
            return target_columns(self._catalog.schema(path))
        except NotFoundError:
            return None

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

    def _sink(self, insert: Insert, node: Node, schema: pa.Schema, owner: Owner) -> TableSink:
        table = self._tables.get(insert.path)
        if table is not None and not is_catalog_table(table):
            return open_sink(table, schema, self._out)
        declared = table or self._undeclared[insert.path]
        key = upsert_key(declared, self._catalog.properties(insert.path), self._columns(insert))
        if key is None:
            return self._catalog.open_sink(insert.path, schema, owner)
        refuse_half_changes(node)
        return self._catalog.open_upserts(insert.path, schema, owner, key)


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
    if connector == "datagen":
        return "number-of-rows" in table.options.values
    return connector == "filesystem"


def refuse_endless(node: Node, remedy: str) -> None:
    """Let only plans pass whose input ends by itself.

    Raises:
        SqlNotSupportedError: A table has no end.
    """
    for scan in scans(node):
        if not is_bounded(scan.table):
            raise SqlNotSupportedError(
                f"table {'.'.join(scan.table.path)} has no end: {remedy}, or bound the table "
                "('scan.bounded.mode' of kafka, 'number-of-rows' of datagen)",
                clause="unbounded",
            )
