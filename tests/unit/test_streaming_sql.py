"""The SQL front end: every clause parses, means what Flink means, or is refused by name."""

from __future__ import annotations

import io
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from matih_ray.errors import SqlInvalidError, SqlNotSupportedError, StreamRowError
from matih_ray.settings import Settings
from matih_ray.streaming.job import Script
from matih_ray.streaming.sql.dialect import parse_statement
from matih_ray.streaming.sql.expressions import compile_expression
from matih_ray.streaming.sql.json_paths import scalars_at
from matih_ray.streaming.sql.script import (
    CreateCatalog,
    CreateTable,
    CreateView,
    Insert,
    SetOption,
    parse_script,
)
from matih_ray.streaming.sql.types import BOOLEAN, DOUBLE, INT, STRING, FlinkType

JOBS = Path(__file__).parents[2] / "jobs" / "sql"
SECRETS = {"DATABASE_USER": "the-user", "DATABASE_PASSWORD": "the'password"}
SOURCE = """
CREATE TABLE t (k STRING, v INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '5' SECOND)
WITH ('connector' = 'filesystem', 'path' = '/nowhere', 'format' = 'json');
"""


def one(text: str):
    (statement,) = parse_script(text, SECRETS)
    return statement


def plans(text: str, options: dict[str, str] | None = None) -> str:
    script = Script(Settings(), options or {}, io.StringIO())
    inserts = script.prepare(parse_script(text, SECRETS))
    return "\n".join(line for insert in inserts for line in script.explain(insert))


@pytest.mark.parametrize("job", sorted(path.name for path in JOBS.glob("*.sql")))
def test_every_job_of_the_specification_is_planned_and_shows_no_secret(job: str):
    text = plans((JOBS / job).read_text())
    assert text.startswith("Sink(polaris.matih_analytics.")
    assert not any(secret in text for secret in SECRETS.values())


@pytest.mark.parametrize("script", sorted(path.name for path in (JOBS / "tables").glob("*.sql")))
def test_every_table_of_the_specification_is_partitioned_by_time(script: str):
    table = one((JOBS / "tables" / script).read_text())
    assert isinstance(table, CreateTable)
    daily = script == "state_transition_log.sql"
    assert table.partition_by == (("day(event_timestamp)",) if daily else ("hour(window_start)",))


def test_a_table_has_computed_and_metadata_columns_a_watermark_and_a_key():
    table = one(
        "CREATE TEMPORARY TABLE t (id STRING NOT NULL, price DECIMAL(10, 2), tags ARRAY<STRING>, "
        "at TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL, part INT METADATA, "
        "twice AS price * 2, WATERMARK FOR at AS at - INTERVAL '1' MINUTE, "
        "PRIMARY KEY (id) NOT ENFORCED) WITH ('a;b' = 'it''s')"
    )
    assert isinstance(table, CreateTable)
    assert [str(column.type) for column in table.columns] == [
        "STRING", "DECIMAL(10, 2)", "ARRAY<STRING>", "TIMESTAMP_LTZ(3)", "INT", "None",
    ]  # fmt: skip
    assert [column.metadata for column in table.columns][3:5] == ["timestamp", "part"]
    assert table.watermark is not None
    assert (table.watermark[0], table.primary_key) == ("at", ("id",))
    assert table.options.values == {"a;b": "it's"}


def test_the_other_statements_parse():
    assert isinstance(one("CREATE CATALOG c WITH ('type' = 'iceberg')"), CreateCatalog)
    assert one("SET 'a.b' = 'c'") == SetOption("a.b", "c")
    view = one("CREATE TEMPORARY VIEW v (x) AS SELECT k FROM t")
    assert isinstance(view, CreateView)
    assert view.columns == ("x",)
    explained = one("EXPLAIN INSERT INTO a.b SELECT k FROM t")
    assert isinstance(explained, Insert)
    assert explained.explain


@pytest.mark.parametrize("opening", ["EXECUTE STATEMENT SET BEGIN", "BEGIN STATEMENT SET;"])
def test_a_statement_set_is_its_inserts(opening: str):
    found = parse_script(
        f"{opening} INSERT INTO a SELECT k FROM t; INSERT INTO b SELECT v FROM t; END;", {}
    )
    assert [insert.path for insert in found if isinstance(insert, Insert)] == [("a",), ("b",)]


