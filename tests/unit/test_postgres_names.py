from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matih_ray.errors import UnknownUnitError
from matih_ray.sources.postgres.names import schema_and_table, unit_id_of

# PostgreSQL names hold any character but NUL and are not empty.
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(names, names)
def test_every_name_survives_the_way_through_a_unit_id(schema: str, table: str) -> None:
    assert schema_and_table(unit_id_of(schema, table)) == (schema, table)


@given(names, names, names, names)
def test_different_tables_have_different_unit_ids(a: str, b: str, c: str, d: str) -> None:
    assert ((a, b) == (c, d)) == (unit_id_of(a, b) == unit_id_of(c, d))


def test_names_are_quoted_only_where_needed() -> None:
    assert unit_id_of("public", "orders_2024") == "public.orders_2024"
    assert unit_id_of("Sales 2024", 'line."x"') == '"Sales 2024"."line.""x"""'


@pytest.mark.parametrize(
    "text",
    ["orders", "public.Orders", "a.b.c", '"public".orders', '"a"b.c', 'a."b', "a.", '"".t', ""],
)
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(UnknownUnitError):
        schema_and_table(text)
