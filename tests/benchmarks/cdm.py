"""The canonical data model: mapping on one core, the upsert against one written by hand, and issues
from a server into the table.

`make bench-cdm SCALE=1 REPEAT=3 ISSUES=100000`: 1 M rows of issues, times SCALE, for the first two;
ISSUES generated ones for the last (see `cdm_issues`). What is 0 is left out.

- mapping: rows a second of `apply_cdm` on one thread, for each unit that has a mapper, in batches
  as they are read;
- upsert: the sink `cdm.jdbc` (one writer, then the commit) against psql: COPY into a temporary
  table, then `INSERT … ON CONFLICT (cdm_id) DO UPDATE` with a condition on versions, in one
  transaction, from a CSV file that is written before the clock starts. First into an empty table,
  then newer versions of every row, then the same versions again, which change nothing. Ratios
  are psql's time by ours, of the clock and of CPU (server, Python and psql together): the second
  says more on a machine that has other work.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.compute as pc

from matih_ray.mappers import apply_cdm
from matih_ray.mappers.expressions import Origin
from matih_ray.model.cdm.work import ITEM
from matih_ray.model.ids import EndpointId, RunId, UnitId
from matih_ray.model.policy import WriteMode
from matih_ray.registry import load_registry
from matih_ray.settings import Settings
from matih_ray.sinks.base import SinkTarget
from matih_ray.sinks.cdm_postgres import CdmPostgresSink
from matih_ray.sinks.cdm_postgres.columns import csv_pieces
from matih_ray.sources.base import TARGET_BATCH_BYTES
from matih_ray.sources.confluence import schemas as confluence
from matih_ray.sources.jira import schemas as jira
from matih_ray.sources.onedrive import schemas as onedrive
from matih_ray.testing.contracts.sink_lab import TENANT, marker, slice_, stream
from matih_ray.testing.devstack.postgres import PostgresServer, find_binaries
from tests.benchmarks.cdm_issues import measure
from tests.benchmarks.contenders import postmaster
from tests.benchmarks.machine import SERVER_OPTIONS, describe, last_line, number, say, table
from tests.benchmarks.measure import cpu_s

ROWS = 1_000_000
MAPPED_ROWS = 200_000
# Every measured mapping takes at least this long.
MAPPING_S = 1.0
FAMILIES = {"http.confluence": confluence, "http.jira": jira, "http.onedrive": onedrive}
PHASES = {"insert": 1, "update": 2, "again": 2}
DATABASE = "bench"
BAR_RATIO, BAR_ROWS_PER_S = 0.8, 200_000


def main() -> None:
    """Measure, check that both ways end with the same rows, and report."""
    scale, repeat = number("SCALE", 1), int(number("REPEAT", 3))
    issues = int(number("ISSUES", 100_000))
    with PostgresServer(options=SERVER_OPTIONS) as server:
        facts = describe(server)
        result = _mapping_and_upsert(server, int(ROWS * scale), repeat) if scale else {}
        if issues:
            result |= measure(server, issues)
    last_line({"benchmark": "cdm", **result, **facts})


def _mapping_and_upsert(server: PostgresServer, rows: int, repeat: int) -> dict[str, object]:
    mapping = {
        f"{family} {unit_id}": _mapping(family, unit_id, module.SCHEMAS[unit_id])
        for family, module in FAMILIES.items()
        for unit_id in module.CDM_MODELS
    }
    table({name: {"rows_per_s": round(rate)} for name, rate in mapping.items()})
    server.create_database(DATABASE)
    with TemporaryDirectory(prefix="bench-cdm-") as home:
        ratios = _compare(server, Path(home), rows, repeat)
    issues = mapping["http.jira jira.issues"]
    return {
        "rows": rows,
        "mapping_rows_per_s": round(issues),
        "slowest_mapping_rows_per_s": round(min(mapping.values())),
        **ratios,
        "passed": issues >= BAR_ROWS_PER_S
        and min(float(str(ratios[f"{phase}_ratio"])) for phase in ("insert", "update"))
        >= BAR_RATIO,
    }


def _mapping(family: str, unit_id: str, schema: pa.Schema) -> float:
    """Rows a second of one mapper on this thread."""
    raw = _raw(schema, MAPPED_ROWS, 1)
    cut = max(1, raw.num_rows * TARGET_BATCH_BYTES // raw.nbytes)
    batches = [raw.slice(start, cut) for start in range(0, raw.num_rows, cut)]
    plugins, origin = load_registry(), _origin(family, unit_id)
    pa.set_cpu_count(1)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < MAPPING_S:
        for batch in batches:
            done += apply_cdm(plugins, origin, batch).num_rows
    return done / (time.perf_counter() - started)


def _compare(server: PostgresServer, home: Path, rows: int, repeat: int) -> dict[str, object]:
    """Median seconds of both ways for each phase, and how they compare."""
    batches = {version: _items(rows, version) for version in set(PHASES.values())}
    files = {version: home / f"v{version}.csv" for version in batches}
    for version, path in files.items():
        _write_csv(path, batches[version])
    seconds: dict[str, dict[str, list[float]]] = {phase: {} for phase in PHASES}
    worked: dict[str, dict[str, list[float]]] = {phase: {} for phase in PHASES}
    for round_ in range(repeat):
        for way in ("ours", "psql") if round_ % 2 == 0 else ("psql", "ours"):
            sink = _emptied(server)
            for position, (phase, version) in enumerate(PHASES.items(), 1):
                server.execute("CHECKPOINT", DATABASE)
                trees = [postmaster(server), os.getpid()]
                before_s, started = cpu_s(trees), time.perf_counter()
                if way == "ours":
                    _load(sink, batches[version], f"{round_} {position}")
                else:
                    _by_hand(server, home, files[version])
                took_s = time.perf_counter() - started
                worked_s = cpu_s(trees) - before_s
                seconds[phase].setdefault(way, []).append(took_s)
                worked[phase].setdefault(way, []).append(worked_s)
                say(f"round {round_}, {phase}, {way}: {took_s:.2f} s, {worked_s:.2f} s of CPU")
            _check(server, rows)
            sink.close()
    report: dict[str, object] = {}
    for phase in PHASES:
        for what, measured in (("", seconds[phase]), ("cpu_", worked[phase])):
            ours_s, psql_s = (statistics.median(measured[way]) for way in ("ours", "psql"))
            report[f"{phase}_{what}s"] = round(ours_s, 2)
            report[f"{phase}_psql_{what}s"] = round(psql_s, 2)
            report[f"{phase}_{what}ratio"] = round(psql_s / ours_s, 2)
    return report


def _emptied(server: PostgresServer) -> CdmPostgresSink:
    """A sink on a database without any of its tables."""
    server.execute("DROP SCHEMA IF EXISTS cdm CASCADE", DATABASE)
    url = f"postgresql://{server.user}@{server.host}:{server.port}/{DATABASE}"
    sink = CdmPostgresSink.from_settings(Settings(cdm_database_url=url), TENANT)
    sink.provision(ITEM)
    return sink


def _load(sink: CdmPostgresSink, batches: list[pa.RecordBatch], run: str) -> None:
    prepared = sink.prepare(
        SinkTarget(stream(), (TENANT, ITEM.model_id), ITEM.schema, WriteMode.APPEND)
    )
    writer = sink.writer(prepared, slice_())
    for batch in batches:
        writer.write(batch)
    sink.commit(prepared, [writer.close()], marker(1, run=run))


def _by_hand(server: PostgresServer, home: Path, file: Path) -> None:
    columns = ", ".join(ITEM.schema.names)
    changes = ", ".join(f"{n} = excluded.{n}" for n in ITEM.schema.names if n != "cdm_id")
    script = home / "by_hand.sql"
    script.write_text(
        f"""
        BEGIN;
        CREATE TEMPORARY TABLE stage (LIKE cdm.cdm_work_item) ON COMMIT DROP;
        ALTER TABLE stage DROP COLUMN loaded_at;
        \\copy stage ({columns}) FROM '{file}' (FORMAT csv)
        INSERT INTO cdm.cdm_work_item AS held ({columns}) SELECT {columns} FROM stage
        ON CONFLICT (cdm_id) DO UPDATE SET {changes}, loaded_at = now()
        WHERE excluded.source_version >= held.source_version;
        COMMIT;
        """
    )
    subprocess.run(
        [
            find_binaries() / "psql",
            *("-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", script, "-d", server.dsn(DATABASE)),
        ],
        check=True,
    )


def _check(server: PostgresServer, rows: int) -> None:
    """Both ways must end with every row in its last version."""
    found = server.execute(
        "SELECT count(*), min(source_version), max(source_version), count(DISTINCT cdm_id) "
        "FROM cdm.cdm_work_item WHERE NOT is_deleted",
        DATABASE,
    )
    last = max(PHASES.values())
    assert found == [(rows, last, last, rows)], found


def _write_csv(path: Path, batches: list[pa.RecordBatch]) -> None:
    with path.open("wb") as file:
        for batch in batches:
            for piece in csv_pieces(batch):
                file.write(piece)


def _items(rows: int, version: int) -> list[pa.RecordBatch]:
    raw = _raw(jira.ISSUES, rows, version)
    cut = max(1, raw.num_rows * TARGET_BATCH_BYTES // raw.nbytes)
    plugins, origin = load_registry(), _origin("http.jira", "jira.issues")
    return [apply_cdm(plugins, origin, raw.slice(start, cut)) for start in range(0, rows, cut)]


def _origin(family: str, unit_id: str) -> Origin:
    endpoint = EndpointId("0f8fad5bd9cb469fa16570867728950e")
    return Origin(
        TENANT, endpoint, family, UnitId(unit_id), RunId("7c9e6679742540de944be07fc1f90ae7")
    )


def _raw(schema: pa.Schema, rows: int, version: int) -> pa.RecordBatch:
    """Rows of a unit: ids, short texts and longer descriptions, some NULLs, lists of two."""
    numbers = pa.array(range(rows), pa.int64())
    texts = numbers.cast(pa.string())
    changed = pc.add(numbers, version)
    columns = []
    for position, field in enumerate(schema):
        columns.append(_column(field, position, version, numbers, texts, changed))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _column(
    field: pa.Field,
    position: int,
    version: int,
    numbers: pa.Array,
    texts: pa.Array,
    changed: pa.Array,
) -> pa.Array:
    rows = len(numbers)
    if field.name == "id":
        return texts
    if field.name == "_source_version":
        return pa.repeat(pa.scalar(version, pa.int64()), rows)
    if field.name == "_deleted":
        return pa.repeat(pa.scalar(value=False), rows)
    if pa.types.is_list(field.type):
        values = pc.binary_join_element_wise(f"{field.name} ", pc.list_flatten(_pairs(texts)), "")
        return pa.ListArray.from_arrays(pa.array(range(0, 2 * rows + 1, 2), pa.int32()), values)
    if pa.types.is_string(field.type):
        long = field.name in ("description", "body", "summary", "title", "raw")
        filler = "words of a text that somebody has written, " * (5 if long else 1)
        values = pc.binary_join_element_wise(
            filler[: 200 if long else 12], changed.cast(pa.string()), ""
        )
    elif pa.types.is_boolean(field.type):
        values = pc.equal(pc.bit_wise_and(numbers, 1), 0)
    elif pa.types.is_timestamp(field.type):
        values = pc.add(pc.multiply(numbers, 1_000_000), 1_700_000_000_000_000).cast(field.type)
    elif pa.types.is_date32(field.type):
        values = pc.add(pc.bit_wise_and(numbers, 1023), 19_000).cast(pa.int32()).cast(field.type)
    else:
        values = changed.cast(field.type)
    is_null = pc.equal(pc.bit_wise_and(pc.add(numbers, position), 15), 0)
    return pc.if_else(is_null, pa.scalar(None, field.type), values)


def _pairs(texts: pa.Array) -> pa.Array:
    """Lists of each text twice."""
    twice = pc.take(texts, pa.array([n // 2 for n in range(2 * len(texts))], pa.int64()))
    return pa.ListArray.from_arrays(pa.array(range(0, 2 * len(texts) + 1, 2), pa.int32()), twice)


if __name__ == "__main__":
    main()
