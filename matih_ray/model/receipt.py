"""Receipts and markers: what a sink write returns, and how a commit is recognised afterwards."""

from __future__ import annotations

from matih_ray.model.ids import RunId
from matih_ray.model.value import JsonValue, Value


class WriteReceipt(Value):
    """What one slice left in the sink: not visible until committed.

    `payload` belongs to the sink that made it (for Iceberg, the data files and their statistics).
    Discarded are rows and values for which a table that must not change has no place.
    `checksum` is an order-independent sum over rows when the policy asked for it.
    """

    slice_key: str
    sequence: int
    rows: int
    bytes: int
    payload: dict[str, JsonValue] = {}
    checksum: str | None = None
    duplicates_dropped: int = 0
    rows_discarded: int = 0
    values_discarded: int = 0


class CommitMarker(Value):
    """Identity and reach of one commit, stored by the sink in the same atomic step as the rows.

    `(run_id, epoch, sequence)` is unique: `epoch` grows with every planner that takes over the
    run, `sequence` with every commit of the run. `through` is the number of slices of the run's
    plan that are committed as a contiguous prefix. `published` tells whether readers see the rows
    (an overwrite becomes visible all at once, at its last commit).
    """

    run_id: RunId
    epoch: int
    sequence: int
    through: int
    published: bool = True
    rows_total: int = 0
