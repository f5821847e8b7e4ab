"""What the CDM sink does to rows: exact values, versions, deletions, and growing tables."""

from __future__ import annotations

import itertools
import random
from datetime import date, datetime, timezone

import pyarrow as pa
import pytest

from matih_ray.errors import (
    ConfigurationError,
    SchemaMismatchError,
    SinkError,
    SinkUnavailableError,
    ValidationError,
)
from matih_ray.model.cdm import CDM_MODELS
from matih_ray.model.cdm.base import CdmColumn, CdmModel
from matih_ray.model.cdm.work import ITEM
from matih_ray.model.fingerprint import Fingerprint
from matih_ray.model.ids import EndpointId
from matih_ray.model.policy import WriteMode
from matih_ray.settings import Settings
from matih_ray.sinks.base import SinkTarget
from matih_ray.sinks.cdm_postgres import CdmPostgresSink
from matih_ray.sources.base import EndpointSpec
from matih_ray.testing.contracts.sink_lab import TENANT, marker, stream, write
from matih_ray.testing.devstack.postgres import PostgresServer
from tests.integration.cdm_lab import CdmLab

NUMBERS = itertools.count()


@pytest.fixture
def lab(postgres: PostgresServer) -> CdmLab:
    return CdmLab.create(postgres, f"cdm_values_{next(NUMBERS)}")


def rows(*changes: dict[str, object], model: CdmModel = ITEM) -> pa.RecordBatch:
    """Rows of a model; each is given by what is special about it."""
    whole = []
    for one in changes:
        source_id = str(one.get("source_id", "1"))
        whole.append(
            {
                "cdm_id": f"{model.model_id}:e1:{source_id}",
                "tenant_id": TENANT,
                "source_endpoint_id": stream().endpoint_id,
                "source_system": "http.jira",
                "source_unit_id": stream().unit_id,
                "source_id": source_id,
                "source_version": 1,
                "run_id": "run-1",
                "is_deleted": False,
                **one,
            }
        )
    return pa.RecordBatch.from_pylist(whole, model.schema)


class Loader:
    """Loads batches one commit after the other, each as a run of its own."""

    runs = itertools.count(1)

    def __init__(self, sink: CdmPostgresSink, model: CdmModel = ITEM) -> None:
        self.sink = sink
        self.model = model

    def load(self, *batches: pa.RecordBatch, mode: WriteMode = WriteMode.APPEND) -> None:
        prepared = self.sink.prepare(
            SinkTarget(stream(), (TENANT, self.model.model_id), self.model.schema, mode)
        )
        receipts = [write(self.sink, prepared, [one], n) for n, one in enumerate(batches)]
        self.sink.commit(prepared, receipts, marker(1, run=f"load {next(self.runs)}"))


def held(lab: CdmLab, columns: str = "source_id, source_version, summary, is_deleted, run_id"):
    return lab.query(f"SELECT {columns} FROM cdm.cdm_work_item ORDER BY source_id")


def everything(lab: CdmLab) -> list[tuple[object, ...]]:
    return lab.query("SELECT xmin::text, ctid::text, * FROM cdm.cdm_work_item ORDER BY cdm_id")


AWKWARD = [
    "",
    " ",
    "NULL",
    "\\N",
    "\\.",
    "a\n\\.\nb",
    '"',
    '""',
    "'; DROP TABLE x; --",
    "a,b\r\nc\td",
    "é 🎈 \u200b \ufeff",
    "{}",
    "\\",
    "x" * 100_000,
]


def test_every_text_arrives_as_it_was(lab: CdmLab):
    batch = rows(*({"source_id": f"{n:02}", "summary": s} for n, s in enumerate([*AWKWARD, None])))
    Loader(lab.cdm()).load(batch)
    assert [text for (text,) in held(lab, "summary")] == [*AWKWARD, None]


