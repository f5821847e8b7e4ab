"""Several calls at a time: what a site sees of them, and that rows keep their order."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from matih_ray.sources.base import TARGET_BATCH_BYTES
from matih_ray.sources.declared import PIECE_ROWS
from matih_ray.sources.read_ahead import CALLS_AT_ONCE
from matih_ray.testing.devstack.confluence_site import ConfluenceSite
from tests.integration.confluence_lab import Mirror, link, site_of_two_spaces


@pytest.fixture
def site() -> Iterator[ConfluenceSite]:
    with site_of_two_spaces() as site:
        yield site


@pytest.mark.parametrize("unit", ["revisions", "links", "labels", "comments"])
def test_several_calls_are_under_way_and_rows_keep_their_order(site, unit):
    pages = sorted(site.pages.values(), key=lambda page: (page.space, page.id))
    for page in pages:
        site.put(page.id, page.last.title, link(f"page {int(page.id) - 998}"), page.space)
        site.comment(f"9{page.id}", page.id, "newest last")
        site.label(page.id, f"label {page.id}")
        site.tick()
    mirror = Mirror(site, unit)
    plan = mirror.plan()
    assert site.most_under_way == 1
    site.latency_s = 0.02
    read = [row.get("source_page_id") or row["page_id"] for row in mirror.run(plan)]
    ordered = [page.id for page in pages]
    assert list(dict.fromkeys(read)) == (ordered[::-1] if unit == "comments" else ordered)
    # one more goes on with a list that others were read ahead of
    assert 2 <= site.most_under_way <= CALLS_AT_ONCE + 1
    mirror.source.close()


def test_a_title_is_asked_for_once_however_many_pages_link_to_it(site):
    for page in list(site.pages.values()):
        site.put(page.id, page.last.title, link("page 2", "SHOP") + link("page 3", "OPS"))
    mirror = Mirror(site, "links")
    plan = mirror.plan()
    site.asked.clear()
    site.latency_s = 0.01
    mirror.run(plan)
    asked = [request for request in site.asked if "title" in request.query_params]
    assert sorted(request.query_params["title"] for request in asked) == ["page 2", "page 3"]
    assert {row["target_page_id"] for row in mirror.living()} == {"1002", "1003"}
    mirror.source.close()


def test_a_read_that_is_given_up_leaves_no_call_under_way(site):
    body = "x" * (TARGET_BATCH_BYTES // PIECE_ROWS)  # a batch after the first rows
    for number in range(200):
        for _ in range(4):
            site.put(f"9{number:03}", f"more {number}", body)
    mirror = Mirror(site, "revisions", pagesPerSlice=500)
    slice_ = mirror.plan().slices[0]
    site.latency_s = 0.005
    site.asked.clear()
    batches = mirror.source.read(mirror.unit, slice_, mirror.policy)
    assert next(batches).num_rows == PIECE_ROWS
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("read-ahead")]
    pages = {path for path in site.paths() if path.endswith("/versions")}
    assert len(pages) < (slice_.estimated_rows or 0) - CALLS_AT_ONCE, "it ended before its end"
    mirror.source.close()
