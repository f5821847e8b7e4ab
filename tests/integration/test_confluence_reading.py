"""What mirrors of a site hold after edits, moves, deletions, and while pages are edited."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Iterator

import pytest

from matih_ray.testing.devstack.confluence_site import ConfluenceSite
from tests.integration.confluence_lab import Mirror, link, site_of_two_spaces


@pytest.fixture
def site() -> Iterator[ConfluenceSite]:
    with site_of_two_spaces() as site:
        yield site


@pytest.fixture
def mirror(site: ConfluenceSite) -> Iterator[Mirror]:
    mirror = Mirror(site)
    yield mirror
    mirror.source.close()


def test_a_first_run_reads_all_pages(site, mirror):
    mirror.run()
    assert mirror.pages() == site.truth()
    assert mirror.plan().slices == ()


def test_values_arrive_as_they_were_sent(site, mirror):
    site.now = dt.datetime(2026, 4, 30, 23, 59, 59, 987000, tzinfo=dt.timezone.utc)
    site.put("7", "ñ 𝄞 title", "<p>a &amp; b</p>", parent="1000")
    mirror.run()
    row = mirror.rows["7"]
    assert (row["title"], row["body"], row["parent_id"]) == (
        "ñ 𝄞 title",
        "<p>a &amp; b</p>",
        "1000",
    )
    assert (row["space_key"], row["status"], row["version"]) == ("SHOP", "current", 1)
    assert row["updated"] == site.now
    assert row["_source_version"] == int(site.now.timestamp() * 1000)
    assert json.loads(row["raw"])["_links"]["tinyui"] == "/x/AbC"


def test_a_space_of_many_pages_is_cut_and_a_list_is_read_no_further_than_needed(site):
    for number in range(500):
        site.put(str(5000 + number), f"more {number}", space="2")
        site.tick(minutes=1)
    site.tick(hours=1)
    mirror = Mirror(site, reconcile=False)
    plan = mirror.plan()
    assert all(slice_.estimated_rows <= 100 for slice_ in plan.slices)
    assert len(plan.slices) == 1 + 6
    mirror.run(plan)
    assert mirror.pages() == site.truth()
    site.put("5100", "changed", space="2")
    site.asked.clear()
    assert [row["id"] for row in mirror.run()] == ["5100"]
    listed = [r for r in site.asked if r.query_params.get("sort") == "-modified-date"]
    assert len(listed) == 2, "one list page of each space"
    mirror.source.close()


def test_a_run_after_it_reads_only_what_has_changed(site, mirror):
    mirror.run()
    site.tick(hours=1)
    site.put("1003", "third")
    site.put("2000", "new", space="2")
    assert {row["id"] for row in mirror.run()} == {"1003", "2000"}
    assert mirror.pages() == site.truth()
    site.put("1005", "fifth, a moment later")
    assert {row["id"] for row in mirror.run()} == {"1005"}


def test_a_change_that_becomes_visible_late_is_found(site, mirror):
    mirror.run()
    site.tick(hours=1)
    site.put("1003", "third")
    mirror.run()
    site.tick(seconds=-60)  # committed later with an earlier time
    site.put("1004", "fourth")
    site.tick(seconds=60)
    assert {row["id"] for row in mirror.run()} == {"1004"}


def test_what_is_trashed_purged_moved_or_restored_is_found(site, mirror):
    mirror.run()
    site.tick(hours=1)
    site.trash("1000")
    site.purge("1001")
    site.move("1002", "2")
    mirror.run()
    assert mirror.pages() == site.truth()
    assert (mirror.rows["1000"]["status"], mirror.rows["1001"]["status"]) == ("trashed", "deleted")
    assert not mirror.rows["1002"]["_deleted"]
    site.tick(hours=1)
    site.restore("1000")
    mirror.run()
    assert mirror.pages() == site.truth()


def test_without_reconciliation_the_trash_is_looked_through(site):
    mirror = Mirror(site, reconcile=False)
    mirror.run()
    site.tick(hours=1)
    site.trash("1000")
    mirror.run()
    assert mirror.pages() == site.truth()
    mirror.source.close()


def test_a_page_that_moves_out_of_the_chosen_spaces_is_gone(site):
    mirror = Mirror(site, spaceKeys=["shop"])
    mirror.run()
    assert mirror.pages() == site.truth("1")
    site.tick(hours=1)
    site.move("1000", "2")
    site.move("1001", "1")
    mirror.run()
    assert mirror.pages() == site.truth("1")
    mirror.source.close()


@pytest.mark.parametrize("moment", range(1, 9))
def test_pages_that_are_edited_while_lists_are_gone_through_are_not_missed(site, mirror, moment):
    asked = 0

    def edit(request):
        nonlocal asked
        if request.url.path.endswith("/pages"):
            asked += 1
            if asked == moment:
                for page in ("1000", "1100", "1158"):
                    site.put(page, f"edited at {moment}", space=site.pages[page].space)
                site.tick()
                site.put("1003", "edited a second later")
                site.tick(minutes=10)
                site.trash("1150")

    site.before = edit
    mirror.run()
    site.tick(hours=1)
    mirror.run()
    site.before = lambda _request: None
    mirror.run()
    assert mirror.pages() == site.truth()


def test_a_clock_that_is_hours_off_changes_nothing(site, mirror):
    site.now = dt.datetime.now(dt.timezone.utc) + dt.timedelta(hours=3)
    site.put("1003", "third")
    mirror.run()
    site.now -= dt.timedelta(hours=6)
    site.put("1004", "set back")
    site.tick(hours=6)
    site.put("1005", "and forward")
    mirror.run()
    assert mirror.pages() == site.truth()


def test_a_load_that_was_given_up_goes_on_where_it_ended(site):
    for number in range(400):
        site.put(str(5000 + number), f"more {number}", space="2")
    site.tick(hours=1)
    mirror = Mirror(site)
    first = mirror.run(through=3)
    rest = mirror.run()
    assert len(first) + len(rest) == len(site.truth())
    assert mirror.pages() == site.truth()
    site.purge("5001")
    mirror.run()
    assert mirror.pages() == site.truth()
    mirror.source.close()


@pytest.mark.parametrize("seed", range(4))
def test_a_mirror_follows_any_history(site, seed):
    mirror = Mirror(site)
    chance = random.Random(seed)
    for step in range(10):
        for _ in range(chance.randrange(5)):
            _anything(site, chance)
            site.tick(seconds=chance.randrange(100))
        mirror.run()
        site.tick()
        assert mirror.pages() == site.truth(), f"seed {seed}, step {step}"
    mirror.source.close()


def _anything(site: ConfluenceSite, chance: random.Random) -> None:
    page = chance.choice(sorted(site.pages))
    living = site.pages[page].status == "current"
    what = chance.randrange(6)
    if what == 0:
        site.put(str(7000 + len(site.pages)), "new", space=chance.choice("12"))
    elif what in (1, 2) and living:
        site.put(page, f"edited {chance.random()}")
    elif what == 3:
        (site.trash if living else site.restore)(page)
    elif what == 4 and not living:
        site.purge(page)
    elif living:
        site.move(page, chance.choice("12"))


# --- what belongs to pages -------------------------------------------------------------------


def test_revisions_are_all_versions_and_then_the_new_ones(site):
    mirror = Mirror(site, "revisions")
    site.put("1000", "second title", "<p>two</p>")
    mirror.run()
    assert len(mirror.rows) == 161
    assert mirror.rows["1000:1"]["body"] == "<p>0</p>"
    site.tick(hours=1)
    site.put("1000", "third title", "<p>three</p>")
    site.put("1000", "fourth title", "<p>four</p>")
    # the one before may have become visible after it was looked for
    assert [row["id"] for row in mirror.run()] == ["1000:4", "1000:3", "1000:2"]
    assert mirror.rows["1000:4"]["title"] == "fourth title"
    mirror.source.close()


def test_what_comes_back_has_all_its_revisions_and_what_goes_has_none(site):
    site.add_space("3", "ELSEWHERE", "Elsewhere")
    mirror = Mirror(site, "revisions", spaceKeys=["SHOP", "OPS"])
    for page in ("1155", "1157"):
        site.put(page, "second title")
    site.trash("1155")
    site.move("1157", "3")
    site.tick(minutes=1)
    site.put("1159", "the newest")  # so near that the others are looked at again
    mirror.run()
    assert not {"1155:1", "1157:1"} & mirror.rows.keys()
    site.restore("1155")
    site.move("1157", "1")
    site.trash("1001")
    site.move("1003", "3")
    mirror.run()
    alive = {row["id"] for row in mirror.living()}
    assert alive >= {"1155:1", "1155:2", "1157:1", "1157:2"}
    assert not alive & {"1001:1", "1003:1"}
    mirror.source.close()


def test_a_page_that_is_put_below_another_one_is_found(site, mirror):
    mirror.run()
    site.tick(hours=1)
    site.place_below("1004", "1000")
    assert [(row["id"], row["parent_id"]) for row in mirror.run()] == [("1004", "1000")]
    assert mirror.run() == []


def test_links_lead_to_pages_and_vanish_with_them(site):
    body = link("page 2") + link("page 3", "OPS") + link("nowhere") + '<a href="https://x.y">x</a>'
    site.put("1000", "linking", body)
    mirror = Mirror(site, "links")
    mirror.run()
    targets = {(r["kind"], r["target_title"]): r["target_page_id"] for r in mirror.living()}
    assert targets == {
        ("page", "page 2"): "1002",
        ("page", "page 3"): "1003",
        ("page", "nowhere"): None,
        ("url", None): None,
    }
    assert {row["target_space_key"] for row in mirror.living()} == {"SHOP", "OPS", None}
    site.tick(hours=1)
    site.put("1000", "linking", link("page 2") + link("page 4"))
    mirror.run()
    assert {row["target_title"] for row in mirror.living()} == {"page 2", "page 4"}
    site.tick(hours=1)
    site.trash("1000")
    mirror.run()
    assert mirror.living() == []
    mirror.source.close()


def test_comments_of_both_kinds_and_only_the_new_ones(site):
    mirror = Mirror(site, "comments")
    for number in range(70):
        site.comment(
            str(100 + number), "1000", f"<p>{number}</p>", "inline" if number % 2 else "footer"
        )
        site.tick()
    mirror.run()
    assert len(mirror.rows) == 70
    row = mirror.rows["101"]
    assert (row["kind"], row["page_id"], row["space_key"]) == ("inline", "1000", "SHOP")
    assert (row["inline_selection"], row["resolution_status"]) == ("these words", "open")
    assert mirror.plan().slices == ()
    site.tick(hours=1)
    site.comment("100", "1000", "<p>edited</p>")
    site.comment("900", "1001", "<p>new</p>", "inline")
    assert {r["id"]: r["version"] for r in mirror.run()} == {"100": 2, "900": 1}
    mirror.source.close()


def test_comments_of_other_spaces_are_left_out(site):
    mirror = Mirror(site, "comments", spaceKeys=["OPS"])
    site.comment("1", "1000", "shop")
    site.comment("2", "1001", "ops")
    assert [row["id"] for row in mirror.run()] == ["2"]
    mirror.source.close()


def test_labels_are_rows_of_pages(site):
    site.label("1000", "plan")
    site.label("1001", "plan")
    site.label("1000", "done")
    mirror = Mirror(site, "labels")
    mirror.run()
    found = {(r["page_id"], r["name"], r["space_key"]) for r in mirror.living()}
    assert found == {("1000", "plan", "SHOP"), ("1001", "plan", "OPS"), ("1000", "done", "SHOP")}
    mirror.source.close()


def test_spaces_are_a_unit(site):
    mirror = Mirror(site, "spaces")
    mirror.run()
    row = mirror.rows["2"]
    assert (row["key"], row["name"], row["description"]) == (
        "OPS",
        "Operations",
        "About Operations",
    )
    mirror.source.close()
