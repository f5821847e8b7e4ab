"""Jira under the source contract, on a site whose clock stands still."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.sources.jira import JiraSource
from matih_ray.testing.contracts.source import SourceCase, SourceContract
from matih_ray.testing.devstack.jira import TOKEN, JiraServer
from tests.integration.jira_lab import NOON_MS, spec_of

ISSUES = 1200


@pytest.fixture(scope="module")
def jira() -> Iterator[JiraServer]:
    with JiraServer() as server:
        server.do("set", frozen_ms=NOON_MS, zone_name="Asia/Kolkata")
        server.do("generate", project="SHOP", count=ISSUES)
        server.do("generate", project="WEB", count=ISSUES // 2)
        for n in range(300):
            # older than what the next run reads again
            at = NOON_MS - 600_000 - n
            server.do("edit", id_=10_001 + 6 * n, fields={"status": "Done"}, at_ms=at)
        yield server


def case_of(jira: JiraServer, unit: str, *policies: IngestionPolicy) -> SourceCase:
    return SourceCase(
        build=lambda: JiraSource(spec_of(jira)),
        unit_id=unit,
        unknown_unit_id="jira.nothing",
        empty_unit_id="jira.sprints",
        target_rows=400,
        policies=policies,
        open_connections=jira.connections,
        secret=TOKEN,
    )


def loads(**more: object) -> IngestionPolicy:
    # without a checkpoint it reads everything, as a full run does
    return IngestionPolicy(run_mode=RunMode.INCREMENTAL, **more)


class TestIssues(SourceContract):
    @pytest.fixture
    def case(self, jira: JiraServer) -> SourceCase:
        recent = {"projectKeys": ["SHOP"], "statuses": ["Done"], "updatedFrom": "2026-09-01T00:00Z"}
        return case_of(
            jira,
            "jira.issues",
            loads(),
            loads(filter=recent, columns=("id", "_source_version", "_deleted", "key")),
        )


class TestChangelogs(SourceContract):
    @pytest.fixture
    def case(self, jira: JiraServer) -> SourceCase:
        return case_of(jira, "jira.changelogs", loads())
