"""What all tests share: one PostgreSQL server and one Ray runtime a session, a clean environment.

`MATIH_REQUIRE_SERVERS=1` (continuous integration sets it) turns every skip into a failure.
`make test` runs two processes: what needs Ray in one of them, and each module as a whole in either.
"""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import hypothesis
import pytest
from pydantic import SecretStr
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from matih_ray.settings import Settings
from matih_ray.testing.devstack.ports import free_port
from matih_ray.testing.devstack.postgres import PostgresServer
from matih_ray.testing.faults import LISTENER

if TYPE_CHECKING:
    from serve_apps.local import LocalRuntime

REQUIRE_SERVERS = "1" in map(os.environ.get, ("MATIH_REQUIRE_SERVERS", "REQUIRE_SERVERS"))
SEED = int(
    os.environ.get("SEED") or os.environ.get("RUN_SEED") or random.SystemRandom().randrange(2**32)
)

# Besides those in `tests/ray`: files with tests that use the fixture `runtime`.
ALSO_ON_RAY = ("tests/contracts/test_staging.py",)

# What `${NAME}` means in the streaming jobs of a tenant.
SQL_VARIABLES = {"acme": {"DATABASE_USER": "postgres", "DATABASE_PASSWORD": "never-shown"}}

# Settings of whoever runs the tests must not reach them, nor the processes that they start.
for name in [name for name in os.environ if name.startswith(("MATIH_", "INGESTION_", "RAY_"))]:
    del os.environ[name]
os.environ.update(RAY_USAGE_STATS_ENABLED="0", DO_NOT_TRACK="1", DAFT_ANALYTICS_ENABLED="0")
# The processes that share the tests out learn these from the one that starts them.
os.environ.update(RUN_SEED=str(SEED), REQUIRE_SERVERS="1" if REQUIRE_SERVERS else "0")

# Whoever starts the tests in the background lets them, and all that they start, ignore this.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long one example takes says something about the machine, and is no reason to fail.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_report_header() -> list[str]:
    return [f"seed: {SEED} (SEED={SEED} repeats it), servers required: {REQUIRE_SERVERS}"]


class OneWithRay(LoadScopeScheduling):
    """Gives a file to one process, for its servers, and all that need Ray to the same one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return "ray" if file.startswith("tests/ray/") or file in ALSO_ON_RAY else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneWithRay:
    return OneWithRay(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if REQUIRE_SERVERS and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped although servers are required"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    if REQUIRE_SERVERS and report.skipped:
        report.outcome = "failed"
    return report


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """This session's seed, printed with a failing test."""
    print(f"SEED={SEED}")
    return SEED


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of this session."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRuntime]:
    """The one Ray runtime of this session: faults can be armed, lost runs come back in seconds."""
    from serve_apps.local import start_local  # Ray takes seconds to import, which others save

    settings = Settings(
        home=tmp_path_factory.mktemp("home"),
        http_port=free_port(),
        planner_hosts=2,
        heartbeat_s=0.5,
        orphan_after_s=2.0,
        uncommitted_slices_max=1,  # two slices in a commit at most, however slow the machine is
        step_listener=LISTENER,
        sql_variables=SecretStr(json.dumps(SQL_VARIABLES)),
        log_level="WARNING",
    )
    with start_local(settings) as started:
        yield started
