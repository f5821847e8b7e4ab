"""Tables that are made of queries, and what queries find as JSON."""

from __future__ import annotations

import io
import json
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from matih_ray.errors import MatihError, NotFoundError, SqlInvalidError
from matih_ray.settings import Settings
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.streaming.job import Script
from matih_ray.streaming.results import PageWriter, ResultFiles, json_values
from matih_ray.streaming.sql.script import CreateTable, parse_script
from matih_ray.streaming.sql.targets import declaration
from matih_ray.streaming.sql.types import FlinkType


class Shop:
    """A directory of JSON lines, and scripts over it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "in").mkdir()
        lines = [json.dumps({"a": n, "b": f"row {n}"}) for n in range(3)]
        (home / "in" / "rows.json").write_text("\n".join(lines))
        self.settings = Settings(home=home / "home")

    def run(self, text: str) -> list[str]:
        """Run a script to its end; the targets that rows went to."""
        files = f"'connector' = 'filesystem', 'path' = '{self.home / 'in'}', 'format' = 'json'"
        source = f"CREATE TABLE t (a INT, b STRING) WITH ({files});"
        script = Script(self.settings, {}, io.StringIO())
        inserts = script.prepare(parse_script(source + text, {}))
        script.create_tables()
        return [f"{found.target}: {found.rows}" for found in map(script.run, inserts)]

    def table(self, *path: str) -> list[dict]:
        catalog = open_catalog(CatalogConfig.from_settings(self.settings))
        return catalog.load_table(path).scan().to_arrow().to_pylist()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_a_table_of_a_query_is_made_and_filled_and_may_be_read(shop: Shop):
    out = f"'connector' = 'filesystem', 'path' = '{shop.home / 'out'}', 'format' = 'json'"
    done = shop.run(
        f"CREATE TABLE u WITH ({out}) AS (SELECT a + 1 AS more, b FROM t WHERE a > 0);"
        "CREATE TABLE lake.s.v AS SELECT more, CAST(more AS DECIMAL(9, 2)) AS d FROM u;"
    )
    assert done == ["u: 2", "lake.s.v: 2"]
    found = sorted(shop.table("s", "v"), key=lambda row: row["more"])
    assert found == [{"more": 2, "d": Decimal("2.00")}, {"more": 3, "d": Decimal("3.00")}]


def test_if_not_exists_is_about_the_table_and_not_about_its_rows(shop: Shop):
    made = "CREATE TABLE {} lake.s.v AS SELECT a FROM t"
    assert shop.run(made.format("")) == ["lake.s.v: 3"]
    with pytest.raises(SqlInvalidError, match="is there already"):
        shop.run(made.format(""))
    assert len(shop.table("s", "v")) == 3
    assert shop.run(made.format("IF NOT EXISTS")) == ["lake.s.v: 3"]
    assert len(shop.table("s", "v")) == 6


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TABLE lake.s.v AS SELECT nothing FROM t",
        "CREATE TABLE lake.s.v AS SELECT NULL AS n FROM t",
        "CREATE TABLE lake.s.v (a INT) AS SELECT a FROM t",
        "CREATE OR REPLACE TABLE lake.s.v AS SELECT a FROM t",
        "CREATE TABLE lake.s.v AS SELECT a FROM t LIMIT 1",
        "CREATE TABLE v AS SELECT a FROM t",
        "CREATE TABLE t AS SELECT a FROM t",
    ],
)
def test_a_query_that_is_wrong_makes_no_table(shop: Shop, text: str):
    with pytest.raises(MatihError):
        shop.run(text)
    assert open_catalog(CatalogConfig.from_settings(shop.settings)).list_namespaces() == []


def test_a_declaration_says_what_it_was_made_of():
    text = (
        "CREATE TABLE `a``b`.`s`.`t` (`x y` DECIMAL(9, 2) NOT NULL, `at` TIMESTAMP_LTZ(3), "
        "`l` ARRAY<STRING>) PARTITIONED BY (day(at)) WITH ('connector' = 'it''s', 'p' = '${P}')"
    )
    (table,) = parse_script(text, {"P": "${P}"})
    assert isinstance(table, CreateTable)
    assert declaration(table) == text


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (FlinkType("BIGINT"), [2**62, None], [2**62, None]),
        (FlinkType("FLOAT"), [0.1, None], [0.1, None]),
        (FlinkType("DOUBLE"), [0.1, float("nan"), float("-inf")], [0.1, "NaN", "-Infinity"]),
        (FlinkType("DECIMAL", 38, 2), [Decimal("1" * 36 + ".10")], ["1" * 36 + ".10"]),
        (FlinkType("TIMESTAMP", 0), [datetime(2026, 1, 1, 10)], ["2026-01-01T10:00:00"]),  # noqa: DTZ001
        (FlinkType("TIMESTAMP", 6), [datetime(1, 1, 1, 0, 0, 0, 120), None],  # noqa: DTZ001
         ["0001-01-01T00:00:00.00012", None]),
        (FlinkType("TIMESTAMP_LTZ", 3), [datetime(2026, 1, 1, tzinfo=timezone.utc)],
         ["2026-01-01T00:00:00Z"]),
        (FlinkType("ARRAY", element=FlinkType("DECIMAL", 3, 1)), [[Decimal("1.5"), None], None],
         [["1.5", None], None]),
    ],
    ids=str,
)  # fmt: skip
def test_values_are_written_as_flinks_gateway_writes_them(
    kind: FlinkType, values: list, expected: list
):
    assert json_values(pa.array(values, kind.arrow), kind) == expected


def test_pages_end_at_rows_and_at_bytes_and_stop_at_a_limit(tmp_path: Path):
    files = ResultFiles(str(tmp_path / "results"))
    pages = PageWriter(files, {"s": FlinkType("STRING")}, 3)
    large = "x" * 700_000
    pages.take(pa.record_batch([pa.array([large, large, "a", "b"])], names=["s"]))
    assert pages.is_full
    assert pages.close() == 2
    assert [files.read(number) for number in range(2)] == [((large,),), ((large,), ("a",))]
    files.delete()
    with pytest.raises(NotFoundError, match="run the query again"):
        files.read(0)
    files.delete()  # harmless
