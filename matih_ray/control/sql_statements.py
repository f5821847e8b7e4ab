"""What the statements of a session do: declare, set options, start jobs, ask for rows.

A statement is executed before the answer: declaring and submitting take milliseconds, and what
takes long is a job, which outlives the session. Only a query goes on behind its request: it reads
until its input ends, wherever the runtime lets it, and its rows are fetched when they are there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta

from matih_ray.control.authorization import Action, Principal, authorize
from matih_ray.control.pages import MAX_PAGE_ITEMS
from matih_ray.control.ports import Ports
from matih_ray.control.sql_sessions import (
    new_id,
    operations_of,
    remember,
    session_and_version,
)
from matih_ray.control.stream_jobs import (
    JobDraft,
    Rows,
    SavepointDraft,
    Scripts,
    cancel_job,
    list_jobs,
    request_savepoint,
    submit_jobs,
)
from matih_ray.errors import (
    ConflictError,
    MatihError,
    SqlInvalidError,
    SqlNotSupportedError,
    StateConflictError,
    ValidationError,
)
from matih_ray.model.sql_session import (
    ColumnType,
    Definition,
    Interpreted,
    OperationState,
    QueryTask,
    ResultColumn,
    SqlOperation,
    SqlSession,
    StatementKind,
)

# Declared tables and views.
MAX_DEFINITIONS = 500
# Of a tenant at a time: each is a process.
MAX_QUERIES = 4
# When a query has ended, or nobody runs it any more: longer than it may take, and than a process
# takes to start on a busy machine.
QUERY_OVERDUE = timedelta(minutes=5)

NAME = "pipeline.name"
INTERVAL = "execution.checkpointing.interval"
PARALLELISM = "parallelism.default"
SAVEPOINT_DIRECTORY = "execution.checkpointing.savepoint-dir"
SAVEPOINT_PATH = "execution.state-recovery.path"
SAVEPOINT_PATH_BEFORE_2 = "execution.savepoint.path"
RUNTIME_MODE = "execution.runtime-mode"
OTHER_QUERY = "execution.state-recovery.ignore-unclaimed-state"
STATE_BACKEND = "state.backend.type"
# Flink's options that jobs are started by. What else clients send about themselves is not kept.
KNOWN_OPTIONS = frozenset(
    {NAME, INTERVAL, PARALLELISM, SAVEPOINT_DIRECTORY, SAVEPOINT_PATH, SAVEPOINT_PATH_BEFORE_2}
    | {OTHER_QUERY, RUNTIME_MODE, STATE_BACKEND}
)

_OK = ((ResultColumn(name="result"),), (("OK",),))
_TEXT = r"'((?:[^']|'')*)'"
_SET = re.compile(rf"SET(?:\s+{_TEXT}\s*=\s*{_TEXT})?", re.IGNORECASE)
_RESET = re.compile(rf"RESET(?:\s+{_TEXT})?", re.IGNORECASE)
_SHOW = re.compile(
    r"SHOW\s+(TABLES|VIEWS|JOBS|CATALOGS|DATABASES|CURRENT\s+CATALOG|CURRENT\s+DATABASE)",
    re.IGNORECASE,
)
_SHOW_CREATE = re.compile(r"SHOW\s+CREATE\s+(?:TABLE|VIEW)\s+([^\s;]+)", re.IGNORECASE)
_DESCRIBE = re.compile(r"(?:DESCRIBE|DESC)\s+([^\s;]+)", re.IGNORECASE)
_USE = re.compile(r"USE\s+(?:CATALOG\s+)?([^\s;]+)", re.IGNORECASE)
_DROP = re.compile(
    r"DROP\s+(?:TEMPORARY\s+)?(?:TABLE|VIEW)\s+(IF\s+EXISTS\s+)?([^\s;]+)", re.IGNORECASE
)
_STOP = re.compile(rf"STOP\s+JOB\s+{_TEXT}(\s+WITH\s+SAVEPOINT)?(\s+WITH\s+DRAIN)?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+)\s*(ms|s|sec|min|m|h)?", re.IGNORECASE)
_UNIT_S = {"ms": 0.001, "s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600}

# Where a session's own tables are, in Flink's words. Catalog tables are named in full.
CATALOG, DATABASE = "default_catalog", "default_database"
_PLACES = {
    "CATALOGS": ("catalog name", CATALOG),
    "DATABASES": ("database name", DATABASE),
    "CURRENT CATALOG": ("current catalog name", CATALOG),
    "CURRENT DATABASE": ("current database name", DATABASE),
}
_COLUMN_FACTS = ("name", "type", "null", "key", "extras", "watermark")

Answer = tuple[tuple[ResultColumn, ...], Rows]


def known_options(properties: Mapping[str, str]) -> dict[str, str]:
    """Those of a client's options that jobs are started by."""
    return {key: value for key, value in properties.items() if key in KNOWN_OPTIONS}


