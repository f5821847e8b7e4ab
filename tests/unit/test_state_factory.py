"""The settings choose the stores."""

import subprocess
import sys
import threading

import pytest
from pydantic import SecretStr

from matih_ray.errors import ConfigurationError, StateError
from matih_ray.model.ids import TenantId
from matih_ray.settings import Settings
from matih_ray.state.factory import close_process_stores, open_stores, process_stores
from matih_ray.state.kv_file import FileKeyValueStore
from matih_ray.state.kv_redis import RedisKeyValueStore
from matih_ray.state.kv_sql import SqlKeyValueStore

TENANT = TenantId("acme")
CANARY = "hunter2-canary"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in ("MATIH_KV_FILE", "INGESTION_KV_FILE", "MATIH_KV_URL", "MATIH_METADATA_URL"):
        monkeypatch.delenv(name, raising=False)
    yield
    close_process_stores()


def test_the_default_needs_nothing_but_a_directory(tmp_path):
    home = tmp_path / "not there yet" / "50% of ü? #home"
    stores = open_stores(Settings(home=home))
    stores.kv.compare_and_set(TENANT, "k", 1, 0)
    stores.credentials.put(TENANT, "n", {"a": "1"})
    assert stores.metadata.list_runs(TENANT) == []
    assert (home / "metadata" / "metadata.db").is_file()
    assert (home / "metadata" / "kv-store.json").is_file()
    assert (home / "credentials.key").is_file()
    stores.close()
    stores.close()


@pytest.mark.parametrize("variable", ["MATIH_KV_FILE", "INGESTION_KV_FILE"])
def test_the_key_value_file_is_taken_from_the_environment(tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, str(tmp_path / "elsewhere.json"))
    stores = open_stores(Settings(home=tmp_path))
    assert isinstance(stores.kv, FileKeyValueStore)
    stores.kv.compare_and_set(TENANT, "k", 1, 0)
    assert (tmp_path / "elsewhere.json").is_file()
    stores.close()


def test_a_store_stays_where_it_was_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stores = open_stores(Settings(home="relative"))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    stores.kv.compare_and_set(TENANT, "k", 1, 0)
    stores.credentials.put(TENANT, "n", {"a": "1"})
    assert list((tmp_path / "other").iterdir()) == []
    stores.close()


def test_sql_keeps_keys_in_the_metadata_database(tmp_path):
    stores = open_stores(Settings(home=tmp_path, kv_url=SecretStr("sql")))
    assert isinstance(stores.kv, SqlKeyValueStore)
    stores.kv.compare_and_set(TENANT, "k", 1, 0)
    assert not (tmp_path / "metadata" / "kv-store.json").exists()
    stores.close()


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_redis_url_is_opened_without_a_server(tmp_path, scheme):
    url = SecretStr(f"{scheme}://:{CANARY}@127.0.0.1:1/0")
    stores = open_stores(Settings(home=tmp_path, kv_url=url))
    assert isinstance(stores.kv, RedisKeyValueStore)
    with pytest.raises(StateError) as caught:
        stores.kv.get(TENANT, "k")
    assert CANARY not in str(caught.value) + str(caught.value.context)
    stores.close()


@pytest.mark.parametrize(
    "url", [f"memcached://:{CANARY}@h", CANARY, f"redis://:{CANARY}@h:port", f"http://{CANARY}"]
)
def test_an_unusable_key_value_url_is_refused_without_being_shown(tmp_path, url):
    with pytest.raises(ConfigurationError, match="MATIH_KV_URL") as caught:
        open_stores(Settings(home=tmp_path, kv_url=SecretStr(url)))
    assert CANARY not in str(caught.value) + str(caught.value.context)


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://u:{CANARY}@h/d", f"nonsense {CANARY}", f"postgresql://u:{CANARY}@h:port/d",
        "sqlite://", "sqlite:///:memory:", "", f"postgresql+{CANARY}/",
    ],
)  # fmt: skip
def test_an_unusable_metadata_url_is_refused_without_being_shown(tmp_path, url):
    with pytest.raises(ConfigurationError) as caught:
        open_stores(Settings(home=tmp_path, metadata_url=SecretStr(url)))
    assert CANARY not in str(caught.value) + str(caught.value.context)


def test_a_metadata_server_that_is_away_is_a_typed_error_without_the_password(tmp_path):
    url = SecretStr(f"postgresql://app:{CANARY}@127.0.0.1:1/{'d'}")
    with pytest.raises(StateError) as caught:
        open_stores(Settings(home=tmp_path, metadata_url=url))
    assert CANARY not in str(caught.value) + str(caught.value.context)
    assert "refused" in str(caught.value)


def test_a_process_opens_its_stores_once(tmp_path):
    settings, seen, start = Settings(home=tmp_path), [], threading.Barrier(8)

    def work() -> None:
        start.wait()
        seen.append(process_stores(settings))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert len({id(stores) for stores in seen}) == 1
    assert process_stores(Settings(home=tmp_path)) is seen[0]
    assert process_stores(Settings(home=tmp_path / "other")) is not seen[0]


def test_a_failed_opening_is_tried_again(tmp_path):
    (tmp_path / "home").write_text("in the way")
    settings = Settings(home=tmp_path / "home")
    with pytest.raises(ConfigurationError):
        process_stores(settings)
    (tmp_path / "home").unlink()
    assert process_stores(settings).metadata.list_runs(TENANT) == []


def test_a_forked_process_opens_its_own(tmp_path):
    code = (
        "import os, sys\n"
        "from matih_ray.settings import Settings\n"
        "from matih_ray.state.factory import process_stores\n"
        f"settings = Settings(home={str(tmp_path)!r}, kv_url='sql')\n"
        "mine = process_stores(settings)\n"
        "mine.kv.compare_and_set('t', 'parent', 1, 0)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    theirs = process_stores(settings)\n"
        "    theirs.kv.compare_and_set('t', 'child', 1, 0)\n"
        "    sys.exit(0 if theirs is not mine else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert process_stores(settings) is mine\n"
        "print(mine.kv.keys('t', ''))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['child', 'parent']"


@pytest.mark.parametrize(
    ("module", "url", "extra"),
    [
        ("redis", ("kv_url", "redis://127.0.0.1:1/0"), "redis"),
        ("psycopg2", ("metadata_url", "postgresql://u@127.0.0.1:1/d"), "postgres"),
    ],
)
def test_a_missing_driver_names_its_extra(tmp_path, module, url, extra):
    code = (
        "import sys\n"
        f"sys.modules[{module!r}] = None\n"
        "from matih_ray.errors import MissingExtraError\n"
        "from matih_ray.settings import Settings\n"
        "from matih_ray.state.factory import open_stores\n"
        "try:\n"
        f"    open_stores(Settings(home={str(tmp_path)!r}, {url[0]}={url[1]!r}))\n"
        "except MissingExtraError as error:\n"
        "    print(error.context['extra'], error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{extra} ")
    assert f"matih-ray[{extra}]" in done.stdout


def test_the_file_default_loads_neither_redis_nor_alembic_when_it_exists(tmp_path):
    open_stores(Settings(home=tmp_path)).close()
    code = (
        "import sys\n"
        "from matih_ray.settings import Settings\n"
        "from matih_ray.state.factory import open_stores\n"
        f"open_stores(Settings(home={str(tmp_path)!r})).close()\n"
        "print(sorted({'redis', 'alembic', 'ray', 'pyarrow', 'psycopg2'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
