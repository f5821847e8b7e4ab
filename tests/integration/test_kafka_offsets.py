"""Which messages a run reads: transactions, compaction, retention, new and re-made topics."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from matih_ray.errors import PlanError, SourceChangedError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.policy import IngestionPolicy
from matih_ray.testing.devstack.kafka import KafkaServer
from tests.integration.kafka_lab import (
    INCREMENTAL,
    after,
    planned,
    read,
    rows_of,
    source_of,
    unit_of,
)

COMPACTION_DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[KafkaServer]:
    with KafkaServer() as server:
        yield server


@pytest.fixture
def topic(server: KafkaServer, request: pytest.FixtureRequest) -> str:
    """A topic of the test's own, with two partitions."""
    name = request.node.name.partition("[")[0]
    server.create_topic(name, 2)
    return name


def numbered(first: int, last: int) -> list[bytes]:
    return [b"%d" % n for n in range(first, last)]


def values(rows: list[dict]) -> list[bytes]:
    return [row["_value"] for row in rows]


def transaction(producer: Producer, topic: str, messages: list[bytes], partition: int = 0) -> None:
    """Begin one and write; the caller ends it."""
    producer.begin_transaction()
    for message in messages:
        producer.produce(topic, message, partition=partition)
    producer.flush(30)


def transactional(server: KafkaServer, name: str) -> Producer:
    producer = server.producer(transactional_id=name)
    producer.init_transactions(30)
    return producer


# --- slices ----------------------------------------------------------------------------------


def test_slices_are_cut_to_the_target_and_alternate_between_partitions(
    server: KafkaServer, topic: str
):
    server.produce(topic, numbered(0, 250), 0)
    server.produce(topic, numbered(0, 120), 1)
    source = source_of(server)
    policy = INCREMENTAL.model_copy(update={"target_slice_rows": 100})
    plan = planned(source, topic, policy)
    assert [slice_.key for slice_ in plan.slices] == [
        "p0-0-100", "p1-0-100", "p0-100-200", "p1-100-120", "p0-200-250",
    ]  # fmt: skip
    assert [slice_.cursor_after["next"] for slice_ in plan.slices] == [
        [100, 0], [100, 100], [200, 100], [200, 120], [250, 120],
    ]  # fmt: skip
    assert plan.statistics["totalRows"] == 370
    source.close()


def test_the_end_is_fixed_when_a_run_is_planned(server: KafkaServer, topic: str):
    server.produce(topic, numbered(0, 10), 0)
    source = source_of(server)
    plan = planned(source, topic)
    server.produce(topic, numbered(10, 30), 0)
    assert values(rows_of(source, plan)) == numbered(0, 10)
    assert values(rows_of(source, planned(source, topic, checkpoint=after(plan)))) == numbered(
        10, 30
    )
    source.close()


def test_a_full_run_leaves_a_cursor_and_starts_at_the_beginning(server: KafkaServer, topic: str):
    server.produce(topic, numbered(0, 10), 0)
    source = source_of(server)
    full = planned(source, topic, IngestionPolicy())
    server.produce(topic, numbered(10, 12), 1)
    assert values(rows_of(source, planned(source, topic, checkpoint=after(full)))) == numbered(
        10, 12
    )
    assert len(read(source, topic, IngestionPolicy())) == 12
    source.close()


def test_nothing_new_is_an_empty_plan(server: KafkaServer, topic: str):
    server.produce(topic, numbered(0, 3), 0)
    source = source_of(server)
    again = planned(source, topic, checkpoint=after(planned(source, topic)))
    assert again.slices == ()
    source.close()


def test_asking_for_a_topic_does_not_make_it():
    with KafkaServer(properties={"auto.create.topics.enable": "true"}) as server:
        source = source_of(server, topics=[{"name": "nowhere"}])
        with pytest.raises(Exception, match="no topic 'nowhere'"):
            source.test()
        with pytest.raises(Exception, match="no topic 'nowhere'"):
            unit_of(source, "nowhere")
        source.close()
        assert set(server.admin().list_topics(timeout=10).topics) == set()