def test_a_variable_is_a_value_whatever_is_in_it_and_is_never_shown():
    table = one("CREATE TABLE t (a INT) WITH ('connector' = 'x', 'u' = '${DATABASE_PASSWORD}')")
    assert isinstance(table, CreateTable)
    assert table.options.values["u"] == "the'password"
    assert table.options.shown() == {"connector": "x", "u": "******"}
    assert "the'password" not in repr(table)
    with pytest.raises(SqlInvalidError, match="NOT_THERE is not set"):
        one("CREATE TABLE t (a INT) WITH ('u' = '${NOT_THERE}')")


def test_options_are_overridden_by_table_and_unknown_tables_are_refused():
    text = SOURCE + "INSERT INTO a.b SELECT k FROM t;"
    assert "path=/elsewhere" in plans(text, {"t.path": "/elsewhere"})
    with pytest.raises(SqlInvalidError, match=r"option u\.path"):
        plans(text, {"u.path": "/elsewhere"})


@pytest.mark.parametrize(
    ("query", "clause"),
    [
        ("SELECT t.k FROM t JOIN t AS u ON t.k = u.k", "JOIN"),
        ("SELECT k, COUNT(*) FROM t GROUP BY k", "GROUP BY"),
        ("SELECT COUNT(*) FROM t", "GROUP BY"),
        ("SELECT DISTINCT k FROM t", "DISTINCT"),
        ("SELECT k FROM t ORDER BY k", "ORDER BY"),
        ("SELECT k FROM t LIMIT 1", "LIMIT"),
        ("SELECT k FROM t UNION SELECT k FROM t", "UNION"),
        ("SELECT k FROM t EXCEPT SELECT k FROM t", "EXCEPT"),
        ("SELECT REVERSE(k) FROM t", "REVERSE"),
        ("SELECT k IN (SELECT k FROM t) FROM t", "IN"),
        ("WITH u AS (SELECT k FROM t) SELECT k FROM u", "WITH"),
        ("SELECT k FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' DAY))", "TUMBLE"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_refused_by_its_name(query: str, clause: str):
    with pytest.raises(SqlNotSupportedError) as caught:
        plans(f"{SOURCE} INSERT INTO a.b {query};")
    assert caught.value.context["clause"] == clause


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("SELECT nothing FROM t", "no column 'nothing'"),
        ("SELECT k FROM u", "no table 'u'"),
        ("SELECT v FROM t GROUP BY TUMBLE(ts, INTERVAL '1' HOUR), k", "neither grouped by"),
        ("SELECT k FROM t GROUP BY TUMBLE(k, INTERVAL '1' HOUR), k", "time attribute"),
        ("SELECT k FROM t GROUP BY TUMBLE(ts, INTERVAL '1' MONTH), k", "no fixed length"),
        (
            "SELECT TUMBLE_END(ts, INTERVAL '2' DAY) FROM t GROUP BY TUMBLE(ts, INTERVAL '1' DAY)",
            "not of the window",
        ),
        ("SELECT k + 1 FROM t", "no numbers"),
        ("SELECT k FROM t WHERE v", "condition is needed"),
        ("SELECT FROM WHERE", "line"),
    ],
)
def test_what_is_wrong_is_refused_with_the_reason(query: str, why: str):
    with pytest.raises(SqlInvalidError, match=why):
        plans(f"{SOURCE} INSERT INTO a.b {query};")


SCOPE = {"i": INT, "s": STRING, "d": DOUBLE, "b": BOOLEAN, "t": FlinkType("TIMESTAMP", 3)}
ROWS = pa.record_batch(
    {
        "i": pa.array([7, None, -5], pa.int32()),
        "s": ["1.5", " 2 ", None],
        "d": [1e10, None, 0.0],
        "b": [True, None, False],
        "t": pa.array([1_234, 0, None], pa.timestamp("ms")),
    }
)


@pytest.mark.parametrize(
    ("text", "kind", "values"),
    [
        ("i / 2", "INT", [3, None, -2]),
        ("MOD(i, 3)", "INT", [1, None, -2]),
        ("2147483647 + i", "INT", [-2147483642, None, 2147483642]),
        ("d / 0", "DOUBLE", [float("inf"), None, pytest.approx(float("nan"), nan_ok=True)]),
        ("0.0", "DECIMAL(2, 1)", [Decimal("0.0")] * 3),
        ("i * 2.5", "DECIMAL(12, 1)", [Decimal("17.5"), None, Decimal("-12.5")]),
        ("CAST(s AS DOUBLE)", "DOUBLE", [1.5, 2.0, None]),
        ("CAST('1e3' AS DOUBLE)", "DOUBLE", [1000.0] * 3),
        ("TRY_CAST('abc' AS DOUBLE)", "DOUBLE", [None] * 3),
        ("CAST(d AS INT)", "INT", [2147483647, None, 0]),
        ("CAST(d AS STRING)", "STRING", ["1.0E10", None, "0.0"]),
        ("CAST(b AS STRING)", "STRING", ["TRUE", None, "FALSE"]),
        ("SUBSTRING(CAST(t AS STRING), 18)", "STRING", ["01.234", "00.000", None]),
        ("b AND i > 0", "BOOLEAN", [True, None, False]),
        ("b OR i > 0", "BOOLEAN", [True, None, False]),
        ("NOT b", "BOOLEAN", [False, None, True]),
        ("i NOT IN (7, 8)", "BOOLEAN", [False, None, True]),
        ("i IS NULL", "BOOLEAN", [False, True, False]),
        ("i BETWEEN 0 AND 9", "BOOLEAN", [True, None, False]),
        ("GREATEST(i, 1)", "INT", [7, None, 1]),
        ("COALESCE(d, 0.0)", "DOUBLE", [1e10, 0.0, 0.0]),
        ("NULLIF(i, 7)", "INT", [None, None, -5]),
        ("CASE WHEN b THEN 'y' ELSE s END", "STRING", ["y", " 2 ", None]),
        ("s || '!'", "STRING", ["1.5!", " 2 !", None]),
        ("s LIKE '1%'", "BOOLEAN", [True, False, None]),
        ("""JSON_VALUE('{"a": {"b": [1.50]}}', '$.a.b[0]')""", "STRING", ["1.50"] * 3),
        ("""JSON_VALUE('{"a": {}}', '$.a')""", "STRING", [None] * 3),
        ("JSON_VALUE('no json', '$.a')", "STRING", [None] * 3),
    ],
)  # fmt: skip
def test_an_expression_has_the_type_and_values_that_it_has_in_flink(text, kind, values):
    compiled = compile_expression(parse_statement(f"SELECT {text}").expressions[0], SCOPE)
    found = compiled.evaluate(ROWS)
    assert str(compiled.type) == kind
    assert found.type == compiled.type.arrow
    assert found.to_pylist() == values


DOCUMENTS = [
    ('{"a":1}', "1"),
    (' {"b":2,"a" : "q"} ', "q"),
    ('{"a":-0}', "0"),
    ('{"a":1.50}', "1.50"),
    ('{"a":true}', "true"),
    ('{"a":' + "1" * 5000 + "}", "1" * 5000),
    ('{"a":1,"a":2}', "2"),
    ('{"a":null}', None),
    ('{"a":{}}', None),
    ('{"a":[7]}', None),
    ('{"b":1}', None),
    ("[1]", None),
    ("null", None),
    ("", None),
    ('{"a":1', None),
    ('{"a":1}{', None),
    ('{"a":NaN}', None),
    ('{"a":1,"b":Infinity}', None),
    ('{"a":1e99999999999999999999}', None),
    ('{"a":' + "[" * 100_000, None),
    (None, None),
]


def found_in(path: tuple[str | int, ...], texts: list[str | None]) -> list[str | None]:
    values: list[str | None] = scalars_at(path)(pa.array(texts, pa.string())).to_pylist()
    return values


def test_a_json_value_is_its_text_and_all_else_is_null():
    texts, expected = [text for text, _ in DOCUMENTS], [value for _, value in DOCUMENTS]
    assert found_in(("a",), texts) == expected
    assert [found_in(("a",), [text]) for text in texts] == [[value] for value in expected]
    nested = [None if text is None else f'{{"a":{text}}}' for text in texts]
    assert found_in(("a", "a"), nested) == expected
    assert found_in(("a", "a"), ['{"a":1,"a":{"a":2}}', '{"a":null}', "{}"]) == ["2", None, None]
    assert found_in(("a", 1), ['{"a":[1,"\\u00e4"]}']) == ["ä"]
    assert found_in((), ["7", '"\\u00e4"', "{}"]) == ["7", "ä", None]


@pytest.mark.parametrize("text", ["CAST('abc' AS DOUBLE)", "i / 0", "CAST('' AS INT)"])
def test_what_fails_in_flink_stops_the_job_unless_no_row_gets_there(text: str):
    def evaluate(sql: str) -> pa.Array:
        node = parse_statement(f"SELECT {sql}").expressions[0]
        return compile_expression(node, SCOPE).evaluate(ROWS)

    with pytest.raises(StreamRowError):
        evaluate(text)
    guarded = f"CASE WHEN i > 100 THEN {text} ELSE 1 END"
    assert evaluate(guarded).to_pylist() == [1, 1, 1]
