"""What is in a message arrives as it was: bytes, JSON of every kind, and what is no JSON."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Iterator
from decimal import Decimal

import pytest

from matih_ray.errors import UnrepresentableValueError, ValidationError
from matih_ray.model.policy import IngestionPolicy
from matih_ray.sources.base import TARGET_BATCH_BYTES
from matih_ray.testing.devstack.kafka import KafkaServer
from tests.integration.kafka_lab import planned, read, source_of, unit_of

UTC = dt.timezone.utc


@pytest.fixture(scope="module")
def server() -> Iterator[KafkaServer]:
    with KafkaServer() as server:
        yield server


@pytest.fixture
def topic(server: KafkaServer, request: pytest.FixtureRequest) -> str:
    """A topic of the test's own, with one partition."""
    name = request.node.name.partition("[")[0]
    server.create_topic(name)
    return name


def test_bytes_keys_headers_and_times_are_exact(server: KafkaServer, topic: str, seed: int):
    noise = random.Random(seed)
    messages = [
        (noise.randbytes(noise.randrange(40)), noise.randbytes(noise.randrange(200)))
        for _ in range(500)
    ]
    headers = [("trace", b"\x00\xff"), ("trace", b"again"), ("ünïcode", b""), ("none", None)]
    server.configure_topic(topic, retention_ms="-1")
    moment = dt.datetime(2021, 5, 6, 7, 8, 9, 123_000, tzinfo=UTC)
    server.produce(topic, messages, timestamp_ms=int(moment.timestamp() * 1000), headers=headers)
    source = source_of(server)
    rows = read(source, topic)
    assert [(row["_key"], row["_value"]) for row in rows] == messages
    assert [row["_offset"] for row in rows] == list(range(500))
    assert {row["_timestamp"] for row in rows} == {moment}
    expected = [{"name": name, "value": value} for name, value in headers]
    assert all(row["_headers"] == expected for row in rows)
    source.close()


def test_what_is_missing_is_null_and_what_is_empty_is_empty(server: KafkaServer, topic: str):
    server.produce(topic, [(None, b""), (b"", None), (None, None)])
    source = source_of(server)
    rows = read(source, topic)
    assert [(row["_key"], row["_value"]) for row in rows] == [
        (None, b""),
        (b"", None),
        (None, None),
    ]
    assert all(row["_headers"] == [] for row in rows)
    source.close()


def test_json_numbers_are_never_floats(server: KafkaServer, topic: str):
    big, small = "12345678901234567890123456789.000000000001", "1E-400"
    texts = [
        f'{{"id": {n}, "price": {price}, "count": {count}}}'
        for n, price, count in (
            (2**63 - 1, big, 10**30),
            (-(2**63), small, 1),
            (9007199254740993, "0.10", -5),
        )
    ]
    server.produce(topic, [text.encode() for text in texts])
    source = source_of(server)
    rows = read(source, topic)
    assert [row["id"] for row in rows] == [2**63 - 1, -(2**63), 9007199254740993]
    assert [row["price"] for row in rows] == [big, small, "0.10"]
    assert [row["count"] for row in rows] == [str(10**30), "1", "-5"]
    source.close()


def test_nested_and_mixed_values_are_json_text(server: KafkaServer, topic: str):
    values = ['{"a":[1.10,{"b":null}],"m":1}', '{"a":{"ü":"\\ud83d\\ude00"},"m":"x"}', '{"m":null}']
    server.produce(topic, [value.encode() for value in values])
    source = source_of(server)
    rows = read(source, topic)
    assert [row["a"] for row in rows] == ['[1.10,{"b":null}]', '{"ü":"😀"}', None]
    assert [row["m"] for row in rows] == ["1", '"x"', "null"]
    source.close()


def test_a_value_that_is_no_json_object_is_kept_as_it_is(server: KafkaServer, topic: str):
    odd = [
        b"{", b"[1]", b"null", b"\xff\xfe", b'{"a":1,"a":2}', b'{"a":NaN}', b"{}{}", b"",
        b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ]  # fmt: skip
    server.produce(topic, [b'{"a":1}', *odd, None, b"{}"])
    source = source_of(server, topics=[{"name": topic, "format": "json"}])
    rows = read(source, topic)
    assert [row["_value"] for row in rows] == [None, *odd, None, None]
    assert [row["a"] for row in rows] == [1, *[None] * (len(odd) + 2)]
    assert [row["_tombstone"] for row in rows] == [*[False] * (len(odd) + 1), True, False]
    source.close()


def test_a_field_that_the_sample_did_not_show_is_not_lost(server: KafkaServer, topic: str):
    old = [b'{"id":%d,"old":"here"}' % n for n in range(400)]
    server.produce(topic, [*old, *(b'{"id":%d}' % n for n in range(300))])
    source = source_of(server)
    assert "old" not in {column.name for column in unit_of(source, topic).columns}
    rows = read(source, topic)
    assert [row["_extra"] for row in rows] == ['{"old":"here"}'] * 400 + [None] * 300
    source.close()