# --- transactions ----------------------------------------------------------------------------


def test_aborted_messages_and_markers_are_not_rows(server: KafkaServer, topic: str):
    producer = transactional(server, topic)
    transaction(producer, topic, numbered(0, 5))
    producer.commit_transaction(30)
    transaction(producer, topic, numbered(100, 105))
    producer.abort_transaction(30)
    transaction(producer, topic, numbered(5, 8))
    producer.commit_transaction(30)
    source = source_of(server)
    # every slice of few offsets too: some begin within an aborted transaction, some are only
    # aborted messages and markers
    for size in (1, 2, 3, 1000):
        policy = INCREMENTAL.model_copy(update={"target_slice_rows": size})
        plan = planned(source, topic, policy)
        assert plan.slices[-1].cursor_after["next"] == [16, 0]
        assert values(rows_of(source, plan)) == numbered(0, 8)
    source.close()


def test_an_open_transaction_ends_a_run_below_it_and_is_read_once_it_is_closed(
    server: KafkaServer, topic: str
):
    server.produce(topic, numbered(0, 4), 0)
    producer = transactional(server, topic)
    transaction(producer, topic, numbered(4, 6))
    server.produce(topic, numbered(6, 9), 0)
    source = source_of(server)
    plan = planned(source, topic)
    assert plan.slices[-1].cursor_after["next"] == [4, 0]
    assert any("still open" in note for note in plan.notes)
    assert values(rows_of(source, plan)) == numbered(0, 4)
    producer.commit_transaction(30)
    later = planned(source, topic, checkpoint=after(plan))
    assert values(rows_of(source, later)) == numbered(4, 9)
    assert later.notes == ()
    source.close()


# --- compaction and retention ----------------------------------------------------------------


def test_gaps_of_compaction_are_read_over(server: KafkaServer, topic: str):
    compacted = f"{topic}_log"
    server.create_topic(
        compacted, 1, cleanup_policy="compact", min_cleanable_dirty_ratio="0.001",
        segment_ms="100", max_compaction_lag_ms="100", delete_retention_ms="0",
    )  # fmt: skip
    source = source_of(server)
    deadline = time.monotonic() + COMPACTION_DEADLINE_S
    written = 0
    while True:
        # new messages close the segment before them, which can then be compacted
        server.produce(compacted, [(b"k%d" % (n % 5), b"%d" % n) for n in range(200)], 0)
        written += 200
        plan = planned(source, compacted, INCREMENTAL.model_copy(update={"target_slice_rows": 90}))
        rows = rows_of(source, plan)
        if len(rows) < written:
            break
        assert time.monotonic() < deadline, "nothing was compacted"
        time.sleep(0.3)
    assert plan.slices[-1].cursor_after["next"] == [written]
    last = {row["_key"]: row["_value"] for row in rows}
    assert last == {b"k%d" % (n % 5): b"%d" % n for n in range(195, 200)}
    source.close()


def test_messages_that_retention_removed_are_an_error_with_a_remedy(
    server: KafkaServer, topic: str
):
    server.produce(topic, numbered(0, 10), 0)
    source = source_of(server)
    checkpoint = after(planned(source, topic))
    server.produce(topic, numbered(10, 30), 0)
    server.delete_records(topic, 0, 15)
    with pytest.raises(SourceChangedError, match="offsets 10 to 14 of partition 0") as caught:
        planned(source, topic, checkpoint=checkpoint)
    assert caught.value.context["first_offset"] == 15
    assert "missingOffsets" in str(caught.value)
    source.close()


def test_removed_messages_are_skipped_where_the_connector_says_so(server: KafkaServer, topic: str):
    server.produce(topic, numbered(0, 10), 0)
    source = source_of(server, topics=[{"name": topic, "missingOffsets": "skip"}])
    checkpoint = after(planned(source, topic))
    server.produce(topic, numbered(10, 30), 0)
    server.delete_records(topic, 0, 15)
    plan = planned(source, topic, checkpoint=checkpoint)
    assert plan.statistics["lostOffsets"] == 5
    assert any("5 offset(s)" in note for note in plan.notes)
    # and between planning and reading
    server.delete_records(topic, 0, 20)
    assert values(rows_of(source, plan)) == numbered(20, 30)
    server.delete_records(topic, 0, 30)
    assert rows_of(source, plan) == []
    source.close()


