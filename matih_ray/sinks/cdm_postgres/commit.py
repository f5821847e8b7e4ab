"""The commit: rows and marker in one transaction that holds the stream's row.

Whoever wants to know what became of a commit takes the same row first, and so waits until the
transaction in question has ended one way or the other. An outcome is therefore unknown only while
the server cannot be asked.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg2
from psycopg2 import errors as pg
from psycopg2 import sql

from matih_ray.errors import (
    CommitRejectedError,
    CommitUnknownError,
    FencedError,
    SinkError,
    SinkUnavailableError,
)
from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.ids import RunId
from matih_ray.model.policy import WriteMode
from matih_ray.model.receipt import CommitMarker, WriteReceipt
from matih_ray.sinks.base import CommitOutcome
from matih_ray.sinks.cdm_postgres import statements
from matih_ray.sinks.cdm_postgres.session import Session, Sessions, mapped
from matih_ray.sinks.cdm_postgres.tables import Names
from matih_ray.sinks.cdm_postgres.target import CdmTarget
from matih_ray.sinks.cdm_postgres.writer import drop_stages
from matih_ray.sinks.fencing import already_applied, runs_after

# A reply is lost when a connection breaks or a server restarts: asked again after 0.1 to 3 s.
ATTEMPTS = 6
BACKOFF_FIRST_S = 0.1


@dataclass(frozen=True)
class Held:
    """The stream's row: its marker, the runs before it, and stages of an unpublished overwrite."""

    relation: int
    marker: CommitMarker | None
    runs: tuple[RunId, ...]
    loading: tuple[str, ...]


def hold(session: Session, names: Names, target: CdmTarget) -> Held:
    """Lock and read the stream's row, until the transaction ends.

    Raises:
        FencedError: The table is not the one that was prepared.
    """
    rows = session.rows(
        sql.SQL(
            "SELECT relation, marker, runs, loading FROM {} WHERE stream = %s FOR UPDATE"
        ).format(names.streams),
        [target.stream],
    )
    if not rows or rows[0][0] != target.relation:
        raise FencedError(
            f"table {target.table} was dropped and created again since this run prepared; start a "
            "new run",
            table=target.table,
        )
    [(relation, marker, runs, loading)] = rows
    return Held(
        relation=relation,
        marker=None if marker is None else CommitMarker.from_json(marker),
        runs=tuple(map(RunId, json.loads(runs))),
        loading=tuple(loading),
    )