def execute(
    principal: Principal,
    ports: Ports,
    scripts: Scripts,
    session_id: str,
    statement: str,
    options: Mapping[str, str],
) -> SqlOperation:
    """Execute one statement; `options` are for it alone. A query only begins.

    Raises:
        NotFoundError: No such session.
        SqlInvalidError: The statement is wrong.
        SqlNotSupportedError: It is beyond what is there.
        ConflictError: The tenant runs as many queries as it may.
        StateConflictError: Another statement of the session came in between.
    """
    authorize(principal, Action.RUN, principal.tenant_id)
    session, version = session_and_version(principal, ports, session_id)
    text = statement.strip().rstrip(";").strip()
    turn = _Turn(principal, ports, scripts, session, dict(options))
    operation = turn.operation(text)
    operations = operations_of(ports, session)
    if operation.is_query:
        operations.begin(operation, ports.clock(), MAX_QUERIES)
    else:
        operations.put(operation)
    try:
        remember(ports, scripts, turn.session, version, operation)
    except StateConflictError:
        operations.forget(operation.operation_id)
        raise
    if operation.is_query:
        task = QueryTask(
            tenant_id=session.tenant_id,
            session_id=session_id,
            operation_id=operation.operation_id,
            earlier=tuple(one.text for one in session.definitions),
            text=text,
        )
        try:
            scripts.start_query(task)
        except MatihError:
            operations.forget(operation.operation_id)
            raise
    return operation


