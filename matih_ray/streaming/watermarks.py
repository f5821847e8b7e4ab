"""Watermarks: for each partition the highest seen, for a source the lowest of its partitions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from matih_ray.streaming.windows import Times

BEGINNING = int(np.iinfo(np.int64).min)
END = int(np.iinfo(np.int64).max)


def lowest(parts: Iterable[tuple[int, bool]]) -> tuple[int, bool]:
    """The watermark of parts that each have one and may be idle, and whether they are idle as a
    whole: then it is the highest of theirs, as if that part had become idle last (so does Flink's
    StatusWatermarkValve). What has ended waits for nothing, but does not end what is idle."""
    known = list(parts)
    waiting = [(mark, idle) for mark, idle in known if mark != END]
    awake = [mark for mark, idle in waiting if not idle]
    if awake:
        return min(awake), False
    if known and not waiting:
        return END, False
    return max((mark for mark, _ in waiting), default=BEGINNING), True


@dataclass
class Watermarks:
    """The watermarks of one source's partitions, in milliseconds; they never go back.

    Partitions must be named before the first row, because one without rows holds back the source.
    An idle partition does not count until it has rows again. `reached` is the highest that the
    source has had, which a partition that is new or wakes up does not turn back.
    """

    partitions: dict[str, int]
    idle: set[str] = field(default_factory=set)
    reached: int = BEGINNING

    @classmethod
    def of(cls, partitions: list[str]) -> Watermarks:
        """All at the beginning of time."""
        return cls(dict.fromkeys(partitions, BEGINNING))

    @property
    def current(self) -> int:
        """The source's watermark."""
        states = ((mark, name in self.idle) for name, mark in self.partitions.items())
        self.reached = max(self.reached, lowest(states)[0])
        return self.reached

    @property
    def holder(self) -> str | None:
        """The partition that holds the watermark back."""
        counted = [name for name in self.partitions if name not in self.idle]
        return min(counted, key=lambda name: self.partitions[name], default=None)

    @property
    def all_idle(self) -> bool:
        """Whether no partition counts, perhaps because there is none."""
        return lowest((mark, name in self.idle) for name, mark in self.partitions.items())[1]

    def keep(self, partitions: Iterable[str]) -> None:
        """Name all partitions there are; others do not count any more."""
        self.partitions = {name: self.partitions.get(name, BEGINNING) for name in partitions}

    def add(self, partitions: Iterable[str]) -> None:
        """Name partitions that are new."""
        for name in partitions:
            self.partitions.setdefault(name, BEGINNING)

    def advance(self, partition: str, marks: Times) -> Times:
        """The source's watermark as each of these rows of a partition met it.

        `marks` are what the rows' own watermarks would be. A row meets the watermark of the rows
        before it, as in Flink with `pipeline.auto-watermark-interval` 0.
        """
        reached = self.current
        self.idle.discard(partition)
        own = np.maximum.accumulate(np.concatenate(([self.partitions[partition]], marks)))
        others = [
            mark
            for name, mark in self.partitions.items()
            if name != partition and name not in self.idle
        ]
        self.partitions[partition] = int(own[-1])
        met = np.minimum(own[:-1], min(others, default=END))
        return np.maximum(met, reached)  # a partition that wakes up does not turn time back

    def finish(self, partition: str) -> None:
        """The partition has no more rows."""
        self.partitions[partition] = END
