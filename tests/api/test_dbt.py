"""dbt with its adapter for Flink, as it comes from PyPI, against the gateway."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from matih_ray.control.authorization import Role
from matih_ray.model.stream_job import StreamJobState
from matih_ray.streaming.owner import StreamJobOwner
from matih_ray.streaming.queries import run_query
from matih_ray.streaming.submission import TenantScripts
from matih_ray.testing.devstack.dbt import dbt_programs
from matih_ray.testing.fakes import RecordingLauncher
from tests.api.lab import TENANT, Lab, open_lab
from tests.api.server import serving, token_of

TIMEOUT_S = 240

PROJECT = """
name: shop
version: "1.0"
config-version: 2
profile: shop
model-paths: [models]
on-run-start: ["{{ create_sources() }}"]
"""
PROFILES = """
shop:
  target: dev
  outputs:
    dev: {{type: flink, host: {host}, port: {port}, session_name: dbt,
          database: default_catalog, schema: default_database, threads: 1}}
"""
SOURCES = """
version: 2
sources:
  - name: files
    tables:
      - name: orders
        config:
          connector_properties: {{connector: filesystem, path: "{path}", format: json}}
        columns:
          - {{name: id, data_type: BIGINT}}
          - {{name: amount, data_type: DOUBLE}}
"""
VIEW = """{{ config(materialized='view') }}
select id, amount * 2 as twice from {{ source('files', 'orders') }} where amount > 1
"""
TABLE = """{{{{ config(materialized='table', connector_properties={{
  'connector': 'filesystem', 'path': '{path}', 'format': 'json'}}) }}}}
select id, twice from {{{{ ref('large') }}}}
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    files = tmp_path / "files"
    (files / TENANT / "orders").mkdir(parents=True)
    yield from open_lab(
        tmp_path / "home",
        RecordingLauncher(),
        scripts=partial(TenantScripts, start=run_query),
        stream_files=str(files),
    )


def project(where: Path, files: Path, url: str, token: str) -> None:
    """A project with a source, a view of it and a table of the view."""
    address = urlsplit(url)
    made = {
        "dbt_project.yml": PROJECT,
        "profiles.yml": PROFILES.format(host=address.hostname, port=address.port),
        "models/sources.yml": SOURCES.format(path=files / "orders"),
        "models/large.sql": VIEW,
        "models/kept.sql": TABLE.format(path=files / "kept"),
        ".netrc": f"machine {address.hostname} login any password {token}\n",
    }
    for name, text in made.items():
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_text(text)
    (where / ".netrc").chmod(0o600)
    (where / ".dbt").mkdir()


def dbt(where: Path, *words: str) -> str:
    """What dbt prints. The project is its home, since it keeps its session there."""
    home = {"HOME": str(where), "DBT_PROFILES_DIR": str(where), "DO_NOT_TRACK": "1"}
    done = subprocess.run(
        [dbt_programs() / "dbt", "--no-use-colors", "--no-anonymous-usage-stats", *words],
        cwd=where, env={**os.environ, **home}, capture_output=True, text=True, check=False,
        timeout=TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_dbt_makes_sources_views_and_tables(lab: Lab, tmp_path: Path):
    files = lab.ports.settings.stream_files / TENANT
    orders = [{"id": 1, "amount": 1.0}, {"id": 2, "amount": 2.5}, {"id": 3, "amount": 4.0}]
    (files / "orders" / "a.json").write_text("".join(f"{json.dumps(one)}\n" for one in orders))
    with serving(lab.app) as url:
        where = tmp_path / "project"
        project(where, files, url, token_of(lab, Role.DATA_ENGINEER))
        first = dbt(where, "run")
        assert "PASS=2" in first
        # once more: what the session has is dropped and made again
        assert "PASS=2" in dbt(where, "run")
    newest, older = lab.ports.metadata.list_stream_jobs(TENANT, offset=0, limit=10)
    assert (newest.target, older.target) == ("kept", "kept")
    StreamJobOwner(lab.ports.settings, TENANT, newest.job_id, newest.epoch, pytest.fail).run()
    ended = lab.ports.metadata.get_stream_job(TENANT, newest.job_id)
    assert (ended.state, ended.progress.rows_out) == (StreamJobState.FINISHED, 2)
    (written,) = (files / "kept").glob("*.json")
    rows = [json.loads(line) for line in written.read_text().splitlines()]
    assert rows == [{"id": 2, "twice": 5.0}, {"id": 3, "twice": 8.0}]
