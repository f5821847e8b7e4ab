"""Where partitions of topics begin and end, by the modes of Flink's `kafka` connector."""

from __future__ import annotations

import re

from confluent_kafka import Consumer, TopicPartition

from matih_ray.errors import SourceChangedError, SqlInvalidError
from matih_ray.sources.kafka.failures import mapped_errors, typed
from matih_ray.streaming.connectors.kafka_options import Edge, KafkaTable

# An answer of a busy cluster; there is one question for each partition or for all of them.
TIMEOUT_S = 30.0
_NONE = -1  # what brokers answer for an offset that does not exist
_Key = tuple[str, int]


class Offsets:
    """Answers about one table's partitions, through its consumer."""

    def __init__(self, consumer: Consumer, table: KafkaTable) -> None:
        self._consumer = consumer
        self._table = table

    def partitions(self) -> list[_Key]:
        """All partitions of the table's topics, in order.

        Raises:
            SourceChangedError: A topic does not exist.
        """
        with mapped_errors(f"table {self._table.name}"):
            topics = self._consumer.list_topics(timeout=TIMEOUT_S).topics
        wanted = [name for name in self._table.topics if name in topics]
        if self._table.pattern is not None:
            pattern = re.compile(self._table.pattern)
            wanted = sorted(name for name in topics if pattern.fullmatch(name))
        missing = [name for name in self._table.topics if name not in topics] or (
            [] if wanted else [str(self._table.pattern)]
        )
        if missing:
            raise SourceChangedError(
                f"table {self._table.name}: there is no topic {missing[0]!r}, or it may not be "
                "described",
                topic=missing[0],
            )
        for name in wanted:
            if topics[name].error is not None:
                raise typed(topics[name].error, f"table {self._table.name}, topic {name}")
        return [(name, number) for name in wanted for number in sorted(topics[name].partitions)]

    def starts(self, keys: list[_Key]) -> dict[_Key, int]:
        """Where the table's start-up mode begins."""
        edge = self._table.startup
        if edge.mode == "earliest-offset":
            return self.first(keys)
        if edge.mode == "latest-offset":
            return self._last(keys)
        if edge.mode == "timestamp":
            return self._at_time(keys, edge.timestamp_ms)
        if edge.mode == "specific-offsets":
            self._check_named(keys, edge)
            # Flink starts partitions that are not named at their first offset
            return {**self.first(keys), **_named(keys, edge)}
        committed = self._committed(keys)
        missing = [key for key in keys if key not in committed]
        return committed | (self._reset(missing) if missing else {})

    def ends(self, keys: list[_Key]) -> dict[_Key, int | None]:
        """Where the table's bounded mode ends; None where it does not."""
        edge = self._table.bound
        if edge.mode == "unbounded":
            return dict.fromkeys(keys)
        if edge.mode == "latest-offset":
            return {**self._last(keys)}
        if edge.mode == "timestamp":
            return {**self._at_time(keys, edge.timestamp_ms)}
        if edge.mode == "specific-offsets":
            self._check_named(keys, edge)
            return {**self._last(keys), **_named(keys, edge)}
        committed = self._committed(keys)
        missing = [key for key in keys if key not in committed]
        if missing:
            raise SqlInvalidError(
                f"table {self._table.name}: group {self._table.group_id} has no offset of "
                f"partition {missing[0][1]} to end at"
            )
        return {**committed}

    def first(self, keys: list[_Key]) -> dict[_Key, int]:
        """The first offsets that are left."""
        return {key: self._bounds(key)[0] for key in keys}

    def _last(self, keys: list[_Key]) -> dict[_Key, int]:
        return {key: self._bounds(key)[1] for key in keys}

    def _bounds(self, key: _Key) -> tuple[int, int]:
        with mapped_errors(f"offsets of {key[0]}, partition {key[1]}"):
            first, last = self._consumer.get_watermark_offsets(
                TopicPartition(*key), timeout=TIMEOUT_S
            )
        return int(first), int(last)

    def _at_time(self, keys: list[_Key], timestamp_ms: int) -> dict[_Key, int]:
        """The first offsets at or after a time; the end where there is none."""
        asked = [TopicPartition(*key, timestamp_ms) for key in keys]
        with mapped_errors(f"table {self._table.name}"):
            answered = self._consumer.offsets_for_times(asked, timeout=TIMEOUT_S)
        found = {(one.topic, one.partition): int(one.offset) for one in answered}
        late = [key for key in keys if found.get(key, _NONE) < 0]
        return found | self._last(late)

    def _committed(self, keys: list[_Key]) -> dict[_Key, int]:
        asked = [TopicPartition(*key) for key in keys]
        with mapped_errors(f"offsets of group {self._table.group_id}"):
            answered = self._consumer.committed(asked, timeout=TIMEOUT_S)
        return {(one.topic, one.partition): int(one.offset) for one in answered if one.offset >= 0}

    def _reset(self, keys: list[_Key]) -> dict[_Key, int]:
        if self._table.reset == "earliest":
            return self.first(keys)
        if self._table.reset == "latest":
            return self._last(keys)
        raise SqlInvalidError(
            f"table {self._table.name}: group {self._table.group_id} has no offset of partition "
            f"{keys[0][1]}; set 'properties.auto.offset.reset' to earliest or latest, or another "
            "'scan.startup.mode'"
        )

    def _check_named(self, keys: list[_Key], edge: Edge) -> None:
        unknown = set(edge.offsets) - {number for _, number in keys}
        if unknown:
            raise SqlInvalidError(f"table {self._table.name}: there is no partition {min(unknown)}")


def _named(keys: list[_Key], edge: Edge) -> dict[_Key, int]:
    return {key: edge.offsets[key[1]] for key in keys if key[1] in edge.offsets}
