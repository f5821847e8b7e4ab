"""Names of tables, properties and branches."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matih_ray.errors import ValidationError
from matih_ray.model.checkpoint import StreamKey
from matih_ray.sinks.iceberg.naming import (
    MAX_NAME_LENGTH,
    load_branch,
    marker_property,
    safe_name,
    table_identifier,
)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("orders", "orders"),
        ("Orders-2_b", "Orders-2_b"),
        ("a b", "a_x20b"),
        ("a_x20b", "a_x5Fx20b"),
        ("a_x2b", "a_x2b"),
        ('public."t"', "public_x2E_x22t_x22"),
        ("../../etc", "_x2E_x2E_x2F_x2E_x2E_x2Fetc"),
        ("é", "_xC3_xA9"),
        ("_", "_"),
    ],
)
def test_unsafe_bytes_are_spelled_out(name, safe):
    assert safe_name(name) == safe


NAMES = st.text(st.sampled_from("ax_20FE5. é/"), min_size=1, max_size=12)


@settings(deadline=None)
@given(NAMES, NAMES)
def test_different_names_stay_different(one, other):
    assert (safe_name(one) == safe_name(other)) == (one == other)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", safe_name(one))


def test_long_names_are_cut_and_stay_different():
    one, other = safe_name("x" * 300 + "1"), safe_name("x" * 300 + "2")
    assert len(one) == len(other) == MAX_NAME_LENGTH
    assert one != other


@pytest.mark.parametrize("path", [(), ("orders",), ("a", ""), ("", "orders")])
def test_a_path_needs_a_namespace_and_a_name(path):
    with pytest.raises(ValidationError) as caught:
        table_identifier(path)
    assert caught.value.context["field"] == "target"


def test_every_part_of_a_stream_makes_its_marker_its_own():
    whole = {"tenant_id": "t", "vendor": "v", "endpoint_id": "e", "unit_id": "u", "sink_id": "s"}
    streams = [StreamKey(**whole), *(StreamKey(**{**whole, key: "other"}) for key in whole)]
    assert len({marker_property(stream) for stream in streams}) == len(streams)
    assert len({load_branch(stream) for stream in streams}) == len(streams)
    assert marker_property(streams[0]) == "matih.marker.c56161fee46bf10d"
