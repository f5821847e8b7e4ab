"""Plans of runs in SQL: written once, not with every progress update of their run.

A plan may be several megabytes, and a run record carries it through hundreds of updates. Which plan
is stored is known by its digest, kept with the run; the digest of a plan object is computed once
and remembered for as long as the object lives, so that an update costs a comparison of two strings.
"""

from __future__ import annotations

import hashlib
import weakref
from typing import Any

from sqlalchemy import Connection

from matih_ray.model.ids import RunId, TenantId
from matih_ray.model.plan import IngestionPlan
from matih_ray.state.engine import Database
from matih_ray.state.tables import run_plans


class PlanDigests:
    """Digests of the plan objects of this process. Plans are frozen, so they never go stale."""

    def __init__(self) -> None:
        # by identity: comparing or hashing a plan by value costs as much as its digest
        self._known: dict[int, tuple[weakref.ref[IngestionPlan], str]] = {}

    def digest(self, plan: IngestionPlan) -> str:
        """The digest of the plan's JSON text."""
        known = self._known.get(id(plan))
        if known is not None and known[0]() is plan:
            return known[1]
        digest = hashlib.sha256(plan.to_json().encode()).hexdigest()
        self.remember(plan, digest)
        return digest

    def remember(self, plan: IngestionPlan, digest: str) -> None:
        """Note the digest of a plan that was just read."""
        identity = id(plan)

        def forget(gone: Any) -> None:
            known = self._known.get(identity)
            # a younger plan may have got the same identity
            if known is not None and known[0] is gone:
                del self._known[identity]

        self._known[identity] = (weakref.ref(plan, forget), digest)


def write_plan(
    database: Database,
    connection: Connection,
    tenant_id: TenantId,
    run_id: RunId,
    plan: IngestionPlan,
) -> None:
    """Store the plan of a run, in place of any earlier one."""
    statement = database.insert(run_plans).values(
        tenant_id=tenant_id, run_id=run_id, document=plan.to_json()
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=list(run_plans.primary_key),
            set_={"document": statement.excluded.document},
        )
    )
