"""Plans of runs by the log, and the snapshot that the first of them reads in."""

from __future__ import annotations

import itertools

import psycopg2

from matih_ray.errors import PlanError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import JsonValue
from matih_ray.sources.postgres.catalog import Relation
from matih_ray.sources.postgres.change_runs.position import (
    LogPosition,
    LogSlice,
    RowsSlice,
    parse_change,
    position_of,
)
from matih_ray.sources.postgres.change_runs.preparing import check_log
from matih_ray.sources.postgres.change_runs.rows import DELETED, VERSION
from matih_ray.sources.postgres.changes.messages import lsn_of, lsn_text
from matih_ray.sources.postgres.changes.prerequisites import check_server
from matih_ray.sources.postgres.changes.snapshot import current_view, settle
from matih_ray.sources.postgres.failures import typed
from matih_ray.sources.postgres.full import plan_full
from matih_ray.sources.postgres.session import Session
from matih_ray.sources.postgres.slices import parse
from matih_ray.sources.postgres.snapshot import HeldSnapshot
from matih_ray.sources.slices import keyed_slice

ROWS, LOG = "cdc-rows", "cdc-log"
# Bytes of the server's log in one slice: what a lost worker has to read again.
LOG_SLICE_BYTES = 256 * 1024 * 1024
# Each slice makes the server go through its log from where the slot is confirmed, which for eight
# slices is four times as much as for one.
MAX_LOG_SLICES = 8

_ROWS_NOTE = (
    "the first run reads the rows that are there, in one database snapshot, which holds back "
    "VACUUM while the run lasts; it starts over if it is interrupted"
)
_LOG_NOTE = "until a run has ended well, the server keeps its log from {0} on for slot {1}"


def plan_changes(
    session: Session,
    unit: EndpointUnitDescriptor,
    relation: Relation,
    checkpoint: Checkpoint | None,
    policy: IngestionPolicy,
    target_rows: int,
) -> IngestionPlan:
    """All rows before the first commit, the log from the checkpoint to its present end after it.

    Raises:
        PlanError: The policy does not fit.
        ChangesLostError: The server has not all of the log.
        SourceChangedError: The table is not the one that was read before.
    """
    if policy.exact_count:
        raise PlanError(f"{unit.unit_id}: changes in a log cannot be counted", unit_id=unit.unit_id)
    position = position_of(checkpoint, unit)
    if position is None:  # nobody has opened the log: the plan is to be looked at, not followed
        full = plan_full(session, unit, relation, target_rows)
        return full.model_copy(update={"notes": (*full.notes, _ROWS_NOTE)})
    if not position.loaded:
        plan = _rows(plan_full(session, unit, relation, target_rows), position)
    else:
        check_server(session)
        check_log(session, unit, relation, position)
        plan = _log(session, unit, position)
    return plan.model_copy(update={"cursor_column": VERSION, "delete_column": DELETED})


def _rows(full: IngestionPlan, position: LogPosition) -> IngestionPlan:
    """The slices of a full load, behind the last of which the log goes on."""
    slices = [
        keyed_slice(one.sequence, RowsSlice(part=parse(one), lsn=position.lsn), one.estimated_rows)
        for one in full.slices
    ]
    after = position.model_copy(update={"loaded": True}).to_dict()
    slices[-1] = slices[-1].model_copy(update={"cursor_after": after})
    facts: dict[str, JsonValue] = {**full.statistics, "slot": position.slot, "lower": position.lsn}
    return full.model_copy(
        update={
            "slices": tuple(slices),
            "strategy": ROWS,
            "statistics": facts,
            "resumable": False,
            "notes": (_ROWS_NOTE,),
        }
    )


def _log(session: Session, unit: EndpointUnitDescriptor, position: LogPosition) -> IngestionPlan:
    (flushed,) = session.row("SELECT pg_current_wal_flush_lsn()::text")
    lower, upper = lsn_of(position.lsn), lsn_of(flushed)
    step = max(LOG_SLICE_BYTES, -(-(upper - lower) // MAX_LOG_SLICES))
    bounds = [*range(lower, upper, step), max(lower, upper)]
    slices = [
        _log_slice(number, position, start, end)
        for number, (start, end) in enumerate(itertools.pairwise(bounds))
    ]
    return IngestionPlan(
        endpoint_id=unit.endpoint_id,
        unit_id=unit.unit_id,
        slices=tuple(slices),
        strategy=LOG,
        statistics={
            "slot": position.slot,
            "lower": position.lsn,
            "upper": lsn_text(bounds[-1]),
            "totalRows": None if slices else 0,
            "logBytes": bounds[-1] - lower,
        },
        one_at_a_time=True,  # a slot has one reader
        notes=(_LOG_NOTE.format(position.lsn, position.slot),),
    )


def _log_slice(sequence: int, position: LogPosition, lower: int, upper: int) -> IngestionSlice:
    view = position.view
    params = LogSlice(
        system=position.system,
        table=position.table,
        slot=position.slot,
        lower=lsn_text(lower),
        upper=lsn_text(upper),
        view=view if view is not None and lower < view.until else None,
    )
    after = position.model_copy(
        update={
            "lsn": lsn_text(upper),
            "view": view if view is not None and upper < view.until else None,
        }
    )
    return keyed_slice(sequence, params, cursor_after=after.to_dict())


class HeldRows:
    """The snapshot that all rows of a first run are read in. Its list of transactions goes into
    the cursor."""

    def __init__(self, session: Session, plan: IngestionPlan) -> None:
        """Take over a session, which `close` closes.

        Raises:
            OpenTransactionError: A transaction stays open.
            SourceChangedError: Partitions were added or removed since planning.
            SourceError: The table cannot be locked.
        """
        try:
            settle(session, plan.unit_id)
        except psycopg2.Error as error:
            session.close()
            raise typed(error, f"taking a snapshot of {plan.unit_id}") from None
        except BaseException:
            session.close()
            raise
        self._held = HeldSnapshot(session, plan)
        try:
            self._view = current_view(session)
        except psycopg2.Error as error:
            self._held.close()
            raise typed(error, f"taking a snapshot of {plan.unit_id}") from None

    def bind(self, slice_: IngestionSlice) -> IngestionSlice:
        """The slice, and the cursor behind it, of this snapshot."""
        params = parse_change(slice_)
        if not isinstance(params, RowsSlice):
            return slice_
        bound = params.model_copy(update={"snapshot": self._held.name})
        after = slice_.cursor_after
        if isinstance(after, dict):
            position = LogPosition.from_json(after)
            after = position.model_copy(update={"view": self._view}).to_dict()
        return slice_.model_copy(update={"params": bound.to_dict(), "cursor_after": after})

    def close(self) -> None:
        """Let go of snapshot and lock. Safe to call twice."""
        self._held.close()