def test_every_list_arrives_as_it_was(lab: CdmLab):
    lists = [None, [], [""], AWKWARD, ["a", None, "NULL"], ["null"], ["{a,b}"]]
    batch = rows(*({"source_id": str(n), "labels": one} for n, one in enumerate(lists)))
    loader = Loader(lab.cdm())
    loader.load(batch.slice(0, 3), batch.slice(3, 1), batch.slice(4))
    assert [labels for (labels,) in held(lab, "labels")] == lists


def test_numbers_times_days_and_flags_arrive_as_they_were(lab: CdmLab):
    moments = [
        datetime(1, 1, 1, tzinfo=timezone.utc),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone.utc),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone.utc),
        None,
    ]
    counts = [-(2**63), 2**63 - 1, 0, None]
    days = [date(1, 1, 1), date(9999, 12, 31), date(2024, 2, 29), None]
    batch = rows(
        *(
            {"source_id": str(n), "created_at": at, "time_spent_s": count, "due_on": day}
            for n, (at, count, day) in enumerate(zip(moments, counts, days, strict=True))
        )
    )
    Loader(lab.cdm()).load(batch)
    found = held(lab, "created_at, time_spent_s, due_on")
    assert found == list(zip(moments, counts, days, strict=True))


def test_a_zero_byte_is_refused_by_column(lab: CdmLab):
    sink = lab.cdm()
    for column, value in [("summary", "a\0b"), ("labels", ["a", "\0"])]:
        with pytest.raises(SinkError, match=column) as raised:
            Loader(sink).load(rows({column: value}))
        assert raised.value.context["column"] == column
    assert held(lab) == []


def test_a_checksum_is_the_fingerprint_of_what_was_written(lab: CdmLab):
    sink, batch = lab.cdm(), rows({"source_id": "1"}, {"source_id": "2", "labels": ["a"]})
    target = SinkTarget(
        stream(), (TENANT, ITEM.model_id), ITEM.schema, WriteMode.APPEND, checksum=True
    )
    receipt = write(sink, sink.prepare(target), [batch])
    assert receipt.checksum == str(Fingerprint().add(batch))


# --- versions


def test_an_older_version_never_replaces_a_newer_one(lab: CdmLab):
    loader = Loader(lab.cdm())
    loader.load(rows({"source_version": 5, "summary": "five", "run_id": "a"}))
    loader.load(rows({"source_version": 4, "summary": "four", "run_id": "b"}))
    assert held(lab) == [("1", 5, "five", False, "a")]
    loader.load(rows({"source_version": 6, "summary": "six", "run_id": "c"}))
    assert held(lab) == [("1", 6, "six", False, "c")]


def test_the_same_version_replaces_only_what_is_different(lab: CdmLab):
    loader = Loader(lab.cdm())
    loader.load(rows({"summary": "one", "run_id": "a"}))
    before = everything(lab)
    loader.load(rows({"summary": "one", "run_id": "b"}))
    assert everything(lab) == before
    loader.load(rows({"summary": "other", "run_id": "c"}))
    assert held(lab) == [("1", 1, "other", False, "c")]


def test_a_row_without_a_version_counts_as_current(lab: CdmLab):
    loader = Loader(lab.cdm())
    loader.load(rows({"source_version": 5, "summary": "five", "run_id": "a"}))
    loader.load(rows({"source_version": None, "summary": "now", "run_id": "b"}))
    assert held(lab) == [("1", 5, "now", False, "b")]
    before = everything(lab)
    loader.load(rows({"source_version": None, "summary": "now", "run_id": "c"}))
    assert everything(lab) == before
    loader.load(rows({"source_version": 4, "summary": "four", "run_id": "d"}))
    assert held(lab) == [("1", 5, "now", False, "b")]


def test_of_several_versions_in_one_slice_the_newest_stays(lab: CdmLab):
    loader = Loader(lab.cdm())
    versions = [{"source_version": v, "summary": f"v{v}"} for v in (2, 9, 5)]
    loader.load(rows(*versions, {"source_id": "2"}))
    assert [row[:3] for row in held(lab)] == [("1", 9, "v9"), ("2", 1, None)]
    loader.load(rows(*({**one, "source_id": "2"} for one in versions)))
    assert [row[:3] for row in held(lab)] == [("1", 9, "v9"), ("2", 9, "v9")]


