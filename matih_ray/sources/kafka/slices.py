"""What a slice of a topic is, and the cursor over all its partitions. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from matih_ray.errors import PlanError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.value import JsonValue, Value

Offset = Annotated[int, Field(ge=0)]


class OffsetSlice(Value):
    """The messages of one partition at offsets `start <= offset < end`, of which some may never
    have been or be gone: markers of transactions, aborted ones, compacted ones."""

    kind: Literal["offsets"] = "offsets"
    topic: str
    topic_id: str | None
    partition: Annotated[int, Field(ge=0)]
    start: Offset
    end: Offset


class KafkaCursor(Value):
    """The next offset of each partition, in the order of partitions, and which topic they are of.

    A list and not a mapping, because every slice of a plan carries one.
    """

    topic_id: str | None
    next: tuple[Offset, ...]

    @classmethod
    def of(cls, unit_id: str, checkpoint: Checkpoint | None) -> KafkaCursor | None:
        """The cursor of a checkpoint, None without one.

        Raises:
            PlanError: The checkpoint is another source's.
        """
        if checkpoint is None or checkpoint.cursor is None:
            return None
        if not isinstance(checkpoint.cursor, dict):
            raise PlanError(
                f"the checkpoint of {unit_id} is not one of a topic; reset it", unit_id=unit_id
            )
        return cls.from_json(checkpoint.cursor)

    def moved(self, partition: int, offset: int) -> KafkaCursor:
        """The cursor once a partition is read up to an offset."""
        offsets = list(self.next)
        offsets[partition] = offset
        return KafkaCursor(topic_id=self.topic_id, next=tuple(offsets))


def make_slice(sequence: int, params: OffsetSlice, cursor_after: JsonValue) -> IngestionSlice:
    """A slice whose key tells what it holds."""
    return IngestionSlice(
        key=f"p{params.partition}-{params.start}-{params.end}",
        sequence=sequence,
        params=params.to_dict(),
        estimated_rows=params.end - params.start,
        cursor_after=cursor_after,
    )
