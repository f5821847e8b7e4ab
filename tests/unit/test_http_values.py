"""Times, cursor bounds, Link headers and configurations of REST and GraphQL sources."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matih_ray.control.connector_types import checked_config, connector_type
from matih_ray.errors import PlanError, UnrepresentableValueError, ValidationError
from matih_ray.registry import load_registry
from matih_ray.sources.http.config import Cursor, GraphqlConfig, RestConfig
from matih_ray.sources.http.json_values import micros
from matih_ray.sources.http.pagination import next_link
from matih_ray.sources.http.positions import SECOND, bound_params, position_of, restored, stored

DAY = 86_400 * SECOND


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01", (0, False, True)),
        ("1970-01-01T00:00:01Z", (SECOND, True, True)),
        ("1970-01-01 01:00:00.5+01:00", (500_000, True, True)),
        ("1969-12-31T23:59:59.999999-0000", (-1, True, True)),
        ("1970-01-01T00:00:00.0000019", (1, False, False)),
        ("1970-01-01T00:00:00.0000010Z", (1, True, True)),
    ],
)
def test_times_are_read_to_the_microsecond(text: str, expected: tuple[int, bool, bool]):
    assert micros(text) == expected


@pytest.mark.parametrize("text", ["", "now", "2024-13-01", "2024-01-01T25:00:00Z", "20240101"])
def test_what_is_no_time_is_refused(text: str):
    with pytest.raises(ValueError):  # noqa: PT011 each parser has words of its own
        micros(text)


@given(
    st.integers(0, 10**7 * DAY // 86_400),
    st.integers(0, 3 * DAY),
    st.sampled_from(["iso8601", "epochS", "epochMs", "date"]),
)
def test_bounds_ask_for_at_least_what_a_slice_holds(lower: int, width: int, format_: Any):
    """The API may include its bounds or not, and cut times to its own granularity."""
    cursor = Cursor(field="at", param="from", upper_param="to", format=format_)
    upper = lower + width
    params = bound_params(cursor, lower, upper)
    asked_from = position_of(cursor, params["from"])
    asked_to = position_of(cursor, params["to"])
    assert asked_from is not None
    assert asked_to is not None
    assert asked_from <= lower
    assert asked_to > upper


@given(st.integers(-62_135_596_800 * SECOND, 253_402_300_799 * SECOND))
def test_stored_times_read_back(position: int):
    cursor = Cursor(field="at", param="from")
    assert restored(cursor, stored(cursor, position)) == position


def test_a_cursor_of_another_kind_is_refused():
    by_time, by_number = (
        Cursor(field="at", param="from"),
        Cursor(field="id", param="from", type="integer"),
    )
    with pytest.raises(PlanError, match="reset the checkpoint"):
        restored(by_time, 7)
    with pytest.raises(PlanError, match="reset the checkpoint"):
        restored(by_number, "7")
    with pytest.raises(UnrepresentableValueError):
        position_of(by_number, Decimal("1.5"))
    with pytest.raises(UnrepresentableValueError):
        position_of(by_number, True)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        (["<https://x/2>; rel=next"], "https://x/2"),
        (['<https://x/1>; rel="prev", <https://x/3?a=1,2>; rel="next"'], "https://x/3?a=1,2"),
        (['<https://x/1>; rel="prev"', '<https://x/3>; REL="Next last"'], "https://x/3"),
        (['<https://x/1>; title="; rel=next"; rel=prev'], None),
        (['<https://x/1>; rel="nextish"'], None),
    ],
)
def test_link_headers_are_read_as_rfc_8288_has_them(headers: list[str], expected: str | None):
    assert next_link(headers) == expected


# --- configuration ---------------------------------------------------------------------------

REST = {"baseUrl": "https://api.example.com/v1", "streams": [{"name": "a", "path": "a"}]}
GRAPHQL = {
    "url": "https://api.example.com/graphql",
    "streams": [{"name": "a", "query": "{ a }", "recordPath": "a"}],
}


@pytest.mark.parametrize(
    "change",
    [
        {"baseUrl": "ftp://api.example.com"},
        {"baseUrl": "https://user:pass@api.example.com"},
        {"baseUrl": "https://api.example.com?key=1"},
        {"baseUrl": "https://api.example.com:99999"},
        {"streams": []},
        {"streams": [{"name": "a", "path": "a"}, {"name": "a", "path": "b"}]},
        {"streams": [{"name": "a", "path": "a?token=1"}]},
        {"streams": [{"name": "a", "path": "a", "schema": [{"name": "x", "type": "float"}]}]},
        {"streams": [{"name": "a", "path": "a", "schema": [], "primaryKey": ["id"]}]},
        {"auth": {"kind": "oauth2", "clientId": "me"}},
        {"auth": {"kind": "basic"}},
        {"headers": {"Cookie": "a=b"}},
        {"surprise": 1},
    ],
)
def test_a_wrong_configuration_is_refused(change: dict[str, Any]):
    with pytest.raises(ValidationError):
        RestConfig.from_json({**REST, **change})


def test_a_configuration_reads_back_as_it_was_written():
    for model, config in ((RestConfig, REST), (GraphqlConfig, GRAPHQL)):
        read = model.from_json(config)
        assert model.from_json(read.to_dict()) == read


def test_a_full_configuration_holds_nothing_that_looks_like_a_secret():
    class OnlyRegistry:
        registry = load_registry()

    stream = {
        "name": "a", "path": "a", "primaryKey": ["key"],
        "schema": [{"name": "key", "type": "text"}, {"name": "at", "type": "timestamp"}],
        "cursor": {"field": "at", "param": "since", "probe": {"sort": "-at"}},
        "pagination": {"style": "cursor", "nextPath": "meta.next_token"},
    }  # fmt: skip
    config = {
        **REST,
        "authUrl": "https://login.example.com/oauth/token",
        "auth": {"kind": "oauth2", "clientId": "me", "scope": "read"},
        "streams": [stream],
    }
    type_ = connector_type(OnlyRegistry, "REST")  # type: ignore[arg-type]  # all that it looks at
    stored_config = checked_config(type_, config)
    assert checked_config(type_, stored_config) == stored_config