def test_slices_that_overlap_end_with_the_newest(lab: CdmLab):
    loader = Loader(lab.cdm())
    loader.load(
        rows({"source_version": 3, "summary": "three"}),
        rows({"source_version": 7, "summary": "seven"}),
        rows({"source_version": 5, "summary": "five"}),
    )
    assert held(lab)[0][:3] == ("1", 7, "seven")


# --- deletions


def test_a_deleted_row_keeps_what_it_held(lab: CdmLab):
    loader = Loader(lab.cdm())
    loader.load(rows({"source_version": 5, "summary": "five"}))
    loader.load(rows({"source_version": 7, "is_deleted": True, "run_id": "gone"}))
    assert held(lab) == [("1", 7, "five", True, "gone")]


def test_a_late_version_does_not_bring_a_deleted_row_back_and_a_newer_one_does(lab: CdmLab):
    loader = Loader(lab.cdm())
    loader.load(rows({"source_version": 7, "is_deleted": True}))
    loader.load(rows({"source_version": 6, "summary": "late"}))
    assert held(lab)[0][:4] == ("1", 7, None, True)
    loader.load(rows({"source_version": 8, "summary": "restored"}))
    assert held(lab)[0][:4] == ("1", 8, "restored", False)


def test_a_late_deletion_does_not_delete_what_came_back(lab: CdmLab):
    loader = Loader(lab.cdm())
    loader.load(rows({"source_version": 8, "summary": "restored"}))
    loader.load(rows({"source_version": 7, "is_deleted": True}))
    assert held(lab)[0][:4] == ("1", 8, "restored", False)


def test_a_row_and_its_deletion_in_one_slice_end_by_their_versions(lab: CdmLab):
    loader = Loader(lab.cdm())
    loader.load(
        rows(
            {"source_id": "1", "source_version": 1, "summary": "a"},
            {"source_id": "1", "source_version": 2, "is_deleted": True},
            {"source_id": "2", "source_version": 2, "is_deleted": True},
            {"source_id": "2", "source_version": 3, "summary": "b"},
        )
    )
    assert [row[:4] for row in held(lab)] == [("1", 2, "a", True), ("2", 3, "b", False)]


def test_an_overwrite_marks_what_it_did_not_bring_and_nothing_of_others(lab: CdmLab):
    loader = Loader(lab.cdm())
    other = {"source_endpoint_id": "other", "source_id": "9"}
    loader.load(rows({"source_id": "1"}, {"source_id": "2"}, other))
    loader.load(rows({"source_id": "2"}, {"source_id": "3"}), mode=WriteMode.OVERWRITE)
    deleted = held(lab, "source_id, is_deleted")
    assert deleted == [("1", True), ("2", False), ("3", False), ("9", False)]


def test_loading_the_whole_history_again_in_any_order_changes_nothing(lab: CdmLab, seed: int):
    random_ = random.Random(seed)
    history = [
        {
            "source_id": str(random_.randrange(30)),
            "source_version": version,
            "is_deleted": random_.random() < 0.2,
            "summary": f"v{version}",
        }
        for version in range(300)
    ]
    slices = [rows(*history[start : start + 20]) for start in range(0, 300, 20)]
    loader = Loader(lab.cdm())
    for one in slices:
        loader.load(one)
    newest = {row["source_id"]: row for row in history}
    found = held(lab, "source_id, source_version, is_deleted")
    assert found == sorted(
        (id_, row["source_version"], row["is_deleted"]) for id_, row in newest.items()
    )
    before = everything(lab)
    loader.load(*slices)
    for one in random_.sample(slices, len(slices)):
        loader.load(one)
    assert everything(lab) == before


# --- tables


