"""Sessions of SQL, as Flink's SQL Gateway has them: declare tables, set options, start jobs.

A statement is executed before the answer: declaring and submitting take milliseconds, and what
takes long is a job, which outlives the session. So an operation is finished as soon as it exists,
and only its answer is kept. Sessions are in the key-value store: any replica knows them, and a
script that was refused leaves nothing behind.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta

from matih_ray.control.authorization import Action, Principal, authorize
from matih_ray.control.pages import MAX_PAGE_ITEMS
from matih_ray.control.ports import Ports
from matih_ray.control.stream_jobs import (
    JobDraft,
    SavepointDraft,
    Scripts,
    cancel_job,
    list_jobs,
    request_savepoint,
    submit_jobs,
)
from matih_ray.errors import (
    ConflictError,
    NotFoundError,
    SqlInvalidError,
    SqlNotSupportedError,
    StateConflictError,
    ValidationError,
)
from matih_ray.model.ids import TenantId
from matih_ray.model.sql_session import (
    Definition,
    ResultColumn,
    SqlOperation,
    SqlSession,
    StatementKind,
)

# As Flink's sql-gateway.session.idle-timeout.
IDLE = timedelta(minutes=10)
# Clients ask for status and results many times a second; not each time is it written that they do.
NOTED_EVERY = timedelta(minutes=1)
# Of a tenant; opening one looks at all of them, to end those that are idle.
MAX_SESSIONS = 100
# Answers that a session keeps; clients read each at once.
MAX_OPERATIONS = 50
# Declared tables and views.
MAX_DEFINITIONS = 500

NAME = "pipeline.name"
INTERVAL = "execution.checkpointing.interval"
PARALLELISM = "parallelism.default"
SAVEPOINT_DIRECTORY = "execution.checkpointing.savepoint-dir"
SAVEPOINT_PATH = "execution.state-recovery.path"
SAVEPOINT_PATH_BEFORE_2 = "execution.savepoint.path"
RUNTIME_MODE = "execution.runtime-mode"
OTHER_QUERY = "execution.state-recovery.ignore-unclaimed-state"
# Flink's options that jobs are started by. What else clients send about themselves is not kept.
KNOWN_OPTIONS = frozenset(
    {NAME, INTERVAL, PARALLELISM, SAVEPOINT_DIRECTORY, SAVEPOINT_PATH, SAVEPOINT_PATH_BEFORE_2}
    | {OTHER_QUERY, RUNTIME_MODE}
)

_SESSION = "flink::session::"
_OPERATION = "flink::operation::"
_OK = ((ResultColumn(name="result"),), (("OK",),))
_TEXT = r"'((?:[^']|'')*)'"
_SET = re.compile(rf"SET(?:\s+{_TEXT}\s*=\s*{_TEXT})?", re.IGNORECASE)
_RESET = re.compile(rf"RESET(?:\s+{_TEXT})?", re.IGNORECASE)
_SHOW = re.compile(r"SHOW\s+(TABLES|VIEWS|JOBS)", re.IGNORECASE)
_DROP = re.compile(
    r"DROP\s+(?:TEMPORARY\s+)?(?:TABLE|VIEW)\s+(IF\s+EXISTS\s+)?([^\s;]+)", re.IGNORECASE
)
_STOP = re.compile(rf"STOP\s+JOB\s+{_TEXT}(\s+WITH\s+SAVEPOINT)?(\s+WITH\s+DRAIN)?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+)\s*(ms|s|sec|min|m|h)?", re.IGNORECASE)
_UNIT_S = {"ms": 0.001, "s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600}

Answer = tuple[tuple[ResultColumn, ...], tuple[tuple[str | None, ...], ...]]


def open_session(
    principal: Principal, ports: Ports, name: str | None, properties: Mapping[str, str]
) -> SqlSession:
    """A new session of the caller.

    Raises:
        ConflictError: The tenant has as many as it may.
    """
    tenant_id = principal.tenant_id
    authorize(principal, Action.RUN, tenant_id)
    if _ended_idle(ports, tenant_id) >= MAX_SESSIONS:
        raise ConflictError(f"a tenant has at most {MAX_SESSIONS} sessions; close one")
    now = ports.clock()
    session = SqlSession(
        tenant_id=tenant_id,
        session_id=_new_id(ports),
        name=name,
        owner=principal.subject,
        properties={k: v for k, v in properties.items() if k in KNOWN_OPTIONS},
        opened_at=now,
        used_at=now,
    )
    ports.kv.compare_and_set(tenant_id, _SESSION + session.session_id, session.to_dict(), 0)
    return session


def get_session(principal: Principal, ports: Ports, session_id: str) -> SqlSession:
    """A session of the caller, which is in use now.

    Raises:
        NotFoundError: There is none: it was closed, was idle for too long, or is of somebody else.
    """
    session, version = _found(principal, ports, session_id)
    if ports.clock() - session.used_at > NOTED_EVERY:
        with suppress(StateConflictError):  # somebody else has just used it
            _stored(ports, session, version)
    return session


def close_session(principal: Principal, ports: Ports, session_id: str) -> None:
    """End a session; its jobs go on. Raises `NotFoundError`."""
    session, _ = _found(principal, ports, session_id)
    _forget(ports, session)


def execute(
    principal: Principal,
    ports: Ports,
    scripts: Scripts,
    session_id: str,
    statement: str,
    options: Mapping[str, str],
) -> SqlOperation:
    """Execute one statement; `options` are for it alone.

    Raises:
        NotFoundError: No such session.
        SqlInvalidError: The statement is wrong.
        SqlNotSupportedError: It is beyond what is there.
        StateConflictError: Another statement of the session came in between.
    """
    authorize(principal, Action.RUN, principal.tenant_id)
    session, version = _found(principal, ports, session_id)
    turn = _Turn(principal, ports, scripts, session, dict(options))
    columns, rows = turn.answer(statement.strip().rstrip(";").strip())
    operation = SqlOperation(
        operation_id=_new_id(ports), columns=columns, rows=rows, job_id=turn.job_id
    )
    key = _operation_key(session_id, operation.operation_id)
    ports.kv.compare_and_set(session.tenant_id, key, operation.to_dict(), 0)
    kept = (*turn.session.operations, operation.operation_id)
    try:
        after = turn.session.model_copy(update={"operations": kept[-MAX_OPERATIONS:]})
        _stored(ports, after, version)
    except StateConflictError:
        ports.kv.delete(session.tenant_id, key)
        raise
    for old in kept[:-MAX_OPERATIONS]:
        ports.kv.delete(session.tenant_id, _operation_key(session_id, old))
    return operation


def get_operation(
    principal: Principal, ports: Ports, session_id: str, operation_id: str
) -> SqlOperation:
    """An operation of a session of the caller. Raises `NotFoundError`."""
    session = get_session(principal, ports, session_id)
    found = ports.kv.get(session.tenant_id, _operation_key(session_id, operation_id))
    if found is None:
        raise NotFoundError(f"the session has no operation {operation_id}; it may be closed")
    assert isinstance(found.value, dict)  # noqa: S101 we wrote it
    return SqlOperation.from_json(found.value)


def close_operation(principal: Principal, ports: Ports, session_id: str, operation_id: str) -> None:
    """Forget the answer of an operation. Raises `NotFoundError`."""
    get_operation(principal, ports, session_id, operation_id)
    ports.kv.delete(principal.tenant_id, _operation_key(session_id, operation_id))


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

    def answer(self, text: str) -> Answer:
        """Columns and rows."""
        if match := _SET.fullmatch(text):
            return self._set(text, match[1], match[2])
        if match := _RESET.fullmatch(text):
            kept = {k: v for k, v in self.session.properties.items() if match[1] not in (None, k)}
            self._change(properties=kept)
            return _OK
        if match := _SHOW.fullmatch(text):
            return self._show(match[1].upper())
        if match := _DROP.fullmatch(text):
            return self._drop(match[2].replace("`", ""), missing_ok=match[1] is not None)
        if match := _STOP.fullmatch(text):
            return self._stop(match[1], saved=match[2] is not None)
        return self._sql(text)

    def _sql(self, text: str) -> Answer:
        earlier = [one.text for one in self.session.definitions]
        read = self._scripts.interpret(self.session.tenant_id, earlier, text)
        if read.kind is StatementKind.EXPLAIN:
            return (ResultColumn(name="result"),), (("\n".join(read.lines),),)
        if read.kind is StatementKind.DEFINITION:
            if len(self.session.definitions) >= MAX_DEFINITIONS:
                raise ConflictError(f"a session declares at most {MAX_DEFINITIONS} tables")
            added = Definition(name=read.name, text=text, is_view=read.is_view)
            self._change(definitions=(*self.session.definitions, added))
            return _OK
        options = {**self.session.properties, **self._options}
        if options.get(RUNTIME_MODE, "streaming").lower() != "streaming":
            # in Flink no row is late in a batch, which a job here cannot promise
            raise SqlNotSupportedError(
                "jobs run in streaming mode; SET 'execution.runtime-mode' = 'streaming' first",
                clause=RUNTIME_MODE,
            )
        draft = _draft(";\n".join([*earlier, text]), f"insert-into_{read.name}", options)
        jobs = submit_jobs(
            self._principal, self._ports, self._scripts, self.session.tenant_id, draft
        )
        self.job_id = jobs[0].job_id
        return (ResultColumn(name="job id"),), tuple((job.job_id,) for job in jobs)

    def _set(self, text: str, key: str | None, value: str | None) -> Answer:
        if key is None or value is None:
            shown = sorted(self.session.properties.items())
            return (ResultColumn(name="key"), ResultColumn(name="value")), tuple(shown)
        key, value = key.replace("''", "'"), value.replace("''", "'")
        if key in KNOWN_OPTIONS:
            self._change(properties={**self.session.properties, key: value})
        else:  # only what changes nothing
            self._scripts.interpret(self.session.tenant_id, (), text)
        return _OK

    def _show(self, what: str) -> Answer:
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


def _found(principal: Principal, ports: Ports, session_id: str) -> tuple[SqlSession, int]:
    stored = ports.kv.get(principal.tenant_id, _SESSION + session_id)
    if stored is not None:
        assert isinstance(stored.value, dict)  # noqa: S101 we wrote it
        session = SqlSession.from_json(stored.value)
        if session.owner == principal.subject and not _is_idle(ports, session):
            return session, stored.version
    raise NotFoundError(
        f"no session {session_id}: it was closed, or idle for {IDLE.seconds // 60} minutes; "
        "open another"
    )


def _stored(ports: Ports, session: SqlSession, version: int) -> None:
    used = session.model_copy(update={"used_at": ports.clock()})
    key = _SESSION + session.session_id
    ports.kv.compare_and_set(session.tenant_id, key, used.to_dict(), version)


def _ended_idle(ports: Ports, tenant_id: TenantId) -> int:
    """End the tenant's idle sessions; how many are left."""
    left = 0
    for key in ports.kv.keys(tenant_id, _SESSION):
        stored = ports.kv.get(tenant_id, key)
        if stored is None:
            continue
        assert isinstance(stored.value, dict)  # noqa: S101 we wrote it
        session = SqlSession.from_json(stored.value)
        if _is_idle(ports, session):
            _forget(ports, session)
        else:
            left += 1
    return left


def _forget(ports: Ports, session: SqlSession) -> None:
    for operation_id in session.operations:
        ports.kv.delete(session.tenant_id, _operation_key(session.session_id, operation_id))
    ports.kv.delete(session.tenant_id, _SESSION + session.session_id)


def _is_idle(ports: Ports, session: SqlSession) -> bool:
    return ports.clock() - session.used_at > IDLE


def _operation_key(session_id: str, operation_id: str) -> str:
    return f"{_OPERATION}{session_id}::{operation_id}"


def _new_id(ports: Ports) -> str:
    return str(uuid.UUID(ports.new_id()))  # Flink's own clients read handles as UUIDs
