"""A walk for each source: register, collect, configure, load into PostgreSQL, change upstream, load
again; after which the tables hold what the source holds. Then the same again while things go wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import pytest

from matih_ray.execution.steps import Step
from matih_ray.model.policy import RunMode, WriteMode
from matih_ray.testing.devstack.confluence_site import ConfluenceSite
from matih_ray.testing.devstack.graph_drives import GraphDrives
from matih_ray.testing.devstack.jira import JiraServer
from matih_ray.testing.devstack.postgres import PostgresServer
from tests.ray.cdm_lab import Model
from tests.ray.lab import Lab
from tests.ray.upstream_confluence import ConfluenceUpstream
from tests.ray.upstream_jira import JiraUpstream
from tests.ray.upstream_onedrive import OneDriveUpstream

SIZE = 120
LARGE = 500
AnyUpstream: TypeAlias = JiraUpstream | ConfluenceUpstream | OneDriveUpstream


@dataclass(frozen=True)
class Disturbance:
    """What goes wrong. `kills` are the steps at which a planner dies, in the first run and in the
    incremental one; `clock_h` is how far the source's clock is ahead of ours."""

    kills: tuple[Step, Step] | None = None
    storm: bool = False
    size: int = SIZE
    editing: bool = False
    clock_h: float = 0
    zone: str = "UTC"


KILLS = (Step.COMMITTED, Step.COMMITTING)
# Summer time there is UTC+13:45.
CHATHAM = "Pacific/Chatham"
NOTHING = Disturbance()
DISTURBANCES = {
    "nothing": NOTHING,
    "planner killed": Disturbance(kills=KILLS),
    "429 storm": Disturbance(storm=True),
    "500 pages, edited while paging": Disturbance(size=LARGE, editing=True),
    "clock 3 h ahead": Disturbance(clock_h=3),
    "clock 3 h behind": Disturbance(clock_h=-3),
    "zone UTC+13:45": Disturbance(zone=CHATHAM),
    "planner killed in a 429 storm": Disturbance(kills=KILLS, storm=True),
    "500 pages, edited while paging, clock 3 h ahead": Disturbance(
        size=LARGE, editing=True, clock_h=3
    ),
    "clock 3 h behind, zone UTC+13:45": Disturbance(clock_h=-3, zone=CHATHAM),
}


@pytest.fixture(scope="module")
def jira() -> Iterator[JiraServer]:
    with JiraServer() as server:
        yield server


@contextmanager
def _jira(server: JiraServer, how: Disturbance) -> Iterator[JiraUpstream]:
    yield JiraUpstream(server, how.clock_h, how.zone)


@contextmanager
def _confluence(_: JiraServer, how: Disturbance) -> Iterator[ConfluenceUpstream]:
    with ConfluenceSite() as site:
        yield ConfluenceUpstream(site, how.clock_h)


@contextmanager
def _onedrive(_: JiraServer, how: Disturbance) -> Iterator[OneDriveUpstream]:
    with GraphDrives() as graph:
        yield OneDriveUpstream(graph, how.clock_h)


SOURCES = {"jira": _jira, "confluence": _confluence, "onedrive": _onedrive}
# The other two write all times in UTC, whatever the account's zone.
CASES = [(source, what) for source in SOURCES for what in DISTURBANCES]


@dataclass(frozen=True)
class Walk:
    """A model under a disturbance."""

    model: Model
    upstream: AnyUpstream
    how: Disturbance

    def load(self, first: bool) -> None:
        """Load all units while it goes wrong, and once more where that is what mends it."""
        faults = self.model.lab.faults
        step = None if self.how.kills is None else self.how.kills[0 if first else 1]
        if step is not None:
            faults.arm(step, after=1)
        if self.how.storm:
            self.upstream.storm()
        if self.how.editing:
            self.upstream.edit_while_paging(on=True)
        self.model.load()
        assert step is None or not faults.is_armed(step), "the fault never happened"
        if self.how.editing:
            self.upstream.edit_while_paging(on=False)
            self.model.load()


@pytest.fixture
def walk(lab: Lab, postgres: PostgresServer, jira: JiraServer) -> Iterator[Callable[..., Walk]]:
    opened = []

    def begin(source: str, how: Disturbance) -> Walk:
        entered = SOURCES[source](jira, how)
        opened.append(entered)
        upstream = entered.__enter__()
        upstream.fill(how.size)
        return Walk(Model.open(lab, postgres, upstream), upstream, how)

    yield begin
    for entered in opened:
        entered.__exit__(None, None, None)


@pytest.mark.parametrize(("source", "what"), CASES)
def test_the_tables_hold_what_the_source_holds_whatever_goes_wrong(
    walk: Callable[..., Walk], source: str, what: str
):
    under = walk(source, DISTURBANCES[what])
    model = under.model
    under.load(first=True)
    model.assert_true()
    held = {model_id: set(rows) for model_id, rows in model.tables().items()}
    under.upstream.change()
    under.load(first=False)
    model.assert_true(but=under.upstream.departed(model.source))
    for model_id, rows in model.tables().items():
        assert held[model_id] <= set(rows), "rows are marked as deleted and never taken away"


@pytest.mark.parametrize("source", SOURCES)
def test_loading_again_changes_nothing(walk: Callable[..., Walk], source: str):
    under = walk(source, NOTHING)
    model = under.model
    under.load(first=True)
    under.upstream.change()
    under.load(first=False)
    model.load(run_mode=RunMode.FULL, write_mode=WriteMode.OVERWRITE)
    model.assert_true()
    before = model.tables()
    model.load()
    assert model.tables() == before, "an incremental run"
    model.load_slices_again()
    assert model.tables() == before, "slices of the last run"
    model.load(run_mode=RunMode.FULL)
    assert model.tables() == before, "a full run"
    model.load(run_mode=RunMode.FULL, write_mode=WriteMode.OVERWRITE)
    assert model.tables() == before, "a full run that overwrites"
    model.forget_checkpoints()
    model.load()
    assert model.tables() == before, "the whole history"