@pytest.mark.parametrize("model_id", CDM_MODELS)
def test_every_model_can_be_provisioned_twice_and_written(lab: CdmLab, model_id: str):
    model, sink = CDM_MODELS[model_id], lab.cdm()
    table = sink.provision(model)
    assert sink.provision(model) == table
    assert (table.namespace, table.name) == ("cdm", f"cdm_{model.table_name}")
    [(key,)] = lab.query(
        "SELECT string_agg(attname, ',') FROM pg_index JOIN pg_attribute ON attrelid = indrelid "
        f"AND attnum = ANY(indkey) WHERE indisprimary AND indrelid = 'cdm.{table.name}'::regclass"
    )
    assert key == "cdm_id"
    Loader(sink, model).load(rows({}, model=model))
    assert lab.query(f"SELECT count(*) FROM cdm.{table.name}") == [(1,)]


def test_schema_and_prefix_are_the_operators_choice(lab: CdmLab):
    sink = lab.cdm(cdm_schema="Work", cdm_table_prefix="x9_")
    Loader(sink).load(rows({}))
    assert lab.query('SELECT count(*) FROM "Work".x9_work_item') == [(1,)]


def test_a_new_column_is_added_and_rows_of_before_stay(lab: CdmLab):
    older = CdmModel(ITEM.model_id, ITEM.description, ITEM.columns[:5])
    Loader(lab.cdm(), older).load(rows({"item_key": "A-1"}, model=older))
    loader = Loader(lab.cdm())
    loader.load(rows({"source_id": "2", "item_key": "A-2", "labels": ["x"]}))
    assert held(lab, "item_key, labels") == [("A-1", None), ("A-2", ["x"])]


def test_an_older_writer_leaves_columns_that_it_does_not_know(lab: CdmLab):
    Loader(lab.cdm()).load(rows({"labels": ["x"], "item_key": "A-1"}))
    older = CdmModel(ITEM.model_id, ITEM.description, ITEM.columns[:5])
    batch = rows({"source_version": 2, "item_key": "A-2"}, model=older)
    Loader(lab.cdm(), older).load(batch)
    assert held(lab, "item_key, labels") == [("A-2", ["x"])]


def test_columns_of_somebody_else_are_left_alone(lab: CdmLab):
    sink = lab.cdm()
    sink.provision(ITEM)
    lab.query("ALTER TABLE cdm.cdm_work_item ADD COLUMN note text")
    Loader(sink).load(rows({"source_id": "1"}))
    lab.query("UPDATE cdm.cdm_work_item SET note = 'mine'")
    Loader(lab.cdm()).load(rows({"source_id": "1", "source_version": 2, "summary": "new"}))
    assert held(lab, "summary, note") == [("new", "mine")]


def test_a_column_of_another_type_is_refused_by_name(lab: CdmLab):
    sink = lab.cdm()
    sink.provision(ITEM)
    lab.query("ALTER TABLE cdm.cdm_work_item ALTER COLUMN summary TYPE varchar(10)")
    with pytest.raises(SchemaMismatchError, match=r"summary.*character varying\(10\)"):
        sink.provision(ITEM)


def test_a_type_without_a_column_is_refused_by_name(lab: CdmLab):
    model = CdmModel("cdm.work.odd", "Odd.", (CdmColumn("raw", pa.binary(), "Bytes"),))
    with pytest.raises(SchemaMismatchError, match="raw"):
        lab.cdm().provision(model)


def test_a_dropped_table_is_loaded_anew(lab: CdmLab):
    loader = Loader(lab.cdm())
    loader.runs = itertools.count(1)
    loader.load(rows({"source_id": "1"}))
    lab.query("DROP TABLE cdm.cdm_work_item")
    loader.runs = itertools.count(1)
    loader.load(rows({"source_id": "2"}))
    assert held(lab, "source_id") == [("2",)]


def test_a_role_without_ddl_can_load_what_is_provisioned(lab: CdmLab):
    lab.cdm().provision(ITEM)
    role = f"loader_{lab.database}"
    lab.query(
        f"CREATE ROLE {role} LOGIN; GRANT ALL ON SCHEMA cdm TO {role};"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA cdm TO {role}"
    )
    url = lab.url.replace("postgres@", f"{role}@")
    sink = CdmPostgresSink.from_settings(Settings(cdm_database_url=url), TENANT)
    Loader(sink).load(rows({}))
    assert held(lab, "source_id") == [("1",)]
    lab.query(f"REVOKE CREATE ON SCHEMA cdm FROM {role}")
    with pytest.raises(SinkError, match="permission denied"):
        Loader(sink).load(rows({}))