def test_removal_of_what_was_loaded_is_no_loss(server: KafkaServer, topic: str):
    server.produce(topic, numbered(0, 10), 0)
    source = source_of(server)
    checkpoint = after(planned(source, topic))
    server.delete_records(topic, 0, 10)
    server.produce(topic, numbered(10, 12), 0)
    assert values(rows_of(source, planned(source, topic, checkpoint=checkpoint))) == numbered(
        10, 12
    )
    source.close()


def test_removal_between_planning_and_reading_is_an_error(server: KafkaServer, topic: str):
    server.produce(topic, numbered(0, 10), 0)
    source = source_of(server)
    plan = planned(source, topic)
    server.delete_records(topic, 0, 5)
    with pytest.raises(SourceChangedError, match="offsets 0 to 4"):
        rows_of(source, plan)
    assert values(read(source, topic, IngestionPolicy())) == numbered(5, 10)
    source.close()


# --- other partitions, other topics ----------------------------------------------------------


def test_new_partitions_are_read_from_their_first_message(server: KafkaServer, topic: str):
    server.produce(topic, numbered(0, 4), 1)
    source = source_of(server)
    checkpoint = after(planned(source, topic))
    server.add_partitions(topic, 4)
    server.produce(topic, numbered(4, 6), 3)
    plan = planned(source, topic, checkpoint=checkpoint)
    assert any("2 partition(s) are new" in note for note in plan.notes)
    assert values(rows_of(source, plan)) == numbered(4, 6)
    assert plan.slices[-1].cursor_after["next"] == [0, 4, 0, 2]
    source.close()


def test_a_topic_that_was_made_again_is_an_error_even_with_more_messages(
    server: KafkaServer, topic: str
):
    server.produce(topic, numbered(0, 4), 0)
    source = source_of(server)
    old = planned(source, topic)
    unit = unit_of(source, topic)
    server.delete_topic(topic)
    with pytest.raises(SourceChangedError, match="gone"):
        list(source.read(unit, old.slices[0], INCREMENTAL))
    with pytest.raises(SourceChangedError, match="gone"):
        source.plan_incremental_slices(unit, None, INCREMENTAL, 10)
    server.create_topic(topic, 2)
    server.produce(topic, numbered(50, 70), 0)
    with pytest.raises(SourceChangedError, match="made again"):
        planned(source, topic, checkpoint=after(old))
    with pytest.raises(SourceChangedError, match="made again"):
        list(source.read(unit, old.slices[0], INCREMENTAL))
    assert values(read(source, topic, IngestionPolicy())) == numbered(50, 70)
    source.close()


def test_a_checkpoint_beyond_the_end_is_an_error(server: KafkaServer, topic: str):
    server.produce(topic, numbered(0, 4), 0)
    source = source_of(server)
    cursor = dict(after(planned(source, topic)).cursor)
    with pytest.raises(SourceChangedError, match="partition 0 ends at offset 4"):
        planned(source, topic, checkpoint=Checkpoint(cursor={**cursor, "next": [5, 0]}))
    source.close()


@pytest.mark.parametrize("cursor", [7, "x", ["a"]], ids=str)
def test_a_checkpoint_of_another_source_is_refused(server: KafkaServer, cursor):
    name = f"foreign-{cursor}".replace("'", "").replace("[", "").replace("]", "")
    server.create_topic(name)
    source = source_of(server)
    with pytest.raises(PlanError, match="reset it"):
        planned(source, name, checkpoint=Checkpoint(cursor=cursor))
    source.close()


def test_another_cursor_column_is_refused(server: KafkaServer, topic: str):
    source = source_of(server)
    with pytest.raises(PlanError, match="one cursor column, _offset"):
        planned(source, topic, INCREMENTAL.model_copy(update={"cursor_column": "_timestamp"}))
    source.close()
