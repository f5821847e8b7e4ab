"""Plans: from where each partition was left to its last stable offset. Pure.

A full run starts at the first offset that is left, an incremental one at the checkpoint's; both
leave a cursor behind, so that an incremental run may follow either. The end cannot be undercut:
below the last stable offset nothing is added, whatever producers and transactions do later.
"""

from __future__ import annotations

from dataclasses import dataclass

from matih_ray.errors import PlanError, SourceChangedError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import MAX_SLICES_PER_PLAN, IngestionPolicy
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.sources.kafka.catalog import Bounds, Topic
from matih_ray.sources.kafka.columns import OFFSET
from matih_ray.sources.kafka.slices import KafkaCursor, OffsetSlice, make_slice

OFFSETS = "kafka-offsets"
# Every slice carries the offsets of all partitions, about ten bytes each: 20 MB of a plan.
MAX_CURSOR_ENTRIES = 2_000_000

_OPEN_NOTE = (
    "{0} message(s) beyond the last stable offset are left for later: a transaction is still open"
)
_LOST_NOTE = "{0} offset(s) were removed by retention before they were loaded, and are skipped"
_NEW_NOTE = "{0} partition(s) are new and read from their first offset on"
_COUNT_NOTE = "exactRows is not known before reading: some offsets hold no message"


@dataclass(frozen=True)
class Start:
    """Where each partition is read from, and how many offsets before that are lost or new."""

    offsets: tuple[int, ...]
    lost: int = 0
    new: int = 0


def plan_offsets(
    unit: EndpointUnitDescriptor,
    topic: Topic,
    found: Bounds,
    checkpoint: Checkpoint | None,
    policy: IngestionPolicy,
    target_rows: int,
    *,
    skip_missing: bool = False,
) -> IngestionPlan:
    """Slices of at most about `target_rows` offsets; none when nothing is new.

    Raises:
        PlanError: The cursor is not this source's, or there are too many partitions.
        SourceChangedError: The checkpoint's offsets are not, or no longer, in the topic.
    """
    if policy.cursor_column not in (None, OFFSET):
        raise PlanError(f"{unit.unit_id} has one cursor column, {OFFSET}", unit_id=unit.unit_id)
    start = _start(topic, found, KafkaCursor.of(unit.unit_id, checkpoint), skip=skip_missing)
    slices = _slices(topic, start.offsets, found.stable, target_rows)
    held = sum(found.end) - sum(found.stable)
    notes = [
        text.format(number)
        for text, number in ((_LOST_NOTE, start.lost), (_NEW_NOTE, start.new), (_OPEN_NOTE, held))
        if number
    ]
    return IngestionPlan(
        endpoint_id=unit.endpoint_id,
        unit_id=unit.unit_id,
        slices=tuple(slices),
        strategy=OFFSETS,
        statistics={
            "totalRows": sum(slice_.estimated_rows or 0 for slice_ in slices),
            "partitions": topic.partitions,
            "lostOffsets": start.lost,
        },
        cursor_column=OFFSET,
        notes=(*notes, *([_COUNT_NOTE] if policy.exact_count else [])),
    )


def _start(topic: Topic, found: Bounds, cursor: KafkaCursor | None, *, skip: bool) -> Start:
    if cursor is None:
        return Start(found.first)
    known = len(cursor.next)
    if cursor.topic_id != topic.topic_id or known > topic.partitions:
        raise _recreated(topic, "the topic was deleted and made again since it was loaded")
    offsets, lost = list(found.first), 0
    for number, next_ in enumerate(cursor.next):
        if next_ > found.end[number]:
            raise _recreated(
                topic,
                f"partition {number} ends at offset {found.end[number]}, and was loaded up to "
                f"{next_}: the topic was made again, or a broker has lost messages",
            )
        if next_ < found.first[number]:
            lost += found.first[number] - next_
            if not skip:
                raise removed(topic, number, next_, found.first[number])
        offsets[number] = max(next_, found.first[number])
    return Start(tuple(offsets), lost, topic.partitions - known)


def _recreated(topic: Topic, what: str) -> SourceChangedError:
    return SourceChangedError(
        f"{topic.name}: {what}; make a full run, or reset the checkpoint to add the topic's "
        "messages to those that are loaded",
        topic=topic.name,
    )


def removed(topic: Topic, partition: int, next_: int, first: int) -> SourceChangedError:
    """The error for offsets that are gone before they were loaded."""
    return SourceChangedError(
        f"{topic.name}: retention has removed offsets {next_} to {first - 1} of partition "
        f"{partition} before they were loaded; keep messages for longer and run more often, and "
        "to go on without them set missingOffsets to skip in the connector's topics",
        topic=topic.name,
        partition=partition,
        next_offset=next_,
        first_offset=first,
    )


def _slices(
    topic: Topic, starts: tuple[int, ...], ends: tuple[int, ...], target_rows: int
) -> list[IngestionSlice]:
    """Round by round over the partitions, so that slices read at a time are of different ones."""
    size = _size(topic, [max(0, end - start) for start, end in zip(starts, ends, strict=True)],
                 target_rows)  # fmt: skip
    cursor = KafkaCursor(topic_id=topic.topic_id, next=starts)
    slices: list[IngestionSlice] = []
    waiting = [number for number in range(topic.partitions) if starts[number] < ends[number]]
    while waiting:
        for number in waiting:
            begin = cursor.next[number]
            params = OffsetSlice(
                topic=topic.name,
                topic_id=topic.topic_id,
                partition=number,
                start=begin,
                end=min(begin + size, ends[number]),
            )
            cursor = cursor.moved(number, params.end)
            slices.append(make_slice(len(slices), params, cursor.to_dict()))
        waiting = [number for number in waiting if cursor.next[number] < ends[number]]
    return slices


def _size(topic: Topic, lengths: list[int], target_rows: int) -> int:
    """Offsets in a slice: as asked, or more where that would be too many slices."""
    most = min(MAX_SLICES_PER_PLAN, MAX_CURSOR_ENTRIES // max(1, topic.partitions))
    if sum(length > 0 for length in lengths) > most:
        raise PlanError(
            f"{topic.name} has {topic.partitions} partitions, and a plan for more than {most} at a "
            "time would be too large; run more often, or split the topic",
            topic=topic.name,
        )
    size = target_rows
    while sum(-(-length // size) for length in lengths) > most:
        size *= 2
    return size
