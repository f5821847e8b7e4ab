"""Jira's pieces without a server: times in JQL, packed ids, rows, cursors."""

from __future__ import annotations

import datetime as dt
import random
from decimal import Decimal
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from matih_ray.errors import PlanError, UnrepresentableValueError
from matih_ray.model.plan import IngestionSlice, cursor_through
from matih_ray.sources.atlassian.documents import plain_text
from matih_ray.sources.jira import jql, rows
from matih_ray.sources.jira.api import SiteFacts
from matih_ray.sources.jira.known_ids import packed, unpacked
from matih_ray.sources.jira.schemas import CDM_MODELS, SCHEMAS

ZONES = ["UTC", "Pacific/Chatham", "America/St_Johns", "Europe/Berlin", "Africa/Casablanca"]


def meant_by(text: str, zone: ZoneInfo, fold: int) -> int:
    """What JQL may mean by a time, in microseconds."""
    local = dt.datetime.strptime(text, '"%Y/%m/%d %H:%M"').replace(tzinfo=zone, fold=fold)
    return int(local.timestamp()) * 1_000_000


@pytest.mark.parametrize("name", ZONES)
@pytest.mark.parametrize("fold", [0, 1])
def test_bounds_in_jql_leave_nothing_out_whatever_the_zone(name: str, fold: int) -> None:
    zone, random_ = ZoneInfo(name), random.Random(name)
    for _ in range(500):
        position = random_.randrange(1_750_000_000, 1_810_000_000) * 1_000_000 + 123_456
        assert meant_by(jql.at_or_before(position, zone), zone, fold) <= position
        assert meant_by(jql.after(position, zone), zone, fold) > position


@pytest.mark.parametrize("fold", [0, 1])
def test_the_hour_that_is_there_twice_is_stepped_over(fold: int) -> None:
    zone = ZoneInfo("Europe/Berlin")
    for minute in range(-200, 200):
        position = (1_792_890_000 + 60 * minute) * 1_000_000
        assert meant_by(jql.at_or_before(position, zone), zone, fold) <= position
        assert meant_by(jql.after(position, zone), zone, fold) > position


def test_a_zone_that_is_unknown_here_widens_bounds_by_a_day() -> None:
    assert jql.zone_of("Mars/Olympus") is None
    assert jql.zone_of(None) is None
    assert jql.at_or_before(1_795_176_000_000_000, None) == '"2026/11/19 12:00"'
    assert jql.after(1_795_176_000_000_000, None) == '"2026/11/21 12:01"'


@pytest.mark.parametrize("text", ['a"b', "a\\", '\\"', "Zoë", "x y"])
def test_texts_in_jql_are_quoted(text: str) -> None:
    quoted = jql.text(text)
    inside = quoted[1:-1].replace("\\\\", "\0").replace('\\"', "\1")
    assert '"' not in inside
    assert "\\" not in inside
    assert inside.replace("\0", "\\").replace("\1", '"') == text


@pytest.mark.parametrize("seed", range(5))
def test_ids_are_packed_and_come_back(seed: int) -> None:
    ids = set(random.Random(seed).sample(range(10**9), 1000)) if seed else set()
    assert unpacked(packed(ids)) == ids


def test_packed_ids_are_small() -> None:
    random_ = random.Random(1)
    ids = [id_ for id_ in range(10_000, 310_000) if random_.random() < 1 / 3]
    assert len(packed(ids)) < 120_000


@pytest.mark.parametrize("text", ["?", "AAAA", "eJwD"])
def test_damaged_ids_are_refused(text: str) -> None:
    with pytest.raises(PlanError, match="reset"):
        unpacked(text)


def patch(sequence: int, part: str, **place: object) -> IngestionSlice:
    return IngestionSlice(
        key=f"{sequence}", sequence=sequence, part=part, cursor_patch={"projects": {part: place}}
    )


def test_a_part_that_could_not_be_read_keeps_its_place_and_others_move() -> None:
    before = {"projects": {"A": {"at": 1, "ids": "x"}, "B": {"at": 1}}}
    slices = [patch(0, "A", at=2), patch(1, "B", at=2), patch(2, "A", at=3), patch(3, "B", at=3)]
    moved = cursor_through(before, slices)
    assert moved == {"projects": {"A": {"at": 3, "ids": "x"}, "B": {"at": 3}}}
    assert cursor_through(moved, slices) == moved
    stayed = cursor_through(before, slices, unread={0})
    assert stayed == {"projects": {"A": {"at": 1, "ids": "x"}, "B": {"at": 3}}}
    assert cursor_through(before, [patch(0, "A", at=None)]) == {
        "projects": {"A": {"ids": "x"}, "B": {"at": 1}}
    }


def test_raw_keeps_numbers_and_text_as_they_were_sent() -> None:
    found = {"id": "1", "displayName": "Zoë \ud800", "n": Decimal("1.10"), "accountId": "a"}
    given = [rows.user(found, 5), rows.user({"accountId": "ü"}, 5), rows.deleted("b", 5)]
    (batch,) = rows.batches(given, pa.schema({"id": pa.string(), "raw": pa.string()}))
    assert batch.column("raw").to_pylist() == [
        '{"id":"1","displayName":"Zo\\u00eb \\ud800","n":1.10,"accountId":"a"}',
        '{"accountId":"ü"}',
        None,
    ]


class Asked(dict[str, object]):
    """Fields that remember which were asked for."""

    names: set[str]

    def get(self, name: str, default: object = None) -> object:
        self.names.add(name)
        return super().get(name, default)


def test_the_fields_that_are_asked_for_are_those_that_a_row_is_made_of() -> None:
    fields = Asked(updated="2026-11-20T12:00:00.000+0000")
    fields.names = set()
    rows.issue({"id": "1", "fields": fields}, SiteFacts(browse_url="", sprint_field="sprints"))
    assert fields.names == {*rows.ISSUE_FIELDS, "sprints"}


def test_a_value_that_does_not_fit_names_its_column() -> None:
    found = {"accountId": "a", "active": "yes"}
    with pytest.raises(UnrepresentableValueError, match="is_active"):
        list(rows.batches([rows.user(found, 5)], SCHEMAS["jira.users"]))


def test_deletions_fit_every_schema() -> None:
    for schema in SCHEMAS.values():
        (batch,) = rows.batches([rows.deleted("1", 5)], schema)
        assert batch.schema.equals(schema)
        assert [c.null_count for c in batch.columns] == [0, 0, 0] + [1] * (len(schema) - 3)


def test_every_unit_that_has_a_model_exists() -> None:
    assert set(CDM_MODELS) <= set(SCHEMAS)
    assert all(isinstance(schema, pa.Schema) for schema in SCHEMAS.values())


def test_rich_text_reads_as_text() -> None:
    text = {"type": "text", "text": "b"}
    deep: dict[str, object] = text
    for _ in range(500):
        deep = {"type": "paragraph", "content": [deep]}
    mention = {"type": "mention", "attrs": {"id": "1", "text": "@Ann"}}
    paragraph = {"type": "paragraph", "content": [mention, {"type": "text", "text": " hello"}]}
    assert plain_text({"type": "doc", "content": [paragraph, deep, paragraph]}) == (
        "@Ann hello\n@Ann hello"
    )
    assert plain_text("as it is") == "as it is"
    assert plain_text(None) is None
