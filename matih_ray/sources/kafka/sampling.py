"""What the messages of topics look like: the newest of each, a bounded number.

The newest and not the first, because producers change, and what is loaded next is at the end. Many
topics are sampled through one consumer: each would need a connection of its own otherwise.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping

from confluent_kafka import TopicPartition as Partition

from matih_ray.errors import SourceTimeoutError
from matih_ray.sources.kafka.catalog import Bounds, Topic
from matih_ray.sources.kafka.reading import PAGE_MESSAGES, next_page, offset_of
from matih_ray.sources.kafka.session import Sessions

# Of each topic; a field that is in one of fifty messages is seen with a probability of 98 %.
SAMPLE_MESSAGES = 200
SAMPLED_PARTITIONS = 8
# Of each topic in memory; of large messages there are fewer.
SAMPLE_BYTES = 2 << 20
# Topics in memory at a time: 100 MB at most.
TOPICS_AT_A_TIME = 50

Place = tuple[str, int]
Sample = list[bytes | None]


def samples(
    sessions: Sessions, topics: list[Topic], found: Mapping[str, Bounds]
) -> dict[str, Sample]:
    """Values of the newest messages of each topic, in the order of partitions and offsets.

    Raises:
        SourceError: Reading failed.
    """
    sampled: dict[str, Sample] = {}
    for start in range(0, len(topics), TOPICS_AT_A_TIME):
        sampled |= _sampled(sessions, topics[start : start + TOPICS_AT_A_TIME], found)
    return sampled


def _sampled(
    sessions: Sessions, topics: list[Topic], found: Mapping[str, Bounds]
) -> dict[str, Sample]:
    ranges = {place: range_ for t in topics for place, range_ in _ranges(t, found[t.name]).items()}
    values = _values(sessions, ranges) if ranges else {}
    sampled: dict[str, Sample] = {topic.name: [] for topic in topics}
    for (name, _), part in sorted(values.items()):
        sampled[name] += part
    return sampled


def _ranges(topic: Topic, found: Bounds) -> dict[Place, tuple[int, int]]:
    """The ends of the first so many partitions that hold anything."""
    filled = [n for n in range(topic.partitions) if found.first[n] < found.stable[n]]
    chosen = filled[:SAMPLED_PARTITIONS]
    return {
        (topic.name, number): (
            max(found.first[number], found.stable[number] - SAMPLE_MESSAGES // len(chosen)),
            found.stable[number],
        )
        for number in chosen
    }


def _values(sessions: Sessions, ranges: Mapping[Place, tuple[int, int]]) -> dict[Place, Sample]:
    doing = f"sampling {len(ranges)} partition(s) at {sessions.address}"
    ends = {place: end for place, (_, end) in ranges.items()}
    values: dict[Place, Sample] = defaultdict(list)
    size: dict[Place, int] = defaultdict(int)
    starts = [Partition(*place, start) for place, (start, _) in ranges.items()]
    deadline = time.monotonic() + sessions.config.read_timeout_s
    with sessions.consumer(starts) as (consumer, problems):
        while ends:
            page, reached = next_page(consumer, PAGE_MESSAGES, doing)
            for message in page:
                place = (message.topic(), message.partition())
                offset, value = offset_of(message), message.value()
                if offset < ranges[place][1] and size[place] < SAMPLE_BYTES // SAMPLED_PARTITIONS:
                    values[place].append(value)
                    size[place] += len(value or b"")
                reached[place] = max(reached.get(place, 0), offset + 1)
            for place, offset in reached.items():
                if offset >= ends.get(place, offset + 1):
                    del ends[place]
            if ends and time.monotonic() > deadline:
                raise problems.first(doing) or SourceTimeoutError(
                    f"{doing}: not read within {sessions.config.read_timeout_s} s"
                )
    return values
