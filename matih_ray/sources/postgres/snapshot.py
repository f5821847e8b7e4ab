"""A database snapshot held open while the slices of one plan are read."""

from __future__ import annotations

import psycopg2
from psycopg2 import sql

from matih_ray.errors import SourceChangedError
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.sources.postgres.catalog import Relation, relation_of, stored_parts
from matih_ray.sources.postgres.failures import typed
from matih_ray.sources.postgres.names import unit_id_of
from matih_ray.sources.postgres.session import Session
from matih_ray.sources.postgres.slices import PageSlice, parse


class HeldSnapshot:
    """An exported snapshot, and a lock that keeps rows where the plan says they are.

    VACUUM FULL, CLUSTER and ALTER TABLE move rows to other pages without regard to snapshots; they
    wait while this is held, and so does TRUNCATE.
    """

    def __init__(self, session: Session, plan: IngestionPlan) -> None:
        """Take over a session, which `close` closes.

        Raises:
            SourceChangedError: Partitions were added or removed since planning.
            SourceError: The table cannot be locked.
        """
        self._session = session
        try:
            self._snapshot = _export(session, plan)
        except psycopg2.Error as error:
            session.close()
            raise typed(error, f"holding a snapshot for {plan.unit_id}") from None
        except BaseException:
            session.close()
            raise

    @property
    def name(self) -> str:
        """What other sessions join it by."""
        return self._snapshot

    def bind(self, slice_: IngestionSlice) -> IngestionSlice:
        """The slice with this snapshot in its parameters; others than page slices need none."""
        params = parse(slice_)
        if not isinstance(params, PageSlice):
            return slice_
        bound = params.model_copy(update={"snapshot": self._snapshot})
        return slice_.model_copy(update={"params": bound.to_dict()})

    def close(self) -> None:
        """Let go of snapshot and lock, at once. Safe to call twice."""
        try:
            self._session.rows("ROLLBACK")
        except psycopg2.Error:
            return  # the connection is gone, and the snapshot with it
        finally:
            self._session.close()


def _export(session: Session, plan: IngestionPlan) -> str:
    relation = relation_of(session, plan.unit_id)
    session.rows("BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ")
    session.rows(_lock(relation))  # before the snapshot, so that no rewrite comes between
    (snapshot,) = session.row("SELECT pg_export_snapshot()")
    planned = plan.statistics.get("tables")
    present = [unit_id_of(part.schema, part.name) for part in stored_parts(session, relation)]
    if planned is not None and planned != present:
        raise SourceChangedError(
            f"partitions of {plan.unit_id} were added or removed since planning; start a new run",
            unit_id=plan.unit_id,
        )
    return str(snapshot)


def _lock(relation: Relation) -> sql.Composable:
    if relation.kind == "materialized_view":  # LOCK TABLE refuses these; reading locks them too
        return sql.SQL("SELECT 1 FROM {} LIMIT 0").format(relation.identifier)
    return sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(relation.identifier)