class MarkedCommit:
    """One commit of receipts with their marker."""

    def __init__(
        self,
        sessions: Sessions,
        names: Names,
        stream: StreamKey,
        target: CdmTarget,
        mode: WriteMode,
        marker: CommitMarker,
    ) -> None:
        self._sessions = sessions
        self._names = names
        self._stream = stream
        self._target = target
        self._mode = mode
        self._marker = marker
        self._table = names.table(target.table)
        self._what = f"commit {marker.sequence} of run {marker.run_id}"

    def run(self, receipts: Sequence[WriteReceipt]) -> CommitOutcome:
        """Apply the commit, or find that it was; see `SinkEndpoint.commit` for what is raised."""
        in_doubt = False
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(BACKOFF_FIRST_S * 2 ** (attempt - 1))
            try:
                outcome = self._attempt(receipts)
            except _ReplyLostError:
                in_doubt = True
            except SinkUnavailableError as error:
                if not in_doubt:
                    raise CommitRejectedError(f"{error.message}; nothing was committed") from None
            else:
                self._drop_garbage()
                # what is found applied after a doubt was applied by this very call
                return CommitOutcome.APPLIED if in_doubt else outcome
        raise CommitUnknownError(
            f"{self._what} may or may not have been applied, and the database does not answer; "
            "ask for the marker"
        )

    def _attempt(self, receipts: Sequence[WriteReceipt]) -> CommitOutcome:
        session = self._sessions.get()
        outcome = CommitOutcome.ALREADY_APPLIED
        with mapped(self._what):
            session.rows("BEGIN")
            try:
                held = hold(session, self._names, self._target)
                if not already_applied(
                    held.marker, self._target.predecessor, held.runs, self._marker
                ):
                    outcome = CommitOutcome.APPLIED
                    self._apply(session, held, receipts)
            except BaseException:
                if not session.is_lost:
                    session.rows("ROLLBACK")
                raise
            self._send_commit(session)
        return outcome

    def _send_commit(self, session: Session) -> None:
        try:
            session.rows("COMMIT")
        except psycopg2.Error as error:
            # the server's own no is a no; but a backend that is told to die may have committed
            if error.pgcode is not None and not session.is_lost:
                raise
            session.close()
            raise _ReplyLostError from None

    def _apply(self, session: Session, held: Held, receipts: Sequence[WriteReceipt]) -> None:
        stages = [one for one in map(_staged, sorted(receipts, key=_sequence)) if one is not None]
        for stage in stages:
            self._check_whole(session, stage)
        begun = held.marker is not None and held.marker.run_id == self._marker.run_id
        loading = held.loading if begun else ()
        shown = self._mode.shows_each_commit or (begun and _is_published(held.marker))
        dropped = [] if begun else list(held.loading)
        if not shown and not self._marker.published:
            loading = (*loading, *(stage.name for stage in stages))
        else:
            names = [*loading, *(stage.name for stage in stages)]
            for name in names:
                self._upsert(session, name)
            if not shown:
                self._sweep(session, names)
            dropped += names
            loading = ()
        drop_stages(session, self._names, dropped)
        session.rows(
            sql.SQL("UPDATE {} SET marker = %s, runs = %s, loading = %s WHERE stream = %s").format(
                self._names.streams
            ),
            [
                self._marker.to_json(),
                json.dumps(runs_after(held.marker, held.runs, self._marker)),
                list(loading),
                self._target.stream,
            ],
        )

    def _check_whole(self, session: Session, stage: _Staged) -> None:
        """A crash of the server empties unlogged tables; what is left says so by its number."""
        [(rows,)] = session.rows(
            sql.SQL("SELECT count(*) FROM {}").format(self._names.table(stage.name))
        )
        if rows != stage.rows:
            raise SinkError(
                f"cannot {self._what}: slice {stage.slice_key} was written with {stage.rows} rows "
                f"and {rows} are left, since the database has crashed; resume the run, which "
                "reads it again",
                slice=stage.slice_key,
            )

    def _upsert(self, session: Session, stage: str) -> None:
        source, columns = self._names.table(stage), self._target.columns
        session.rows("SAVEPOINT upsert")
        try:
            session.rows(statements.upsert_live(self._table, source, columns, distinct=False))
        except pg.CardinalityViolation:  # the slice has a row twice, in two versions perhaps
            session.rows("ROLLBACK TO SAVEPOINT upsert")
            session.rows(statements.upsert_live(self._table, source, columns, distinct=True))
        session.rows("RELEASE SAVEPOINT upsert")
        session.rows(statements.upsert_deleted(self._table, source, columns))

    def _sweep(self, session: Session, stages: Sequence[str]) -> None:
        session.rows(statements.remember_seen([self._names.table(name) for name in stages]))
        stream = self._stream
        scope = [stream.tenant_id, stream.endpoint_id, stream.unit_id]
        session.rows(statements.sweep(self._table), [self._marker.run_id, *scope])

    def _drop_garbage(self) -> None:
        """Drop stages of owners that can never commit again: those that prepared on another marker
        than this one did. Left for the next commit if something is in the way."""
        with contextlib.suppress(SinkError), mapped("drop stages"):
            session = self._sessions.get()
            with session.transaction():
                session.rows("SET LOCAL lock_timeout = 100")
                held = hold(session, self._names, self._target)
                found = session.rows(
                    sql.SQL(
                        "SELECT name FROM {} WHERE stream = %s AND predecessor <> %s "
                        "AND name <> ALL(%s)"
                    ).format(self._names.stages),
                    [self._target.stream, self._target.predecessor_text, list(held.loading)],
                )
                drop_stages(session, self._names, [name for (name,) in found])


@dataclass(frozen=True)
class _Staged:
    name: str
    slice_key: str
    rows: int


class _ReplyLostError(Exception):
    """COMMIT was sent and nobody said what became of it."""


def _staged(receipt: WriteReceipt) -> _Staged | None:
    name = receipt.payload["stage"]
    return None if name is None else _Staged(str(name), receipt.slice_key, receipt.rows)


def _sequence(receipt: WriteReceipt) -> int:
    return receipt.sequence


def _is_published(marker: CommitMarker | None) -> bool:
    return marker is not None and marker.published
