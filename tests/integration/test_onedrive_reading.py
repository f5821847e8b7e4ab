"""What a mirror of a drive holds after changes, moves, deletions, and a token that is too old."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Iterator

import pytest

from matih_ray.errors import SourceChangedError
from matih_ray.sources.onedrive import inventory
from matih_ray.sources.read_ahead import CALLS_AT_ONCE
from matih_ray.testing.devstack.graph_drives import DRIVE, ROOT, GraphDrives
from tests.integration.onedrive_lab import ITEMS, Mirror


@pytest.fixture
def graph() -> Iterator[GraphDrives]:
    with GraphDrives() as graph:
        graph.put("plans", "Plans", is_folder=True)
        graph.put("old", "Old", "plans", is_folder=True)
        for number in range(60):
            graph.put(f"i{number}", f"{number}.txt", "old" if number % 2 else ROOT, size=number)
        yield graph


@pytest.fixture
def mirror(graph: GraphDrives) -> Iterator[Mirror]:
    mirror = Mirror(graph)
    yield mirror
    mirror.source.close()


def test_a_first_run_reads_all_items_with_their_paths(graph, mirror):
    mirror.run()
    assert mirror.paths() == graph.truth()
    assert mirror.paths()["i1"] == "/Plans/Old/1.txt"
    assert mirror.paths()[ROOT] == "/"


def test_values_arrive_as_they_were_sent(graph, mirror):
    graph.now = dt.datetime(2024, 2, 29, 23, 59, 59, 123000, tzinfo=dt.timezone.utc)
    graph.put("odd", "ñ 𝄞 'quoted' \u200b.txt", "old", size=2**53 + 1)
    mirror.run()
    row = mirror.rows[f"{DRIVE}:odd"]
    assert (row["name"], row["size_bytes"]) == ("ñ 𝄞 'quoted' \u200b.txt", 2**53 + 1)
    assert row["updated"] == graph.now
    assert (row["kind"], row["is_root"], row["mime_type"]) == ("file", False, "text/plain")
    assert (row["parent_id"], row["created_by_name"]) == (f"{DRIVE}:old", "Ada Löwe")
    assert (row["etag"], row["ctag"]) == ('"{odd},1"', None)
    assert json.loads(row["raw"])["fileSystemInfo"] == {
        "createdDateTime": "2024-02-29T23:59:59.123Z"
    }
    assert row["_source_version"] == round(graph.now.timestamp() * 1000)


def test_reading_everything_anew_gives_the_same_rows(graph, mirror):
    mirror.run()
    graph.tick(hours=1)
    anew = Mirror(graph)
    anew.run()
    anew.source.close()
    assert anew.rows == mirror.rows


def test_a_run_after_it_reads_only_what_has_changed(graph, mirror):
    mirror.run()
    graph.tick()
    graph.put("i3", "3.txt", "old", size=99)
    graph.put("new", "new.txt", "plans")
    graph.delete("i5")
    assert {row["item_id"] for row in mirror.run()} == {"i3", "new", "i5"}
    assert mirror.paths() == graph.truth()
    assert mirror.rows[f"{DRIVE}:i3"]["size_bytes"] == 99
    assert mirror.plan().slices == ()


def test_a_renamed_folder_takes_what_is_in_it_along(graph, mirror):
    mirror.run()
    graph.put("deep", "Deep", "old", is_folder=True)
    graph.put("leaf", "leaf.txt", "deep")
    mirror.run()
    graph.move("plans", name="Ideas")
    read = {row["item_id"] for row in mirror.run()}
    assert mirror.paths() == graph.truth()
    assert mirror.paths()["leaf"] == "/Ideas/Old/Deep/leaf.txt"
    assert read == {"plans", "old", "deep", "leaf", *(f"i{n}" for n in range(1, 60, 2))}


def test_a_folder_that_was_touched_and_not_moved_is_one_row(graph, mirror):
    mirror.run()
    graph.put("plans", "Plans", is_folder=True)
    assert [row["item_id"] for row in mirror.run()] == ["plans"]


def test_a_moved_folder_inside_a_moved_folder(graph, mirror):
    mirror.run()
    graph.move("plans", name="Ideas")
    graph.move("old", name="Older")
    mirror.run()
    assert mirror.paths() == graph.truth()


def test_what_was_in_a_deleted_folder_is_gone_even_if_nobody_tells(graph, mirror):
    mirror.run()
    graph.delete("plans", with_content=False)
    mirror.run()
    assert mirror.paths() == graph.truth()
    assert mirror.rows[f"{DRIVE}:i7"]["_deleted"]


def test_a_deleted_item_that_is_restored_is_there_again(graph, mirror):
    mirror.run()
    graph.delete("i4")
    mirror.run()
    item = graph.drives[DRIVE].items["i4"]
    item.deleted = False  # its time of change stays
    graph.move("i4")
    mirror.run()
    assert mirror.paths() == graph.truth()


def test_an_item_that_changes_while_a_drive_is_enumerated_comes_once_and_last(graph):
    mirror = Mirror(graph, target_rows=10)
    asked = 0

    def change(request):
        nonlocal asked
        if request.url.path.endswith("/delta"):
            asked += 1
            if asked == 4:
                graph.put("i0", "zero.txt", "old")
                graph.delete("i2")

    graph.before = change
    plan = mirror.plan()
    graph.before = lambda _request: None
    read = mirror.run(plan)
    assert [row["item_id"] for row in read].count("i0") == 1
    assert mirror.paths() == graph.truth()
    mirror.source.close()


def test_changes_between_plan_and_read_are_in_the_next_run_at_the_latest(graph, mirror):
    plan = mirror.plan()
    graph.put("i0", "zero.txt", "old")
    graph.delete("i1")
    graph.move("plans", name="Ideas")
    graph.put("late", "late.txt")
    mirror.run(plan)
    mirror.run()
    assert mirror.paths() == graph.truth()


def test_a_token_that_is_too_old_leads_to_an_enumeration_and_a_set_difference(graph, mirror):
    mirror.run()
    graph.put("i3", "three.txt")
    graph.delete("i8")
    graph.purge_quietly("i9")
    graph.put("born", "born.txt")
    graph.expire()
    plan = mirror.plan()
    assert any("expired" in note for note in plan.notes)
    mirror.run(plan)
    assert mirror.paths() == graph.truth()
    assert mirror.rows[f"{DRIVE}:i9"]["_deleted"]
    assert mirror.plan().slices == ()


def test_an_item_that_an_enumeration_leaves_out_is_not_gone_before_it_was_asked_for(graph, mirror):
    mirror.run()
    graph.expire()
    drive = graph.drives[DRIVE]
    hidden = drive.items.pop("i11")  # a replica that lags behind
    plan = mirror.plan()
    drive.items["i11"] = hidden
    mirror.run(plan)
    assert mirror.paths() == graph.truth()


def test_a_token_that_expires_between_plan_and_read_is_a_typed_error(graph, mirror):
    plan = mirror.plan()
    graph.expire()
    with pytest.raises(SourceChangedError, match="run again"):
        mirror.run(plan)
    mirror.run()
    assert mirror.paths() == graph.truth()


def test_a_drive_too_large_to_be_remembered_is_read_and_what_is_missed_is_said(
    graph, mirror, monkeypatch
):
    monkeypatch.setattr("matih_ray.sources.onedrive.planning.MAX_STORED_CHARS", 10)
    mirror.run()
    graph.put("deep", "deep.txt", "old")
    graph.delete("i1")
    mirror.run()
    assert mirror.paths() == graph.truth()
    graph.expire()
    assert any("deletions since the last run are missed" in note for note in mirror.plan().notes)


def test_a_first_load_that_was_given_up_goes_on_where_it_ended(graph):
    mirror = Mirror(graph, target_rows=10)
    plan = mirror.plan()
    first = mirror.run(plan, through=3)
    rest = mirror.run()
    assert len(first) + len(rest) == len(graph.truth())
    assert mirror.paths() == graph.truth()
    mirror.source.close()


def test_a_tree_is_stored_exactly_and_small():
    tree = inventory.Tree({"r": inventory.Known(None, "root")})
    for number in range(20_000):
        parent = "r" if number < 100 else f"01ABCDEFGHIJ{number % 100:06}"
        name = f"folder {number}" if number < 100 else None
        tree.items[f"01ABCDEFGHIJ{number:06}"] = inventory.Known(parent, name)
    text = inventory.stored(tree)
    assert inventory.restored(text) == tree
    assert len(text) < 8 * len(tree.items)


def test_pages_of_a_delta_are_read_several_at_a_time_and_in_their_order(graph):
    mirror = Mirror(graph, target_rows=1000)
    plan = mirror.plan()
    assert (len(plan.slices), graph.most_under_way) == (1, 1)
    graph.latency_s = 0.02
    read = [row["item_id"] for row in mirror.run(plan)]
    # Graph told of folders before what is in them
    assert read == [ROOT, "plans", *(f"i{n}" for n in range(0, 60, 2)), "old"] + [
        f"i{n}" for n in range(1, 60, 2)
    ]
    assert 2 <= graph.most_under_way <= CALLS_AT_ONCE
    mirror.source.close()


def test_missing_items_are_asked_for_several_at_a_time_and_come_in_their_order(graph):
    mirror = Mirror(graph)
    mirror.run()
    for number in range(40):
        graph.purge_quietly(f"i{number}")
    graph.expire()
    plan = mirror.plan()
    graph.latency_s = 0.02
    (missing,) = (slice_ for slice_ in plan.slices if slice_.params["kind"] == "missing")
    batches = mirror.source.read(mirror.source.describe_unit(ITEMS), missing, mirror.policy)
    read = [row for batch in batches for row in batch.to_pylist()]
    assert [row["item_id"] for row in read] == sorted(f"i{n}" for n in range(40))
    assert all(row["_deleted"] for row in read)
    assert 2 <= graph.most_under_way <= CALLS_AT_ONCE
    mirror.source.close()


@pytest.mark.parametrize("seed", range(4))
def test_a_mirror_follows_any_history(graph, seed):
    mirror = Mirror(graph, target_rows=15)
    chance = random.Random(seed)
    for step in range(12):
        for _ in range(chance.randrange(6)):
            _anything(graph, chance)
        graph.tick()
        if chance.random() < 0.2:
            graph.expire()
        mirror.run()
        assert mirror.paths() == graph.truth(), f"seed {seed}, step {step}"
    mirror.source.close()


def _anything(graph: GraphDrives, chance: random.Random) -> None:
    items = graph.drives[DRIVE].items
    living = [i for i in items.values() if not i.deleted and i.parent is not None]
    folders = [i.id for i in living if i.is_folder] + [ROOT]
    what = chance.randrange(5)
    if what == 0 or not living:
        graph.put(f"n{len(items)}", f"n {len(items)}", chance.choice(folders), is_folder=True)
    elif what == 1:
        graph.put(f"n{len(items)}", f"n {len(items)}", chance.choice(folders))
    elif what == 2:
        graph.delete(chance.choice(living).id, with_content=chance.random() < 0.5)
    else:
        item = chance.choice(living)
        parent = chance.choice(folders)
        above, current = set(), parent
        while current is not None:
            above.add(current)
            current = items[current].parent
        if item.id not in above:
            graph.move(item.id, parent=parent, name=f"{item.name}'")
