"""Scripts of tenants: checked before they become jobs, and made ready to run.

What a tenant writes runs in the operator's processes, so it sees less than a script on one's own
machine: its own variables, its own catalog tables, its own directories, and the network that the
operator allows to connectors. A secret is a variable and never text, because a script is stored and
shown.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from matih_ray.control.stream_jobs import JobDraft, Rows
from matih_ray.errors import (
    ConfigurationError,
    ConflictError,
    ForbiddenError,
    SqlInvalidError,
)
from matih_ray.model.ids import TenantId
from matih_ray.model.sql_session import Interpreted, QueryTask, StatementKind
from matih_ray.model.stream_job import StreamJob
from matih_ray.settings import Settings
from matih_ray.sinks.iceberg.naming import safe_name
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.streaming.checkpoints import CheckpointDirectory
from matih_ray.streaming.connectors.catalog_tables import Owner
from matih_ray.streaming.connectors.opening import keeps_rejects, reader_of
from matih_ray.streaming.describing import described
from matih_ray.streaming.engine import Engine, Restart
from matih_ray.streaming.job import Script, is_bounded, refuse_endless
from matih_ray.streaming.parallel import Crew
from matih_ray.streaming.results import ResultFiles
from matih_ray.streaming.side_sink import SUFFIX
from matih_ray.streaming.sql.plan import Node, has_windows, scans
from matih_ray.streaming.sql.script import (
    CreateTable,
    CreateTableAs,
    CreateView,
    Insert,
    Query,
    is_secret,
    parse_script,
)
from matih_ray.streaming.sql.targets import declaration
from matih_ray.streaming.tasks import TaskPlan

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class PlannedQuery:
    """What a query is run by; `limit` is how many rows it asks for."""

    node: Node
    policy: HostPolicy
    limit: int | None


def _nowhere(settings: Settings, task: QueryTask) -> None:
    del settings, task
    raise ConflictError("this runtime runs no queries")


class TenantScripts:
    """See `matih_ray.control.stream_jobs.Scripts`. `start` lets a query run somewhere."""

    def __init__(
        self, settings: Settings, start: Callable[[Settings, QueryTask], None] = _nowhere
    ) -> None:
        self._settings = settings
        self._start = start

    def prepare(self, tenant_id: TenantId, draft: JobDraft) -> list[str]:
        """Check a script and create its catalog tables; the targets of its INSERTs."""
        script, inserts = self._script(tenant_id, draft.script, draft.options)
        if draft.savepoint_path is not None:
            self._own(tenant_id, draft.savepoint_path)
        script.refuse_existing()
        for insert in inserts:
            node = script.fitted_plan(insert, may_create=True)
            if draft.parallelism > 1:
                _ = TaskPlan(node, script.policy, draft.parallelism).window  # may refuse it
            for scan in scans(node):
                keeps_rejects(scan.table)
                reader_of(scan, script.policy)  # options are read, nothing is connected to
        script.create_tables()  # only now: a query that is wrong makes no table
        return [".".join(insert.path) for insert in inserts]

    def interpret(self, tenant_id: TenantId, earlier: Sequence[str], text: str) -> Interpreted:
        """Understand a statement; see `control.stream_jobs.Scripts`."""
        found = parse_script(text, self._variables(tenant_id))
        is_set = all(isinstance(one, Insert) and not one.explain for one in found)
        if not found or (len(found) > 1 and not is_set):
            raise SqlInvalidError("one statement at a time, or one statement set")
        first = found[0]
        is_asked = isinstance(first, Query) or (isinstance(first, Insert) and first.explain)
        statements = [*earlier] if is_asked else [*earlier, text]
        script, inserts = self._script(tenant_id, ";\n".join(statements), {})
        if isinstance(first, Query):
            return _checked(script, first)
        if isinstance(first, Insert) and first.explain:
            return Interpreted(kind=StatementKind.EXPLAIN, lines=tuple(script.explain(first)))
        if isinstance(first, Insert | CreateTableAs):
            made = script.tables[first.table.path] if isinstance(first, CreateTableAs) else None
            return Interpreted(
                kind=StatementKind.INSERT,
                name=".".join(first.path if isinstance(first, Insert) else first.table.path),
                declares="" if made is None else self._declaration(made, text),
                in_batch=all(_ends(script.plan(insert)) for insert in inserts),
            )
        if isinstance(first, CreateTable | CreateView):
            script.create_tables()
            return Interpreted(
                kind=StatementKind.DEFINITION,
                name=".".join(first.path),
                declares=text,
                is_view=isinstance(first, CreateView),
            )
        return Interpreted(kind=StatementKind.SETTING)

    def _declaration(self, made: CreateTable, text: str) -> str:
        """What declares the table of a `CREATE TABLE … AS` without filling it once more."""
        (unfilled,) = parse_script(text, _Unfilled())
        assert isinstance(unfilled, CreateTableAs)  # noqa: S101 - it was understood as one
        return declaration(replace(unfilled.table, columns=made.columns))

    def describe(self, tenant_id: TenantId, earlier: Sequence[str], name: str) -> Rows:
        """The columns of a table or view; see `control.stream_jobs.Scripts`."""
        script, _ = self._script(tenant_id, ";\n".join(earlier), {})
        return described(script, name)

    def start_query(self, task: QueryTask) -> None:
        """Run a query that was understood; see `control.stream_jobs.Scripts`."""
        self._start(self._settings, task)

    def rows(self, tenant_id: TenantId, operation_id: str, page: int) -> Rows:
        """A page of what a query found; see `control.stream_jobs.Scripts`."""
        return self.result_files(tenant_id, operation_id).read(page)

    def forget_rows(self, tenant_id: TenantId, operation_id: str) -> None:
        """Remove what a query found; see `control.stream_jobs.Scripts`."""
        self.result_files(tenant_id, operation_id).delete()

    def result_files(self, tenant_id: TenantId, operation_id: str) -> ResultFiles:
        """Where the rows of a query are."""
        return ResultFiles(f"{self._root(tenant_id)}/results/{operation_id}")

    def query(self, task: QueryTask) -> PlannedQuery:
        """The plan of a query that was started."""
        (found,) = parse_script(task.text, self._variables(task.tenant_id))
        assert isinstance(found, Query)  # noqa: S101 - it was understood as one
        script, _ = self._script(task.tenant_id, ";\n".join(task.earlier), {})
        return PlannedQuery(script.plan(found), script.policy, found.limit)

    def savepoint_directory(self, tenant_id: TenantId, wanted: str | None) -> str:
        """Where a tenant's savepoints go."""
        if wanted is None:
            return f"{self._root(tenant_id)}/savepoints"
        return self._own(tenant_id, wanted)

    def task_plan(self, job: StreamJob) -> TaskPlan:
        """What each task of a stored job of several works by; see `engine`."""
        script, inserts = self._script(job.tenant_id, job.script, job.options)
        insert = inserts[job.statement]
        node, keeps = script.fitted_plan(insert), script.has_side(insert)
        return TaskPlan(node, script.policy, job.parallelism, keeps, script.backend)

    def engine(self, job: StreamJob, hire: Callable[[TaskPlan], Crew]) -> Engine:
        """The engine of a stored job, as its current owner; `hire` starts tasks where the job has
        several.

        Raises:
            MatihError: The script cannot run any more: a variable is gone, a table has changed.
        """
        script, inserts = self._script(job.tenant_id, job.script, job.options)
        owner = Owner(job_id=job.job_id, epoch=job.epoch)
        engine = script.engine(
            inserts[job.statement],
            owner,
            hire=hire if job.parallelism > 1 else None,
            parallelism=job.parallelism,
            side_table=True,
        )
        engine.directory = CheckpointDirectory(
            f"{self._root(job.tenant_id)}/jobs/{job.job_id}/checkpoints"
        )
        engine.interval_s = job.checkpoint_interval_s
        engine.restart = Restart(job.savepoint_path, job.allow_other_query)
        return engine

    def _script(
        self, tenant_id: TenantId, text: str, options: dict[str, str]
    ) -> tuple[Script, list[Insert]]:
        variables = self._variables(tenant_id)
        statements = parse_script(text, variables)
        for key, value in options.items():
            if is_secret(key) and not _VARIABLE.search(value):
                raise _open_secret(key)
        filled = {key: _filled(value, variables) for key, value in options.items()}
        # what is printed goes nowhere: nobody watches a job's standard output
        script = Script(self._settings, filled, io.StringIO(), tenant_id)
        inserts = [one for one in script.prepare(statements) if not one.explain]
        for insert in inserts:
            target = script.tables.get(insert.path)
            if target is not None and target.options.values.get("connector") == "filesystem":
                # its side table is beside it
                self._check_file(tenant_id, f"{target.options.values.get('path', '')}{SUFFIX}")
        for path, table in script.tables.items():
            name = ".".join(path)
            for key in table.options.values:
                if is_secret(key) and key not in table.options.hidden and (
                    f"{name}.{key}" not in options
                ):  # fmt: skip
                    raise _open_secret(f"{name}.{key}")
            if table.options.values.get("connector") == "filesystem":
                self._check_file(tenant_id, table.options.values.get("path", ""))
            if table.options.values.get("connector") == "print":
                raise SqlInvalidError(f"table {name}: a job has nowhere to print to")
        return script, inserts

    def _variables(self, tenant_id: TenantId) -> dict[str, str]:
        try:
            all_ = json.loads(self._settings.sql_variables.get_secret_value())
            return {str(key): str(text) for key, text in all_.get(tenant_id, {}).items()}
        except (ValueError, AttributeError):
            raise ConfigurationError(
                "MATIH_SQL_VARIABLES is no JSON object of objects, by tenant"
            ) from None

    def _check_file(self, tenant_id: TenantId, text: str) -> None:
        allowed = self._settings.stream_files
        path = Path(urlsplit(text).path if "://" in text else text)
        if allowed is None or not path.resolve().is_relative_to(
            (allowed / safe_name(tenant_id)).resolve()
        ):
            raise ForbiddenError(
                "files of jobs are below the tenant's directory of MATIH_STREAM_FILES"
            )

    def _root(self, tenant_id: TenantId) -> str:
        base = self._settings.stream_storage or str(self._settings.home / "streams")
        return f"{base.rstrip('/')}/{safe_name(tenant_id)}"

    def _own(self, tenant_id: TenantId, where: str) -> str:
        root = self._root(tenant_id)
        if not where.startswith(f"{root}/") or ".." in where.split("/"):
            raise ForbiddenError("savepoints are below the tenant's own directory", root=root)
        return where


class _Unfilled(dict[str, str]):
    """Variables that stay what they are: `${NAME}`."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return f"${{{name}}}"


def _checked(script: Script, query: Query) -> Interpreted:
    """Check a query as far as that goes without connecting to anything."""
    node = script.plan(query)
    refuse_endless(node, "write its rows into a table with INSERT INTO … SELECT")
    for scan in scans(node):
        reader_of(scan, script.policy)
    return Interpreted(kind=StatementKind.QUERY, in_batch=_ends(node))


def _ends(node: Node) -> bool:
    """Whether a batch would give the same rows; see `Interpreted`."""
    return not has_windows(node) and all(is_bounded(scan.table) for scan in scans(node))


def _filled(value: str, variables: dict[str, str]) -> str:
    def one(match: re.Match[str]) -> str:
        if match[1] not in variables:
            raise SqlInvalidError(f"variable {match[1]} is not set", variable=match[1])
        return variables[match[1]]

    return _VARIABLE.sub(one, value)


def _open_secret(key: str) -> SqlInvalidError:
    return SqlInvalidError(
        f"option {key} is a secret: write '${{NAME}}' and let the operator set the variable",
        option=key,
    )
