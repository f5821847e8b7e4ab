"""Replication slots: where the server keeps what a reader has not confirmed."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg2
from psycopg2 import sql

from matih_ray.errors import (
    ChangesLostError,
    OpenTransactionError,
    ReplicationNotReadyError,
    SourceError,
    SourcePermissionError,
)
from matih_ray.sources.postgres.changes.messages import lsn_of, lsn_text
from matih_ray.sources.postgres.failures import typed
from matih_ray.sources.postgres.session import Session

PLUGIN = "pgoutput"
# A slot is ready when all transactions that were under way have ended. Longer ones are for a
# person to look at.
CREATE_TIMEOUT_MS = 120_000
# How a person finds such transactions.
OPEN = "see pg_stat_activity, rows with backend_xid, by xact_start"
_TAKEN, _NO_ROOM, _DENIED, _TIMED_OUT = "42710", "53400", "42501", "57014"


@dataclass(frozen=True)
class Slot:
    """A slot. `confirmed` is the position up to which its reader has what it was told; `lag_bytes`
    is how much of the log the server keeps for it; `lost` says that this was too much."""

    name: str
    plugin: str
    here: bool
    confirmed: int
    lag_bytes: int
    lost: bool


def find_slot(session: Session, name: str) -> Slot | None:
    """The slot of that name.

    Raises:
        ReplicationNotReadyError: It is of another plugin or database.
    """
    rows = session.rows(_SLOT.format(name=sql.Literal(name)))
    if not rows:
        return None
    ((plugin, here, confirmed, lag, lost),) = rows
    slot = Slot(name, plugin, here, lsn_of(confirmed or "0/0"), int(lag or 0), bool(lost))
    if slot.plugin != PLUGIN or not slot.here:
        raise ReplicationNotReadyError(
            f"slot {name} is of another plugin or database; choose another 'slot.name'"
        )
    return slot


def ensure_slot(session: Session, name: str) -> Slot:
    """The slot of that name, made if there is none.

    Raises:
        ReplicationNotReadyError: There is no room for one more, or it is another's.
        SourcePermissionError: The role may not.
        OpenTransactionError: A transaction stays open that the slot has to wait for.
        ChangesLostError: It is there, and the server has given it up.
    """
    slot = find_slot(session, name)
    if slot is None:
        _create(session, name)
        slot = find_slot(session, name)
    if slot is None:
        raise SourceError(f"slot {name} was dropped while it was looked at")
    check_kept(slot)
    return slot


def check_kept(slot: Slot) -> None:
    """The server still has what the slot needs.

    Raises:
        ChangesLostError: It has given it up, by `max_slot_wal_keep_size`.
    """
    if slot.lost:
        raise ChangesLostError(
            f"the server has removed the log that slot {slot.name} needs (max_slot_wal_keep_size); "
            f"run SELECT pg_drop_replication_slot('{slot.name}') and start the job anew",
            slot=slot.name,
        )


def slot_of_position(session: Session, name: str, position: int) -> Slot:
    """The slot, which must hold everything behind a position.

    Raises:
        ChangesLostError: It is gone, or what is behind the position was confirmed to it by others.
    """
    slot = find_slot(session, name)
    if slot is None:
        raise ChangesLostError(
            f"there is no slot {name} any more, and with it went the changes behind "
            f"{lsn_text(position)}; start the job anew",
            slot=name,
        )
    check_kept(slot)
    if slot.confirmed > position:
        raise ChangesLostError(
            f"slot {name} was confirmed up to {lsn_text(slot.confirmed)}, and this position is "
            f"{lsn_text(position)}: changes between them are not kept. Does another job read from "
            "the slot, or is the savepoint an old one? Start the job anew",
            slot=name,
        )
    return slot


def _create(session: Session, name: str) -> None:
    session.rows(f"SET statement_timeout = {CREATE_TIMEOUT_MS}")
    statement = sql.SQL("SELECT pg_create_logical_replication_slot({}, {})").format(
        sql.Literal(name), sql.Literal(PLUGIN)
    )
    try:
        session.rows(statement)
    except psycopg2.Error as error:
        if error.pgcode == _TAKEN:
            return  # somebody was faster
        raise _refused(error, name) from None
    finally:
        if not session.connection.closed:
            session.rows("SET statement_timeout = 0")


def _refused(error: psycopg2.Error, name: str) -> SourceError:
    if error.pgcode == _NO_ROOM:
        return ReplicationNotReadyError(
            "all replication slots are in use; raise max_replication_slots and restart the server, "
            "or drop one that nobody uses (SELECT * FROM pg_replication_slots)"
        )
    if error.pgcode == _DENIED:
        return SourcePermissionError(
            f"this role may not make slot {name}; run ALTER ROLE … REPLICATION"
        )
    if error.pgcode == _TIMED_OUT:
        return OpenTransactionError(f"slot {name} waits for a transaction that stays open; {OPEN}")
    return typed(error, f"making slot {name}")


# `wal_status` says `lost` when the log was removed.
_SLOT = sql.SQL(
    """
    SELECT plugin, database IS NOT DISTINCT FROM current_database(), confirmed_flush_lsn::text,
           pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), wal_status = 'lost'
    FROM pg_replication_slots WHERE slot_name = {name}
    """
)
