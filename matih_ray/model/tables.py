"""Tables of a sink as people look at them."""

from __future__ import annotations

from datetime import datetime

from matih_ray.model.ids import RunId
from matih_ray.model.value import Value


class TableSnapshot(Value):
    """One state of a table that can still be read.

    `snapshot_id` is text: it does not fit into a number of JavaScript. `run_id` is the run that has
    made it, if one has. `refs` are the branches and tags that show it; `is_current` says whether
    readers who name none see it. `rows` and `files` are those of the whole table.
    """

    snapshot_id: str
    parent_id: str | None
    at: datetime
    operation: str
    run_id: RunId | None = None
    rows: int | None = None
    rows_added: int = 0
    files: int | None = None
    refs: tuple[str, ...] = ()
    is_current: bool = False
