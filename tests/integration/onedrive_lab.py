"""A OneDrive source over our own Graph, and a table that its rows are merged into."""

from __future__ import annotations

from typing import Any

from matih_ray.errors import PartUnreadableError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.plan import IngestionPlan, cursor_through
from matih_ray.model.policy import IngestionPolicy, RunMode, WriteMode
from matih_ray.planning.planner import make_plan
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.onedrive import OneDriveSource
from matih_ray.testing.devstack.graph_drives import CLIENT_ID, DIRECTORY, DRIVE, SECRET, GraphDrives

ITEMS = UnitId("onedrive.items")
Row = dict[str, Any]


def spec(graph: GraphDrives, secret: str = SECRET, **config: Any) -> EndpointSpec:
    named = {"drives", "users", "groups", "sites"} & config.keys()
    return EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="ONEDRIVE",
        config={
            "directoryId": DIRECTORY,
            "clientId": CLIENT_ID,
            "graphUrl": f"{graph.url}/v1.0",
            "loginUrl": graph.url,
            "limits": {"retryBackoffS": 0.001},
            "pageSize": 10,
            **({} if named else {"drives": [DRIVE]}),
            **config,
        },
        secrets={"clientSecret": secret},
    )


class Mirror:
    """Runs one after the other, each from where the one before ended; `rows` is what a table that
    is merged by id holds, deletions included. `unread` are parts that were reported."""

    def __init__(self, graph: GraphDrives, target_rows: int = 25, **config: Any) -> None:
        self.source = OneDriveSource(spec(graph, **config))
        self.policy = IngestionPolicy(
            run_mode=RunMode.INCREMENTAL,
            write_mode=WriteMode.MERGE,
            target_slice_rows=target_rows,
        )
        self.checkpoint: Checkpoint | None = None
        self.rows: dict[str, Row] = {}
        self.unread: list[str] = []

    def plan(self) -> IngestionPlan:
        unit = self.source.describe_unit(ITEMS)
        return make_plan(self.source, unit, self.checkpoint, self.policy)

    def run(self, plan: IngestionPlan | None = None, through: int | None = None) -> list[Row]:
        """One run, or its first slices; the rows that it read."""
        plan = plan or self.plan()
        unit = self.source.describe_unit(ITEMS)
        read: list[Row] = []
        unread = set()
        self.unread = []
        for slice_ in plan.slices[:through]:
            try:
                for batch in self.source.read(unit, slice_, self.policy):
                    read += batch.to_pylist()
            except PartUnreadableError as error:
                unread.add(slice_.sequence)
                self.unread.append(str(error.context["part"]))
        self.rows.update({row["id"]: row for row in read})
        before = None if self.checkpoint is None else self.checkpoint.cursor
        cursor = cursor_through(before, plan.slices[:through], unread)
        self.checkpoint = Checkpoint(cursor=cursor, cursor_column=plan.cursor_column)
        return read

    def paths(self, drive: str = DRIVE) -> dict[str, str]:
        """Own id and path of each item that is there."""
        return {
            row["item_id"]: row["path"]
            for row in self.rows.values()
            if row["drive_id"] == drive and not row["_deleted"]
        }
