"""Plans that mean something only inside one snapshot of their source. No Ray here."""

from __future__ import annotations

from matih_ray.errors import ConfigurationError
from matih_ray.execution.committer import Committer
from matih_ray.execution.ledger import RunLedger
from matih_ray.model.plan import IngestionPlan
from matih_ray.sources.base import AbstractSnapshot, SourceEndpoint, SupportsSnapshot


def held_snapshot(source: SourceEndpoint, plan: IngestionPlan) -> AbstractSnapshot:
    """The snapshot of a plan, which the caller closes.

    Raises:
        ConfigurationError: The source cannot hold one.
        SourceError: It cannot now.
    """
    if not isinstance(source, SupportsSnapshot):
        raise ConfigurationError(
            f"{type(source).__name__} plans slices of one snapshot and cannot hold one"
        )
    return source.hold_snapshot(plan)


def bound_plan(
    snapshot: AbstractSnapshot, plan: IngestionPlan, ledger: RunLedger, committer: Committer
) -> IngestionPlan:
    """The plan with its slices bound to a snapshot.

    A cursor that depends on the snapshot becomes part of the stored plan, from which checkpoints
    are made, also by those who recover this run. An owner before this one may have bound it to
    another snapshot, and must not be able to commit rows of that one any more: so this one
    commits first, with nothing, or learns that it is too late.
    """
    bound = plan.model_copy(update={"slices": tuple(map(snapshot.bind, plan.slices))})
    cursors = [[slice_.cursor_after for slice_ in each.slices] for each in (plan, bound)]
    if cursors[0] != cursors[1]:
        if ledger.record.epoch > 1:
            committer.commit([], last=False)
        ledger.update(plan=bound)
    return bound
