"""The Kafka source endpoint."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import ClassVar

import pyarrow as pa

from matih_ray.errors import (
    PlanError,
    SourceChangedError,
    SourcePermissionError,
    UnknownUnitError,
    ValidationError,
)
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import UnitId
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.model.unit import ColumnDescriptor, EndpointUnitDescriptor
from matih_ray.model.value import Value
from matih_ray.sources.base import ConnectionTest, EndpointSpec, IngestionContext
from matih_ray.sources.kafka.catalog import (
    Bounds,
    Topic,
    all_bounds,
    bounds,
    check_configured,
    readable_topic,
    readable_topics,
)
from matih_ray.sources.kafka.columns import OFFSET, PARTITION, json_columns, raw_columns, selection
from matih_ray.sources.kafka.config import KafkaConfig, TopicOptions
from matih_ray.sources.kafka.decoding import json_object, record_batches
from matih_ray.sources.kafka.planning import plan_offsets, removed
from matih_ray.sources.kafka.reading import messages
from matih_ray.sources.kafka.sampling import Sample, samples
from matih_ray.sources.kafka.session import Sessions
from matih_ray.sources.kafka.slices import OffsetSlice


class KafkaSource:
    """The topics of one Kafka cluster."""

    type: ClassVar[str] = "KAFKA"
    vendor: ClassVar[str] = "stream.kafka"
    config_model: ClassVar[builtins.type[Value]] = KafkaConfig
    secret_fields: ClassVar[tuple[str, ...]] = ("password",)

    def __init__(self, spec: EndpointSpec) -> None:
        """Check the configuration; nothing is connected yet.

        Raises:
            ValidationError: The configuration does not fit `KafkaConfig`.
        """
        self._endpoint_id = spec.endpoint_id
        self._sessions = Sessions(spec)

    def test(self) -> ConnectionTest:
        """Connect and log in, with a new client, and look for the topics that are configured."""
        latency_ms, version = self._sessions.ping()
        check_configured(self._sessions)
        return ConnectionTest(latency_ms=latency_ms, server_version=version)

    def list_units(self, context: IngestionContext) -> list[EndpointUnitDescriptor]:
        """Topics that the account may read, ordered by id; `context.pattern` is a glob on the id.

        Columns come from a bounded sample of each topic on the page.

        Raises:
            ValidationError: The page's offset or limit is negative.
        """
        if context.offset < 0 or context.limit < 0:
            raise ValidationError("offset and limit must not be negative", field="offset, limit")
        found = readable_topics(self._sessions)
        if context.pattern is not None:
            found = [topic for topic in found if fnmatchcase(topic.name, context.pattern)]
        return self._units(found[context.offset : context.offset + context.limit])

    def describe_unit(self, unit_id: UnitId) -> EndpointUnitDescriptor:
        """One topic with the columns of its sample, and estimates."""
        try:
            topic = readable_topic(self._sessions, unit_id)
        except SourcePermissionError as error:
            if error.context.get("kafka_code") is None:
                raise  # it may be described, so it is known to be there
            raise UnknownUnitError(
                f"no topic {unit_id!r}, or the account may not see it", unit_id=unit_id
            ) from None
        (unit,) = self._units([topic])
        return unit

    def read_schema(self, unit: EndpointUnitDescriptor, policy: IngestionPolicy) -> pa.Schema:
        """The schema of every batch, from the unit's native types alone.

        Raises:
            ValidationError: The policy's columns or encodings do not fit the unit.
        """
        return selection(unit, policy).schema

    def plan_incremental_slices(
        self,
        unit: EndpointUnitDescriptor,
        checkpoint: Checkpoint | None,
        policy: IngestionPolicy,
        target_slice_size: int,
    ) -> IngestionPlan:
        """Slices of at most about `target_slice_size` offsets of one partition; see `planning`.

        Raises:
            ValidationError: The policy does not fit the unit, or the size is not positive.
        """
        _check(unit, policy, target_slice_size)
        topic = self._present(unit.unit_id)
        return plan_offsets(
            unit,
            topic,
            bounds(self._sessions, topic),
            checkpoint,
            policy,
            target_slice_size,
            skip_missing=self._options(topic.name).missing_offsets == "skip",
        )

    def read(
        self, unit: EndpointUnitDescriptor, slice_: IngestionSlice, policy: IngestionPolicy
    ) -> Iterator[pa.RecordBatch]:
        """Batches of one slice."""
        params = OffsetSlice.from_json(slice_.params)
        chosen = selection(unit, policy)
        start = self._start(params)
        pages = messages(self._sessions, params.topic, params.partition, start, params.end)
        try:
            yield from record_batches(chosen, unit.unit_id, pages)
        finally:
            pages.close()

    def close(self) -> None:
        """Close the clients. Safe to call twice."""
        self._sessions.close()

    def _options(self, topic: str) -> TopicOptions:
        return self._sessions.config.options(topic)

    def _present(self, name: str, topic_id: str | None = None) -> Topic:
        """The topic, if it is still there, and the same one if its id is given."""
        try:
            topic = readable_topic(self._sessions, name)
        except UnknownUnitError:
            raise SourceChangedError(
                f"{name} is gone since it was described", unit_id=name
            ) from None
        if topic_id not in (None, topic.topic_id):
            raise SourceChangedError(
                f"{name} was deleted and made again since it was planned; run again", unit_id=name
            )
        return topic

    def _start(self, params: OffsetSlice) -> int:
        """Where to begin, which retention may have moved since the slice was planned."""
        topic = self._present(params.topic, params.topic_id)
        if params.partition >= topic.partitions:
            raise SourceChangedError(
                f"{topic.name} has no partition {params.partition} any more", unit_id=topic.name
            )
        first = bounds(self._sessions, topic).first[params.partition]
        if first > params.start and self._options(topic.name).missing_offsets == "fail":
            raise removed(topic, params.partition, params.start, first)
        return max(params.start, first)

    def _units(self, topics: list[Topic]) -> list[EndpointUnitDescriptor]:
        found = all_bounds(self._sessions, topics)
        sampled = samples(self._sessions, topics, found)
        return [self._unit(t, found[t.name], sampled[t.name]) for t in topics]

    def _unit(self, topic: Topic, found: Bounds, sample: Sample) -> EndpointUnitDescriptor:
        rows = sum(found.stable) - sum(found.first)
        size = sum(len(value or b"") for value in sample)
        return EndpointUnitDescriptor(
            endpoint_id=self._endpoint_id,
            unit_id=UnitId(topic.name),
            namespace=NAMESPACE,
            name=topic.name,
            kind="topic",
            columns=_columns(self._options(topic.name), sample),
            primary_key=(PARTITION, OFFSET),
            cursor_candidates=(OFFSET,),
            estimated_rows=rows,
            estimated_bytes=rows * size // len(sample) if sample else 0,
        )


# Kafka has no level above topics.
NAMESPACE = "topics"


def _columns(options: TopicOptions, sample: Sample) -> tuple[ColumnDescriptor, ...]:
    """By what is declared, or else by whether the sample has objects and nothing else."""
    present = [value for value in sample if value is not None]
    objects = [json_object(value) for value in present]
    known = [found for found in objects if found is not None]
    is_json = options.format == "json" or bool(options.fields)
    if options.format == "auto" and known and len(known) == len(present):
        is_json = True
    if not is_json:
        return raw_columns()
    return json_columns(known, {field.name: field.type for field in options.fields})


def _check(unit: EndpointUnitDescriptor, policy: IngestionPolicy, target_rows: int) -> None:
    if target_rows <= 0:
        raise ValidationError(
            f"the target slice size is a number of rows above 0, not {target_rows}",
            field="targetSliceRows",
        )
    if policy.filter is not None:
        raise ValidationError("this source has no filters", field="filter")
    if policy.run_mode is RunMode.CDC:
        raise PlanError(
            f"{unit.unit_id}: this source has no cdc mode; use full or incremental",
            unit_id=unit.unit_id,
        )
    selection(unit, policy)
