"""Paging, cursors, authentication and values of REST and GraphQL sources, over the example API."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from fastapi import Response

from matih_ray.errors import (
    NullCursorError,
    PlanError,
    SourceChangedError,
    SourceError,
    SourceRejectedError,
    UnrepresentableValueError,
    ValidationError,
)
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.policy import IngestionPolicy, LateCommits, NullCursor, RunMode
from matih_ray.sources.read_ahead import read_ahead
from matih_ray.testing.devstack.http_apis import MAX_PAGE, HttpApis
from tests.integration.http_lab import (
    close_sources,
    declared,
    everything,
    graphql,
    plan,
    rest,
    table,
)

INCREMENTAL = IngestionPolicy(run_mode=RunMode.INCREMENTAL)
STYLES: dict[str, dict[str, Any]] = {
    "page": {"sizeParam": "limit"},
    "offset": {},
    "cursor": {"param": "after", "nextPath": "meta.next", "sizeParam": "limit"},
    "link": {"sizeParam": "limit"},
    "nextUrl": {"nextPath": "links.next", "sizeParam": "limit"},
}


@pytest.fixture
def api() -> Iterator[HttpApis]:
    with HttpApis() as api:
        yield api
        close_sources()


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"id": n, "name": f"name {n}"} for n in range(1, count + 1)]


def paged(style: str, size: int = 7, **more: Any) -> dict[str, Any]:
    stream = {"name": "items", "path": f"/pages/{style}", **more}
    stream["pagination"] = {"style": style, "size": size, **STYLES[style]}
    return stream if style == "link" else {"recordPath": "data", **stream}


# --- paging ----------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("count", [0, 1, 7, 20])
def test_every_style_of_paging_reads_everything_once(api: HttpApis, style: str, count: int):
    api.records = numbered(count)
    source = rest(api.url, streams=[paged(style, schema=declared(id="integer", name="text"))])
    assert table(source)["id"].to_pylist() == list(range(1, count + 1))


@pytest.mark.parametrize("style", ["offset", "cursor", "link", "nextUrl"])
def test_a_server_that_gives_smaller_pages_than_asked_for_loses_nothing(api: HttpApis, style: str):
    api.records = numbered(MAX_PAGE * 2 + 1)
    source = rest(api.url, streams=[paged(style, size=5000)])
    assert table(source).num_rows == MAX_PAGE * 2 + 1


def test_relay_connections_are_read_by_edges_and_by_nodes(api: HttpApis):
    api.records = numbered(25)
    for part in ("edges { node { id name detail } }", "nodes { id name detail }"):
        query = (
            "query ($first: Int!, $after: String) { items(first: $first, after: $after) "
            f"{{ {part} pageInfo {{ hasNextPage endCursor }} }} }}"
        )
        stream = {"name": "items", "query": query, "recordPath": "items", "pageSize": 10}
        source = graphql(f"{api.url}/graphql", streams=[stream])
        assert table(source)["id"].to_pylist() == list(range(1, 26))


def test_a_relay_query_without_page_info_is_an_error_and_not_one_page(api: HttpApis):
    api.records = numbered(25)
    query = "query ($first: Int!) { items(first: $first) { nodes { id } } }"
    stream = {"name": "items", "query": query, "recordPath": "items", "pageSize": 10}
    with pytest.raises(SourceChangedError, match=r"pageInfo\.hasNextPage"):
        table(graphql(f"{api.url}/graphql", streams=[stream]))


def test_paging_that_goes_in_circles_is_an_error(api: HttpApis):
    stream = everything(recordPath="data", pagination={"style": "nextUrl", "nextPath": "next"})
    again = json.dumps({"data": [{"id": 1}], "next": "/everything?page=2"})
    api.next_answers.extend(Response(again) for _ in range(4))
    with pytest.raises(SourceRejectedError, match="leads back"):
        table(rest(api.url, streams=[{**stream, "schema": declared(id="integer")}]))


def test_more_pages_than_the_limit_are_an_error(api: HttpApis):
    api.records = numbered(30)
    source = rest(api.url, streams=[paged("offset")], limits={"maxPages": 3})
    with pytest.raises(SourceError, match="maxPages"):
        table(source)


def test_a_page_of_more_records_than_the_limit_is_an_error(api: HttpApis):
    api.records = numbered(30)
    source = rest(api.url, streams=[everything()], limits={"maxPageRecords": 29})
    with pytest.raises(SourceError, match="maxPageRecords"):
        source.describe_unit("items")


def test_records_that_vanish_between_plan_and_read_make_closed_slices_fail(api: HttpApis):
    api.records = numbered(40)
    stream = paged("offset", size=10)
    stream["pagination"]["totalPath"] = "meta.total"
    source = rest(api.url, streams=[stream])
    policy = IngestionPolicy(target_slice_rows=20)
    made = plan(source, policy)
    assert len(made.slices) == 2
    unit = source.describe_unit("items")
    api.records = numbered(15)
    with pytest.raises(SourceChangedError, match="fewer records"):
        list(source.read(unit, made.slices[0], policy))


def test_a_plan_of_following_pages_says_that_it_cannot_be_cut(api: HttpApis):
    api.records = numbered(3)
    made = plan(rest(api.url, streams=[paged("cursor")]))
    assert len(made.slices) == 1
    assert "one slice" in made.notes[0]


# --- cursors ---------------------------------------------------------------------------------


def changed(count: int, at: dt.datetime) -> list[dict[str, Any]]:
    step = dt.timedelta(minutes=1)
    return [
        {"id": n, "changed": (at + n * step).strftime("%Y-%m-%dT%H:%M:%SZ")} for n in range(count)
    ]


def by_time(**more: Any) -> dict[str, Any]:
    cursor = {"field": "changed", "param": "since", "upperParam": "until", **more}
    return paged("offset", size=50, primaryKey=["id"], cursor=cursor)


def after(made: Any) -> Checkpoint:
    return Checkpoint(cursor=made.slices[-1].cursor_after, cursor_column=made.cursor_column)


@pytest.mark.parametrize(
    "more", [{}, {"upperParam": None}, {"windowS": 30 * 86_400, "start": "2024-01-01"}]
)
def test_runs_by_time_join_without_loss_or_double(api: HttpApis, more: dict[str, Any]):
    source = rest(api.url, streams=[by_time(**more)])
    api.records = changed(100, dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc))
    first = plan(source, INCREMENTAL)
    assert table(source, INCREMENTAL).num_rows == 100
    if "windowS" in more:
        assert len(first.slices) > 20
    now = dt.datetime.now(dt.timezone.utc)
    api.records += [
        {"id": 100, "changed": (now + dt.timedelta(hours=1)).isoformat()},  # a clock that is fast
        {"id": 101, "changed": "2024-01-01T00:00:00Z"},  # late
    ]
    assert table(source, INCREMENTAL, after(first)).num_rows == 0


def test_a_record_on_the_bound_belongs_to_one_run_only(api: HttpApis):
    source = rest(api.url, streams=[by_time()])
    api.records = changed(10, dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc))
    for position in range(10):
        bound = Checkpoint(cursor=api.records[position]["changed"], cursor_column="changed")
        ids = table(source, INCREMENTAL, bound)["id"].to_pylist()
        assert ids == list(range(position + 1, 10))


def test_the_upper_bound_is_the_servers_own_time_less_the_lookback(api: HttpApis):
    source = rest(api.url, streams=[by_time()])
    policy = INCREMENTAL.model_copy(update={"lookback": 3600.0})
    before = dt.datetime.now(dt.timezone.utc) - dt.timedelta(seconds=3602)
    upper = dt.datetime.fromisoformat(str(plan(source, policy).statistics["upper"])[:-1] + "+00:00")
    assert before <= upper + dt.timedelta(seconds=1)
    assert upper <= dt.datetime.now(dt.timezone.utc) - dt.timedelta(seconds=3601)


def test_a_lookback_reads_again_and_says_how_to_drop_what_is_there(api: HttpApis):
    source = rest(api.url, streams=[by_time()])
    api.records = changed(10, dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc))
    policy = INCREMENTAL.model_copy(
        update={"late_commits": LateCommits.LOOKBACK, "lookback": 180.0}
    )
    bound = Checkpoint(cursor="2024-01-01T00:05:00Z", cursor_column="changed")
    again, new = plan(source, policy, bound).slices
    assert (again.dedupe_on, new.dedupe_on) == (("id", "changed"), ())
    unit = source.describe_unit("items")
    (batch,) = source.read(unit, again, policy)
    assert batch["id"].to_pylist() == [3, 4, 5]


def test_an_integer_cursor_needs_a_way_to_its_greatest_value(api: HttpApis):
    cursor = {"field": "id", "type": "integer", "param": "since"}
    api.records = numbered(5)
    with pytest.raises(PlanError, match=r"cursor\.probe"):
        plan(rest(api.url, streams=[paged("offset", cursor=cursor)]), INCREMENTAL)
    probed = {**cursor, "probe": {"sort": "newest"}}
    source = rest(api.url, streams=[paged("offset", cursor=probed)])
    first = plan(source, INCREMENTAL)
    assert first.slices[-1].cursor_after == 5
    api.records = numbered(8)
    assert table(source, INCREMENTAL, after(first))["id"].to_pylist() == [6, 7, 8]


def test_records_without_a_cursor_come_with_the_first_run_and_are_refused_later(api: HttpApis):
    stream = everything(cursor={"field": "changed", "param": "since"})
    source = rest(api.url, streams=[stream])
    api.records = [{"id": 1, "changed": "2024-01-01T00:00:00Z"}, {"id": 2, "changed": None}]
    first = plan(source, INCREMENTAL)
    assert table(source, INCREMENTAL)["id"].to_pylist() == [1, 2]
    lower = Checkpoint(cursor="2024-01-02T00:00:00Z", cursor_column=first.cursor_column)
    with pytest.raises(NullCursorError, match="nullCursor=ignore"):
        table(source, INCREMENTAL, lower)
    ignoring = INCREMENTAL.model_copy(update={"null_cursor": NullCursor.IGNORE})
    assert table(source, ignoring, lower).num_rows == 0
    assert table(source, ignoring)["id"].to_pylist() == [1]


# --- values ----------------------------------------------------------------------------------


def given(api: HttpApis, text: str, **stream: Any) -> Any:
    """A source whose one answer is this text, for describing and for reading."""
    api.next_answers.extend(Response(text) for _ in range(3))
    return rest(api.url, streams=[everything(**stream)])


def test_values_arrive_exactly_or_as_declared(api: HttpApis):
    text = (
        '[{"i": 9223372036854775807, "big": 9223372036854775808, "n": 0.10, "m": 1, "b": true,'
        ' "o": {"x": [1.10, null, "\\u00e9"]}, "s": "2024-01-01", "z": null},'
        ' {"i": -1, "big": 1, "n": 1e400, "m": 2.5, "b": false, "o": [], "s": "", "z": null}]'
    )
    read = table(given(api, text))
    assert read.drop_columns(["_extra"]).to_pylist() == [
        {"i": 2**63 - 1, "big": str(2**63), "n": "0.10", "m": "1", "b": True,
         "o": '{"x":[1.10,null,"é"]}', "s": "2024-01-01", "z": "null"},
        {"i": -1, "big": "1", "n": "1E+400", "m": "2.5", "b": False, "o": "[]", "s": "",
         "z": "null"},
    ]  # fmt: skip


def test_a_declared_schema_needs_no_sample_and_decides(api: HttpApis):
    schema = {
        "price": "decimal(10,2)", "ratio": "double", "day": "date", "at": "timestamp",
        "local": "datetime", "detail": "json",
    }  # fmt: skip
    text = (
        '[{"price": 1.5, "ratio": 0.1, "day": "2024-02-29", "at": "2024-01-01T01:00:00.25+01:00",'
        ' "local": "2024-01-01 12:00:00", "detail": 7, "new": {"a": 1}}]'
    )
    source = rest(api.url, streams=[everything(schema=declared(**schema))])
    unit = source.describe_unit("items")
    assert api.asked == []
    api.next_answers.append(Response(text))
    (batch,) = source.read(unit, plan(source).slices[0], IngestionPolicy())
    assert batch.to_pylist() == [
        {
            "price": Decimal("1.50"),
            "ratio": 0.1,
            "day": dt.date(2024, 2, 29),
            "at": dt.datetime(2024, 1, 1, 0, 0, 0, 250_000, tzinfo=dt.timezone.utc),
            "local": dt.datetime(2024, 1, 1, 12),  # noqa: DTZ001 the column has no zone
            "detail": "7",
            "_extra": '{"new":{"a":1}}',
        }
    ]


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("integer", "9223372036854775808"),
        ("integer", "1.0"),
        ("integer", "true"),
        ("decimal(5,2)", "1.005"),
        ("decimal(5,2)", "1000"),
        ("double", "0.1000000000000000055511151231257827"),
        ("double", "1e400"),
        ("text", "1"),
        ("text", '"\\ud800"'),
        ("date", '"2024-02-30"'),
        ("timestamp", '"2024-01-01T00:00:00"'),
        ("timestamp", '"2024-01-01T00:00:00.0000001Z"'),
        ("datetime", '"2024-01-01T00:00:00Z"'),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(api: HttpApis, type_: str, value: str):
    source = given(api, f'[{{"field": {value}}}]', schema=declared(field=type_))
    with pytest.raises(UnrepresentableValueError, match=r"'field' of items.*json"):
        table(source)


def test_a_stream_without_records_still_has_its_key(api: HttpApis):
    source = rest(api.url, streams=[everything(primaryKey=["id"])])
    assert [column.name for column in source.describe_unit("items").columns] == ["id", "_extra"]
    assert table(source).num_rows == 0


def test_new_fields_are_kept_or_refused_as_configured(api: HttpApis):
    schema = declared(id="integer")
    text = '[{"id": 1, "surprise": [1]}]'
    kept = table(given(api, text, schema=schema))
    assert kept["_extra"].to_pylist() == ['{"surprise":[1]}']
    api.next_answers.clear()
    strict = given(api, text, schema=schema, unknownFields="refuse")
    with pytest.raises(SourceChangedError, match="surprise"):
        table(strict)


@pytest.mark.parametrize(
    "text",
    ["", "{", '[{"id": 1}', "[NaN]", '[{"a": 1, "a": 2}]', "<html>", "[" * 200_000],
)
def test_what_is_not_json_is_an_error(api: HttpApis, text: str):
    with pytest.raises(SourceError, match=r"is not JSON|nested too deeply"):
        table(given(api, text))


@pytest.mark.parametrize("text", ['{"data": 1}', '{"other": []}', "null", '{"data": [1]}'])
def test_an_answer_without_records_is_not_an_empty_stream(api: HttpApis, text: str):
    with pytest.raises(SourceChangedError, match="recordPath"):
        table(given(api, text, recordPath="data"))


# --- authentication --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("auth", "secrets", "header", "value"),
    [
        ({"kind": "bearer"}, {"token": "s3"}, "Authorization", "Bearer s3"),
        (
            {"kind": "basic", "user": "ann"},
            {"password": "pässword"},
            "Authorization",
            "Basic " + base64.b64encode("ann:pässword".encode()).decode(),
        ),
        ({"kind": "apiKey", "name": "X-Mine"}, {"apiKey": "s3"}, "X-Mine", "s3"),
    ],
)
def test_credentials_are_sent_as_configured(
    api: HttpApis, auth: dict[str, str], secrets: dict[str, str], header: str, value: str
):
    rest(api.url, streams=[everything()], auth=auth, secrets=secrets).test()
    assert api.asked[-1].headers[header] == value


def test_an_api_key_in_the_query_is_sent_and_shown_nowhere(
    api: HttpApis, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("DEBUG")
    auth = {"kind": "apiKey", "location": "query", "name": "key"}
    source = rest(api.url, streams=[everything()], auth=auth, secrets={"apiKey": "hush-hush"})
    source.test()
    assert api.asked[-1].query_params["key"] == "hush-hush"
    api.accepts = lambda _request: 403
    with pytest.raises(SourceError) as caught:
        source.test()
    shown = [str(caught.value), repr(caught.value.context), repr(source), caplog.text]
    assert "HTTP Request" in caplog.text
    assert not [text for text in shown if "hush-hush" in text]


def with_tokens(api: HttpApis, **auth: str):
    """A source with client credentials; the API takes the last token that was granted, no other."""
    api.accepts = lambda request: (
        200 if request.headers.get("Authorization") == f"Bearer granted-{len(api.granted)}" else 401
    )
    return rest(
        api.url, streams=[everything()], auth={"kind": "oauth2", "clientId": "me", **auth},
        authUrl=f"{api.url}/grant", secrets={"clientSecret": "s3"},
    )  # fmt: skip


def test_oauth2_tokens_are_granted_once_and_renewed_when_they_end(api: HttpApis):
    source = with_tokens(api, scope="read")
    table(source)
    basic = base64.b64encode(b"me:s3").decode()
    assert api.granted == [f"Basic {basic} grant_type=client_credentials&scope=read"]
    api.granted.append("another client's")  # ours is withdrawn before its time
    table(source)
    assert len(api.granted) == 3
    api.token_lifetime_s = 1e-9
    source.close()
    source.test()
    source.describe_unit("items")
    assert len(api.granted) == 5


def test_several_calls_at_a_time_renew_a_withdrawn_token_once(api: HttpApis):
    source = with_tokens(api)
    source.test()
    for withdrawn in range(1, 6):
        api.granted.append("another client's")
        list(read_ahead(lambda _: source.describe_unit("items"), range(8), 4))
        assert len(api.granted) == 1 + 2 * withdrawn


def test_a_missing_secret_is_told_before_anything_is_sent(api: HttpApis):
    with pytest.raises(ValidationError, match="token"):
        rest(api.url, streams=[everything()], auth={"kind": "bearer"})
    assert api.asked == []


def test_a_header_that_holds_a_credential_is_refused(api: HttpApis):
    for name in ("Authorization", "X-Api-Key", "Cookie"):
        with pytest.raises(ValidationError, match="headers"):
            rest(api.url, streams=[everything()], headers={name: "hush-hush"})
