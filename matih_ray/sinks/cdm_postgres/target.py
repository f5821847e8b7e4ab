"""What a prepared target holds for writers and committers: plain data, no secrets."""

from __future__ import annotations

from matih_ray.model.receipt import CommitMarker
from matih_ray.model.value import Value


class CdmTarget(Value):
    """The payload of a `PreparedTarget` of this sink.

    `relation` is the table's object id: one that was dropped and made anew is another. `stream` is
    the key of the stream's row. `predecessor` is its marker as `prepare` saw it.
    """

    table: str
    relation: int
    columns: tuple[str, ...]
    stream: str
    checksum: bool
    predecessor: CommitMarker | None

    @property
    def predecessor_text(self) -> str:
        """The predecessor as stages are labelled with it; empty if there is none."""
        return "" if self.predecessor is None else self.predecessor.to_json()