@pytest.mark.parametrize(
    "path", [(TENANT,), (TENANT, "work.item"), (TENANT, "cdm.a b"), ("a", "b", "c")]
)
def test_a_path_that_is_no_model_is_refused(lab: CdmLab, path: tuple[str, ...]):
    with pytest.raises(ValidationError):
        lab.cdm().prepare(SinkTarget(stream(), path, ITEM.schema, WriteMode.APPEND))


# --- the connection


def spec(config: dict[str, object], secrets: dict[str, str] | None = None) -> EndpointSpec:
    return EndpointSpec(TENANT, EndpointId("s"), "sink", "cdm.jdbc", config, secrets or {})


@pytest.mark.parametrize(
    "scheme", ["postgresql", "postgres", "jdbc:postgresql", "postgresql+psycopg2"]
)
def test_every_way_to_write_the_address_leads_there(lab: CdmLab, scheme: str):
    url = lab.url.replace("postgresql", scheme) + "?sslmode=disable"
    table = CdmPostgresSink(spec({"connectionUrl": url, "schema": "s"})).provision(ITEM)
    assert table.namespace == "s"


def test_the_whole_address_may_be_a_secret(lab: CdmLab):
    sink = CdmPostgresSink(spec({}, {"connectionUrl": lab.url.replace("@", ":s3cret@")}))
    assert sink.provision(ITEM).name == "cdm_work_item"


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u@h/d",
        "postgresql:///d",
        "postgresql://u@h",
        "postgresql://h/d",
        "postgresql://u:s3cret@h:x/d",
        "postgresql://u:s3cret@h/d?service=other",
        "postgresql://u:s3cret@h/d?hostaddr=169.254.169.254",
        "postgresql://u:s3cret@h/d?passfile=/etc/passwd",
    ],
)
def test_an_address_that_is_none_is_refused_without_being_repeated(url: str):
    with pytest.raises(ValidationError) as raised:
        CdmPostgresSink(spec({}, {"connectionUrl": url}))
    assert "s3cret" not in str(raised.value)
    with pytest.raises(ConfigurationError) as by_setting:
        CdmPostgresSink.from_settings(Settings(cdm_database_url=url), TENANT)
    assert "s3cret" not in str(by_setting.value)


def test_a_missing_address_says_what_to_set():
    with pytest.raises(ConfigurationError, match="CDM_WORK_DATABASE_URL"):
        CdmPostgresSink.from_settings(Settings(), TENANT)
    with pytest.raises(ValidationError, match="connectionUrl"):
        CdmPostgresSink(spec({}))


@pytest.mark.parametrize("name", ["CDM_WORK_DATABASE_URL", "METADATA_DATABASE_URL"])
def test_the_variables_of_the_specification_are_honoured(
    lab: CdmLab, monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.setenv(name, lab.url)
    monkeypatch.setenv("CDM_WORK_DATABASE_SCHEMA", "explorer")
    monkeypatch.setenv("CDM_WORK_DATABASE_TABLE_PREFIX", "w_")
    table = CdmPostgresSink.from_settings(Settings(), TENANT).provision(ITEM)
    assert (table.namespace, table.name) == ("explorer", "w_work_item")


def test_a_server_that_is_not_there_is_unavailable_and_a_database_is_not(lab: CdmLab):
    closed = lab.url.replace(f":{lab.port}/", ":1/")
    with pytest.raises(SinkUnavailableError, match="connect to"):
        CdmPostgresSink.from_settings(Settings(cdm_database_url=closed), TENANT).provision(ITEM)
    absent = CdmPostgresSink.from_settings(Settings(cdm_database_url=lab.url + "x"), TENANT)
    with pytest.raises(SinkError, match="does not exist") as raised:
        absent.provision(ITEM)
    assert not isinstance(raised.value, SinkUnavailableError)
