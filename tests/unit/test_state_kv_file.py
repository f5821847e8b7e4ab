"""The key-value file: shared by processes, whole after a crash, never taken from somebody else."""

import json
import os
import signal
import stat
import time

import pytest

from matih_ray.errors import ConfigurationError, StateConflictError, StateError, StateVersionError
from matih_ray.model.ids import TenantId
from matih_ray.state import files
from matih_ray.state.kv_file import FileKeyValueStore
from matih_ray.testing.contracts.state_processes import finish_together, start_together

TENANT = TenantId("acme")
PROCESSES = 4


def test_the_file_is_json_with_a_line_for_each_key(tmp_path):
    path = tmp_path / "metadata" / "kv.json"
    store = FileKeyValueStore(path)
    store.compare_and_set(TENANT, "b", {"cursor": 5}, 0)
    store.compare_and_set(TENANT, "a", "ü", 0)
    assert json.loads(path.read_text()) == {
        "format": "matih-kv",
        "version": 1,
        "lastVersion": 2,
        "tenants": {
            "acme": {
                "a": {"version": 2, "value": "ü"},
                "b": {"version": 1, "value": {"cursor": 5}},
            }
        },
    }
    assert len(path.read_text().splitlines()) == 6
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_another_store_on_the_same_file_sees_what_was_written(tmp_path):
    first, second = (FileKeyValueStore(tmp_path / "kv.json") for _ in range(2))
    version = first.compare_and_set(TENANT, "k", 1, 0)
    second.compare_and_set(TENANT, "k", 2, version)
    with pytest.raises(StateConflictError):
        first.compare_and_set(TENANT, "k", 3, version)
    stored = first.get(TENANT, "k")
    assert stored is not None
    assert stored.value == 2


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"{}", b'{"checkpoints": {}}', b"\xff\xfe", b"5",
        b'{"format": "other", "version": 1}',
        b'{"format": "matih-kv", "version": 1}',
        b'{"format": "matih-kv", "version": 1, "lastVersion": 1, "tenants": {"t": {"k": 1}}}',
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_file_that_is_not_ours_is_reported_and_never_overwritten(tmp_path, content):
    path = tmp_path / "kv.json"
    path.write_bytes(content)
    store = FileKeyValueStore(path)
    for attempt in (
        lambda: store.get(TENANT, "k"),
        lambda: store.keys(TENANT, ""),
        lambda: store.delete(TENANT, "k"),
        lambda: store.compare_and_set(TENANT, "k", 1, 0),
    ):
        with pytest.raises(ConfigurationError, match="MATIH_KV_FILE"):
            attempt()
    assert path.read_bytes() == content


def test_a_file_of_newer_software_is_refused(tmp_path):
    path = tmp_path / "kv.json"
    path.write_text('{"format": "matih-kv", "version": 2, "entries": []}')
    with pytest.raises(StateVersionError) as caught:
        FileKeyValueStore(path).compare_and_set(TENANT, "k", 1, 0)
    assert caught.value.context["stored"] == 2
    assert "entries" in path.read_text()


def test_a_directory_in_the_way_is_a_typed_error(tmp_path):
    (tmp_path / "kv.json").mkdir()
    with pytest.raises(ConfigurationError):
        FileKeyValueStore(tmp_path / "kv.json").get(TENANT, "k")


def test_a_link_is_followed_and_stays_a_link(tmp_path):
    real = tmp_path / "real.json"
    FileKeyValueStore(real).compare_and_set(TENANT, "k", 1, 0)
    link = tmp_path / "link.json"
    link.symlink_to(real)
    FileKeyValueStore(link).compare_and_set(TENANT, "j", 2, 0)
    assert link.is_symlink()
    assert FileKeyValueStore(real).keys(TENANT, "") == ["j", "k"]


def test_a_write_without_room_keeps_the_old_content(tmp_path):
    store = FileKeyValueStore(tmp_path / "kv.json")
    version = store.compare_and_set(TENANT, "k", "old", 0)
    before = (tmp_path / "kv.json").read_bytes()
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(StateError, match="old content"):
            store.compare_and_set(TENANT, "k", "x" * 20_000, version)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "kv.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kv.json", "kv.json.lock"]


def _count(_number: int, path: str, rounds: int) -> None:
    store = FileKeyValueStore(path)
    done = 0
    while done < rounds:
        stored = store.get(TENANT, "n")
        assert stored is not None
        try:
            store.compare_and_set(TENANT, "n", stored.value + 1, stored.version)
        except StateConflictError:
            continue
        done += 1


def test_increments_of_several_processes_lose_nothing(tmp_path):
    path, rounds = tmp_path / "kv.json", 50
    FileKeyValueStore(path).compare_and_set(TENANT, "n", 0, 0)
    finish_together(start_together(PROCESSES, _count, path, rounds))
    stored = FileKeyValueStore(path).get(TENANT, "n")
    assert stored is not None
    assert (stored.value, stored.version) == (PROCESSES * rounds, PROCESSES * rounds + 1)


def test_a_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "kv.json"
    store = FileKeyValueStore(path)
    store.compare_and_set(TENANT, "n", 0, 0)
    store.compare_and_set(TENANT, "ballast", "x" * 200_000, 0)
    processes = start_together(PROCESSES, _count, path, 10**9)
    for process in processes:
        time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        stored = store.get(TENANT, "n")
        assert stored is not None
        # every acknowledged write grew both by one
        assert stored.version == stored.value + (1 if stored.value == 0 else 2)
    stored = store.get(TENANT, "n")
    assert stored is not None
    assert stored.value > 0
    store.compare_and_set(TENANT, "n", 0, stored.version)


def test_a_lock_that_is_never_released_is_a_typed_error(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOCK_TIMEOUT_S", 0.05)
    store = FileKeyValueStore(tmp_path / "kv.json")
    with files.exclusive(tmp_path / "kv.json.lock"), pytest.raises(StateError, match="locked"):
        store.compare_and_set(TENANT, "k", 1, 0)
    store.compare_and_set(TENANT, "k", 1, 0)
