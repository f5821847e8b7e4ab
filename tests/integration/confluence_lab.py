"""A Confluence source over our own site, and tables that its rows are merged into."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from matih_ray.errors import PartUnreadableError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.plan import IngestionPlan, cursor_through
from matih_ray.model.policy import IngestionPolicy, RunMode, WriteMode
from matih_ray.planning.planner import make_plan
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.confluence import ConfluenceSource
from matih_ray.testing.devstack.confluence_site import TOKEN, USER, ConfluenceSite

Row = dict[str, Any]


@contextmanager
def site_of_two_spaces() -> Iterator[ConfluenceSite]:
    """160 pages, by turns in SHOP and OPS."""
    with ConfluenceSite() as site:
        site.add_space("2", "OPS", "Operations")
        for number in range(160):
            site.put(str(1000 + number), f"page {number}", f"<p>{number}</p>", "12"[number % 2])
            site.tick(minutes=1)
        site.tick(hours=1)
        yield site


def link(title: str, space: str | None = None) -> str:
    """A link to a page, as a body has it."""
    key = "" if space is None else f' ri:space-key="{space}"'
    return f'<ac:link><ri:page{key} ri:content-title="{title}"/></ac:link>'


def spec(site: ConfluenceSite, token: str = TOKEN, **config: Any) -> EndpointSpec:
    return EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="CONFLUENCE",
        config={
            "baseUrl": site.url,
            "user": USER,
            "limits": {"retryBackoffS": 0.001},
            "pageSize": 50,
            "pagesPerSlice": 100,
            **config,
        },
        secrets={"apiToken": token},
    )


class Mirror:
    """Runs of one unit one after the other, each from where the one before ended; `rows` is what a
    table that is merged by id holds, deletions included. `unread` are parts that were reported."""

    def __init__(self, site: ConfluenceSite, unit: str = "pages", **config: Any) -> None:
        self.source = ConfluenceSource(spec(site, **config))
        self.unit = self.source.describe_unit(UnitId(f"confluence.{unit}"))
        self.policy = IngestionPolicy(run_mode=RunMode.INCREMENTAL, write_mode=WriteMode.MERGE)
        self.checkpoint: Checkpoint | None = None
        self.rows: dict[str, Row] = {}
        self.unread: list[str] = []

    def plan(self) -> IngestionPlan:
        return make_plan(self.source, self.unit, self.checkpoint, self.policy)

    def run(self, plan: IngestionPlan | None = None, through: int | None = None) -> list[Row]:
        """One run, or its first slices; the rows that it read."""
        plan = plan or self.plan()
        read: list[Row] = []
        unread = set()
        self.unread = []
        for slice_ in plan.slices[:through]:
            try:
                for batch in self.source.read(self.unit, slice_, self.policy):
                    read += batch.to_pylist()
            except PartUnreadableError as error:
                unread.add(slice_.sequence)
                self.unread.append(str(error.context["part"]))
        self.rows.update({row["id"]: row for row in read})
        before = None if self.checkpoint is None else self.checkpoint.cursor
        cursor = cursor_through(before, plan.slices[:through], unread)
        self.checkpoint = Checkpoint(cursor=cursor, cursor_column=plan.cursor_column)
        return read

    def living(self) -> list[Row]:
        """Rows that are not deleted."""
        return [row for row in self.rows.values() if not row["_deleted"]]

    def pages(self) -> dict[str, tuple[str, int, str]]:
        """Space, version and title of each page that is there."""
        return {row["id"]: (row["space_id"], row["version"], row["title"]) for row in self.living()}
