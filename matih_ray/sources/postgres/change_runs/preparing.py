"""Slot and publication of one reader of one table."""

from __future__ import annotations

import time

import psycopg2
from psycopg2 import sql

from matih_ray.errors import (
    ChangesLostError,
    ReplicationNotReadyError,
    SourceChangedError,
    SourceUnavailableError,
)
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.policy import IngestionPolicy, WriteMode
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.sources.postgres.catalog import Relation
from matih_ray.sources.postgres.change_runs.position import LogPosition, LogSlice, position_of
from matih_ray.sources.postgres.change_runs.rows import VERSION
from matih_ray.sources.postgres.changes.messages import lsn_of, lsn_text
from matih_ray.sources.postgres.changes.prerequisites import (
    check_server,
    check_table,
    ensure_publication,
    is_published,
)
from matih_ray.sources.postgres.changes.slots import ensure_slot, find_slot
from matih_ray.sources.postgres.columns import selected_columns
from matih_ray.sources.postgres.session import Session

# A slot that was being read is free a moment after its reader's connection has ended.
FREE_WITHIN_S = 10.0
_LOOK_AGAIN_S = 0.1
_IN_USE, _DENIED = "55006", "42501"


def slot_of(reader: str) -> str:
    """The slot of a reader, and its publication."""
    return f"matih_{reader}"


def opened(
    session: Session,
    unit: EndpointUnitDescriptor,
    relation: Relation,
    checkpoint: Checkpoint | None,
    policy: IngestionPolicy,
    reader: str,
) -> Checkpoint:
    """The checkpoint that a run begins from: the stored one, or one of a slot that is there now.

    Raises:
        ReplicationNotReadyError: The database or the table is not set up for this.
        SourcePermissionError: The role may not.
        OpenTransactionError: A transaction stays open that a new slot has to wait for.
    """
    if checkpoint is not None and position_of(checkpoint, unit) is not None:
        return checkpoint
    check_server(session)
    check_table(session, relation)
    if policy.effective_write_mode is WriteMode.MERGE:
        _check_identity(session, relation, unit, policy.key_columns or unit.primary_key)
    name = slot_of(reader)
    columns = [column.name for column in selected_columns(unit, policy)]
    ensure_publication(session, name, relation, columns)
    found = find_slot(session, name)
    if found is not None and found.lost:  # of a former life, and no run needs it
        _drop_slot(session, name)
    slot = ensure_slot(session, name)
    # not what the slot holds from before: the snapshot shows that
    (now,) = session.row("SELECT pg_current_wal_insert_lsn()::text")
    position = LogPosition(
        system=_system(session),
        table=relation.oid,
        slot=name,
        lsn=lsn_text(max(slot.confirmed, lsn_of(now))),
    )
    return Checkpoint(cursor=position.to_dict(), cursor_column=VERSION)


def check_log(
    session: Session,
    unit: EndpointUnitDescriptor,
    relation: Relation,
    place: LogPosition | LogSlice,
) -> None:
    """The log behind a position is there, and has the table's changes.

    Raises:
        ChangesLostError: It is not there any more.
        SourceChangedError: The table was made again, or is not published any more.
    """
    behind = place.lsn if isinstance(place, LogPosition) else place.lower
    lost = _what_is_lost(session, place, behind)
    if lost is not None:
        raise ChangesLostError(
            f"{lost}, so changes of {unit.unit_id} behind {behind} are not kept any more. Reset "
            "the checkpoint of the unit: the next run begins with all rows. What was deleted "
            "meanwhile stays in a table that is merged into, unless it is dropped first",
            slot=place.slot,
        )
    if relation.oid != place.table or not is_published(session, place.slot, relation):
        raise SourceChangedError(
            f"{unit.unit_id} was made again, or is no longer in publication {place.slot}: changes "
            "since then are in no log. Reset the checkpoint of the unit to begin with all rows",
            unit_id=unit.unit_id,
        )


def confirm(session: Session, position: LogPosition) -> None:
    """Let the server forget what is before a position.

    Raises:
        SourceUnavailableError: Somebody reads from the slot.
    """
    slot = find_slot(session, position.slot)
    if slot is None or slot.lost or slot.confirmed >= lsn_of(position.lsn):
        return
    statement = sql.SQL("SELECT pg_replication_slot_advance({}, {}::pg_lsn)").format(
        sql.Literal(position.slot), sql.Literal(position.lsn)
    )
    _once_free(session, statement, position.slot)


def drop(session: Session, reader: str) -> None:
    """Drop slot and publication of a reader, if they are there; a publication that is another
    role's stays.

    Raises:
        SourceUnavailableError: Somebody reads from the slot.
    """
    name = slot_of(reader)
    _drop_slot(session, name)
    try:
        session.rows(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(name)))
    except psycopg2.Error as error:
        if error.pgcode != _DENIED:
            raise


def _drop_slot(session: Session, name: str) -> None:
    statement = sql.SQL(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
        "WHERE slot_name = {} AND database = current_database()"
    ).format(sql.Literal(name))
    _once_free(session, statement, name)


def _once_free(session: Session, statement: sql.Composable, slot: str) -> None:
    deadline = time.monotonic() + FREE_WITHIN_S
    while True:
        try:
            session.rows(statement)
        except psycopg2.Error as error:
            if error.pgcode != _IN_USE:
                raise
            if time.monotonic() > deadline:
                raise SourceUnavailableError(
                    f"slot {slot} is being read by somebody else", slot=slot
                ) from None
        else:
            return
        time.sleep(_LOOK_AGAIN_S)


def _what_is_lost(session: Session, place: LogPosition | LogSlice, behind: str) -> str | None:
    if _system(session) != place.system:
        return "the checkpoint is of another database cluster, whose log is another one"
    slot = find_slot(session, place.slot)
    if slot is None:
        return f"there is no slot {place.slot} any more"
    if slot.lost:
        return f"the server has given up slot {place.slot} (max_slot_wal_keep_size)"
    if slot.confirmed > lsn_of(behind):
        return (
            f"slot {place.slot} was confirmed up to {lsn_text(slot.confirmed)} (was a run taken "
            "back, or does somebody else read from it?)"
        )
    return None


def _check_identity(
    session: Session, relation: Relation, unit: EndpointUnitDescriptor, key: tuple[str, ...]
) -> None:
    """Deleted rows can be found in a table that is merged into by these columns."""
    for identity, columns in session.rows(_IDENTITIES.format(oid=sql.Literal(relation.oid))):
        missing = [name for name in key if name not in columns]
        if identity != "f" and missing:
            raise ReplicationNotReadyError(
                f"rows of {unit.unit_id} are merged by {', '.join(key)}, and of rows that are "
                f"deleted the log does not tell {missing[0]!r}; run ALTER TABLE {unit.unit_id} "
                "REPLICA IDENTITY FULL, or merge by the columns of its replica identity",
                column=missing[0],
            )


def _system(session: Session) -> str:
    (system,) = session.row("SELECT system_identifier::text FROM pg_control_system()")
    return str(system)


# Of a partitioned table each partition has an identity of its own.
_IDENTITIES = sql.SQL(
    """
    SELECT c.relreplident::text, ARRAY(
               SELECT a.attname::text FROM pg_index i
               JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
               WHERE i.indrelid = c.oid AND CASE c.relreplident WHEN 'd' THEN i.indisprimary
                                                 ELSE i.indisreplident END)
    FROM pg_class c
    WHERE c.relkind = 'r'
      AND (c.oid = {oid} OR c.oid IN (SELECT relid FROM pg_partition_tree({oid}) WHERE isleaf))
    """
)