def test_a_field_that_is_named_like_an_envelope_column_is_not_lost(server: KafkaServer, topic: str):
    server.produce(topic, [b'{"_offset":"mine","_extra":1,"_value":[2],"x.y":3,"id":4}'])
    source = source_of(server)
    (row,) = read(source, topic)
    assert (row["_offset"], row["_value"], row["id"]) == (0, None, 4)
    assert json.loads(row["_extra"]) == {"_offset": "mine", "_extra": 1, "_value": [2], "x.y": 3}
    source.close()


def test_declared_types_need_no_sample(server: KafkaServer, topic: str):
    schema = {
        "at": "timestamp", "day": "date", "price": "decimal(20,2)", "ratio": "double",
        "ok": "boolean", "tags": "json",
    }  # fmt: skip
    declared = [{"name": name, "type": type_} for name, type_ in schema.items()]
    source = source_of(server, topics=[{"name": topic, "schema": declared}])
    kinds = {column.name: column.arrow_type for column in unit_of(source, topic).columns}
    assert kinds["price"] == "decimal128(20, 2)"
    assert read(source, topic) == []
    value = b"""{"at": "2024-02-29T23:59:59.5+02:00", "day": "2024-02-29", "price": 1.5,
                 "ratio": 0.1, "ok": true, "tags": ["a"]}"""
    server.produce(topic, [value])
    (row,) = read(source, topic)
    assert row["at"] == dt.datetime(2024, 2, 29, 21, 59, 59, 500_000, tzinfo=UTC)
    assert (row["day"], row["price"]) == (dt.date(2024, 2, 29), Decimal("1.50"))
    assert (row["ratio"], row["ok"], row["tags"]) == (0.1, True, '["a"]')
    source.close()


def test_a_value_that_does_not_fit_names_column_and_remedy(server: KafkaServer, topic: str):
    server.produce(topic, [b'{"id":"text"}', *(b'{"id":%d}' % n for n in range(300))])
    source = source_of(server)
    with pytest.raises(UnrepresentableValueError) as caught:
        read(source, topic)
    assert caught.value.context["column"] == "id"
    rows = read(source, topic, IngestionPolicy(encodings={"id": "json"}))
    assert [row["id"] for row in rows[:3]] == ['"text"', "0", "1"]
    source.close()


def test_keys_and_values_can_be_read_as_text(server: KafkaServer, topic: str):
    server.produce(topic, [("ключ".encode(), "wörd".encode())])
    source = source_of(server)
    (row,) = read(source, topic, IngestionPolicy(encodings={"_key": "text", "_value": "text"}))
    assert (row["_key"], row["_value"]) == ("ключ", "wörd")
    server.produce(topic, [(b"\xff", b"")])
    with pytest.raises(UnrepresentableValueError, match="_key"):
        read(source, topic, IngestionPolicy(encodings={"_key": "text"}))
    source.close()


def test_a_time_beyond_microseconds_is_refused_and_readable_as_a_number(
    server: KafkaServer, topic: str
):
    far = 2**62
    server.configure_topic(topic, message_timestamp_after_max_ms=str(2**63 - 1))
    server.produce(topic, [b"x"], timestamp_ms=far)
    source = source_of(server)
    with pytest.raises(UnrepresentableValueError, match="int64"):
        read(source, topic)
    (row,) = read(source, topic, IngestionPolicy(encodings={"_timestamp": "int64"}))
    assert row["_timestamp"] == far
    source.close()


def test_columns_are_chosen_and_unknown_ones_refused(server: KafkaServer, topic: str):
    server.produce(topic, [b'{"id":1,"name":"a"}'])
    source = source_of(server)
    unit = unit_of(source, topic)
    chosen = IngestionPolicy(columns=("_partition", "_offset", "name"))
    assert source.read_schema(unit, chosen).names == ["_partition", "_offset", "name"]
    assert read(source, topic, chosen) == [{"_partition": 0, "_offset": 0, "name": "a"}]
    for policy in (
        IngestionPolicy(columns=("nope",)),
        IngestionPolicy(encodings={"nope": "json"}),
        IngestionPolicy(encodings={"_offset": "text"}),
        IngestionPolicy(encodings={"name": "int64"}),
        IngestionPolicy(filter={"id": 1}),
    ):
        with pytest.raises(ValidationError):
            source.plan_incremental_slices(unit, None, policy, 1000)
    source.close()


def test_batches_have_a_bounded_size_whatever_the_size_of_messages(server: KafkaServer, topic: str):
    server.produce(topic, (b"%07d" % n + b"x" * 400_000 for n in range(120)))
    source = source_of(server)
    unit, plan = unit_of(source, topic), planned(source, topic)
    sizes = [b.nbytes for b in source.read(unit, plan.slices[0], IngestionPolicy())]
    assert sum(sizes) > 120 * 400_000
    assert max(sizes) < 1.5 * TARGET_BATCH_BYTES
    source.close()


def test_awkward_names_of_topics(server: KafkaServer):
    names = ["UPPER.lower-1_2", "a" * 249, "..."]
    for name in names:
        server.create_topic(name)
        server.produce(name, [b"{}"])
    source = source_of(server)
    for name in names:
        assert len(read(source, name)) == 1
    source.close()
