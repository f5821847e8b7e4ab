"""TPC-H tables arrive complete, typed and keyed, and grow by orders with new keys."""

from __future__ import annotations

import pytest

from matih_ray.testing import tpch

SCALE = 0.01


@pytest.fixture(scope="module")
def connection(postgres):
    postgres.create_database("tpch_loader")
    connection = postgres.connect("tpch_loader")
    for table in tpch.TABLES:
        tpch.load(connection, table, SCALE)
    yield connection
    connection.close()


def rows(connection, query):
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def test_the_tables_have_the_rows_of_their_scale(connection):
    assert rows(connection, "SELECT count(*) FROM orders") == [(15_000,)]
    assert rows(connection, "SELECT count(*) FROM lineitem") == [(60_175,)]


def test_prices_are_exact_and_fixed_width_text_is_padded(connection):
    query = "SELECT l_extendedprice::text, octet_length(l_shipmode) FROM lineitem LIMIT 1"
    ((price, width),) = rows(connection, query)
    assert price.split(".")[1].isdigit()
    assert width == 10


def test_statistics_are_there_for_the_planner(connection):
    query = "SELECT reltuples::int, relallvisible > 0 FROM pg_class WHERE relname = 'lineitem'"
    assert rows(connection, query) == [(60_175, True)]


def test_new_orders_have_larger_keys_and_all_their_line_items(connection):
    ((before,),) = rows(connection, "SELECT max(o_orderkey) FROM orders")
    added = tpch.add_orders(connection, 100)
    new = f"FROM orders WHERE o_orderkey > {before}"
    assert added["orders"] == 100
    assert rows(connection, f"SELECT count(*) {new}") == [(100,)]
    assert rows(
        connection, f"SELECT count(*) FROM lineitem WHERE l_orderkey IN (SELECT o_orderkey {new})"
    ) == [(added["lineitem"],)]
    assert rows(connection, f"SELECT count(*) FROM lineitem WHERE l_orderkey > {before}") == [
        (added["lineitem"],)
    ]


def test_changes_touch_as_many_orders_as_were_asked_for_and_are_dated(connection):
    for table in tpch.TABLES:
        tpch.track_changes(connection, table)
    touched = tpch.change_orders(connection, 50)
    added = tpch.add_orders(connection, 50)
    dated = {}
    for table in touched:
        newer = (
            f"SELECT count(*) FROM {table} WHERE changed_at > (SELECT min(changed_at) FROM {table})"
        )
        ((dated[table],),) = rows(connection, newer)
    assert touched["orders"] == 100
    assert rows(connection, "SELECT count(*) FROM orders WHERE deleted") == [(50,)]
    assert dated == {name: touched[name] + added[name] for name in touched}