class _Turn:
    """One statement of a session. `session` is as it is afterwards."""

    def __init__(
        self,
        principal: Principal,
        ports: Ports,
        scripts: Scripts,
        session: SqlSession,
        options: dict[str, str],
    ) -> None:
        self._principal = principal
        self._ports = ports
        self._scripts = scripts
        self._options = options
        self.session = session
        self.job_id: str | None = None

    def operation(self, text: str) -> SqlOperation:
        """The statement with its answer; a query is still to be run."""
        operation_id = new_id(self._ports)
        answer = self._answer(text)
        if answer is None:
            return SqlOperation(
                operation_id=operation_id,
                state=OperationState.RUNNING,
                is_query=True,
                job_id=operation_id.replace("-", ""),
                due_at=self._ports.clock() + QUERY_OVERDUE,
            )
        columns, rows = answer
        return SqlOperation(
            operation_id=operation_id, columns=columns, rows=rows, job_id=self.job_id
        )

    def _answer(self, text: str) -> Answer | None:
        """Columns and rows, None for a query."""
        if match := _SET.fullmatch(text):
            return self._set(text, match[1], match[2])
        if match := _RESET.fullmatch(text):
            kept = {k: v for k, v in self.session.properties.items() if match[1] not in (None, k)}
            self._change(properties=kept)
            return _OK
        if match := _SHOW.fullmatch(text):
            return self._show(" ".join(match[1].upper().split()))
        if match := _SHOW_CREATE.fullmatch(text) or _DESCRIBE.fullmatch(text):
            return self._describe(match[1], created=match.re is _SHOW_CREATE)
        if match := _USE.fullmatch(text):
            return self._use(match[1].replace("`", ""))
        if match := _DROP.fullmatch(text):
            return self._drop(match[2].replace("`", ""), missing_ok=match[1] is not None)
        if match := _STOP.fullmatch(text):
            return self._stop(match[1], saved=match[2] is not None)
        return self._sql(text)

    def _sql(self, text: str) -> Answer | None:
        earlier = [one.text for one in self.session.definitions]
        read = self._scripts.interpret(self.session.tenant_id, earlier, text)
        if read.kind is StatementKind.EXPLAIN:
            return (ResultColumn(name="result"),), (("\n".join(read.lines),),)
        if read.kind is StatementKind.DEFINITION:
            self._declare(read)
            return _OK
        options = {**self.session.properties, **self._options}
        if options.get(RUNTIME_MODE, "streaming").lower() != "streaming" and not read.in_batch:
            # in Flink no row is late in a batch, and a batch has an end
            raise SqlNotSupportedError(
                "windows and tables without an end need streaming mode; SET "
                "'execution.runtime-mode' = 'streaming' first",
                clause=RUNTIME_MODE,
            )
        if read.kind is StatementKind.QUERY:
            return None
        script = ";\n".join([*_settings(options), *earlier, text])
        draft = _draft(script, f"insert-into_{read.name}", options)
        self._declare(read)
        jobs = submit_jobs(
            self._principal, self._ports, self._scripts, self.session.tenant_id, draft
        )
        self.job_id = jobs[0].job_id
        return (ResultColumn(name="job id"),), tuple((job.job_id,) for job in jobs)

    def _declare(self, read: Interpreted) -> None:
        """Keep what a statement declares; IF NOT EXISTS may declare nothing new."""
        known = {one.name for one in self.session.definitions}
        if not read.declares or read.name in known:
            return
        if len(known) >= MAX_DEFINITIONS:
            raise ConflictError(f"a session declares at most {MAX_DEFINITIONS} tables")
        added = Definition(name=read.name, text=read.declares, is_view=read.is_view)
        self._change(definitions=(*self.session.definitions, added))

    def _set(self, text: str, key: str | None, value: str | None) -> Answer:
        if key is None or value is None:
            shown = sorted(self.session.properties.items())
            return (ResultColumn(name="key"), ResultColumn(name="value")), tuple(shown)
        key, value = key.replace("''", "'"), value.replace("''", "'")
        if key not in KNOWN_OPTIONS or key == STATE_BACKEND:  # scripts know what it may be
            self._scripts.interpret(self.session.tenant_id, (), text)
        if key in KNOWN_OPTIONS:
            self._change(properties={**self.session.properties, key: value})
        return _OK

    def _describe(self, name: str, *, created: bool) -> Answer:
        if created:
            plain = name.replace("`", "")
            for one in self.session.definitions:
                if one.name == plain:
                    return (ResultColumn(name="result"),), ((one.text,),)
            raise SqlInvalidError(f"the session declares no {plain}")
        earlier = [one.text for one in self.session.definitions]
        found = self._scripts.describe(self.session.tenant_id, earlier, name)
        return tuple(
            ResultColumn(
                name=fact, type=ColumnType(root="BOOLEAN" if fact == "null" else "VARCHAR")
            )
            for fact in _COLUMN_FACTS
        ), found

    def _use(self, name: str) -> Answer:
        if name not in (CATALOG, DATABASE, f"{CATALOG}.{DATABASE}"):
            raise SqlNotSupportedError(
                f"a session is always in {CATALOG}.{DATABASE}; write names of catalog tables "
                "in full",
                clause="USE",
            )
        return _OK

    def _show(self, what: str) -> Answer:
        if what in _PLACES:
            title, place = _PLACES[what]
            return (ResultColumn(name=title),), ((place,),)
        if what == "JOBS":
            page = list_jobs(
                self._principal,
                self._ports,
                self.session.tenant_id,
                offset=0,
                limit=MAX_PAGE_ITEMS,  # the newest
            )
            columns = ("job id", "job name", "status", "start time")
            return tuple(ResultColumn(name=name) for name in columns), tuple(
                (job.job_id, job.name, job.state.value, job.created_at.isoformat())
                for job in page.items
            )
        views = what == "VIEWS"
        names = sorted(one.name for one in self.session.definitions if one.is_view or not views)
        return (ResultColumn(name=f"{what[:-1].lower()} name"),), tuple((name,) for name in names)

    def _drop(self, name: str, *, missing_ok: bool) -> Answer:
        kept = tuple(one for one in self.session.definitions if one.name != name)
        if len(kept) == len(self.session.definitions) and not missing_ok:
            raise SqlInvalidError(f"the session declares no {name}")
        self._change(definitions=kept)
        return _OK

    def _stop(self, job_id: str, *, saved: bool) -> Answer:
        tenant_id = self.session.tenant_id
        if not saved:
            cancel_job(self._principal, self._ports, tenant_id, job_id)
            return _OK
        job = request_savepoint(
            self._principal, self._ports, self._scripts, tenant_id, job_id,
            SavepointDraft(directory=self.session.properties.get(SAVEPOINT_DIRECTORY)), stop=True,
        )  # fmt: skip
        return (ResultColumn(name="savepoint path"),), ((job.savepoints[-1].directory,),)

    def _change(self, **changes: object) -> None:
        self.session = self.session.model_copy(update=changes)


def _settings(options: Mapping[str, str]) -> list[str]:
    """What a script itself must say of a session's options."""
    if STATE_BACKEND not in options:
        return []
    value = options[STATE_BACKEND].replace("'", "''")
    return [f"SET '{STATE_BACKEND}' = '{value}'"]


def _draft(script: str, name: str, options: Mapping[str, str]) -> JobDraft:
    """A job by Flink's options; those that are not known here are not guessed at."""
    chosen: dict[str, object] = {"script": script, "name": options.get(NAME, name)[:200]}
    if INTERVAL in options:
        chosen["checkpointIntervalS"] = _seconds(options[INTERVAL])
    if PARALLELISM in options:
        chosen["parallelism"] = options[PARALLELISM]
    chosen["savepointPath"] = options.get(SAVEPOINT_PATH, options.get(SAVEPOINT_PATH_BEFORE_2))
    chosen["allowOtherQuery"] = options.get(OTHER_QUERY, "false")
    return JobDraft.from_json(chosen)


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValidationError(f"{text!r} is no duration; write 10s or 1 min", field=INTERVAL)
    return int(match[1]) * _UNIT_S[(match[2] or "ms").lower()]
