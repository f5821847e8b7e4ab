"""Opens the stores that the settings ask for."""

from __future__ import annotations

import atexit
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import URL

from matih_ray.errors import ConfigurationError
from matih_ray.settings import Settings
from matih_ray.state.base import CredentialStore, KeyValueStore, MetadataStore
from matih_ray.state.credentials import open_credentials
from matih_ray.state.kv_file import FileKeyValueStore
from matih_ray.state.sql import SqlMetadataStore, open_metadata

METADATA_FILE = Path("metadata") / "metadata.db"
KV_FILE = Path("metadata") / "kv-store.json"


@dataclass(frozen=True)
class Stores:
    """The three stores of one process."""

    metadata: MetadataStore
    kv: KeyValueStore
    credentials: CredentialStore

    def close(self) -> None:
        """Close all connections; harmless to repeat."""
        self.kv.close()
        self.metadata.close()


def open_stores(settings: Settings) -> Stores:
    """Open all stores, creating files and tables as needed. The caller closes them.

    Raises:
        ConfigurationError: A setting does not name a store that can be used.
        StateVersionError: Stored data belongs to newer software.
        StateError: A store cannot be reached.
    """
    home = settings.home.absolute()
    credentials = _open_credentials(settings, home)
    metadata = open_metadata(_metadata_url(settings, home))
    try:
        kv = _open_kv(settings, metadata)
    except BaseException:
        metadata.close()
        raise
    return Stores(metadata, kv, credentials)


def _metadata_url(settings: Settings, home: Path) -> SecretStr | URL:
    # compared with None: a variable that is set but empty is a mistake, not a wish for the default
    if settings.metadata_url is not None:
        return settings.metadata_url
    # not as text: a directory may be named with a question mark
    return URL.create("sqlite", database=str(home / METADATA_FILE))


def _open_credentials(settings: Settings, home: Path) -> CredentialStore:
    if settings.credential_store == "file":
        return open_credentials(home, settings.credential_key)
    from matih_ray.state.credentials_kubernetes import open_kubernetes_credentials

    return open_kubernetes_credentials(settings.kube_config)


def _open_kv(settings: Settings, metadata: SqlMetadataStore) -> KeyValueStore:
    if settings.kv_url is None:
        return FileKeyValueStore(settings.kv_file or settings.home / KV_FILE)
    url = settings.kv_url.get_secret_value()
    if url == "sql":
        from matih_ray.state.kv_sql import SqlKeyValueStore

        return SqlKeyValueStore(metadata.database)
    if url.startswith(("redis://", "rediss://", "unix://")):
        from matih_ray.state.kv_redis import RedisKeyValueStore

        return RedisKeyValueStore(settings.kv_url)
    raise ConfigurationError(
        "MATIH_KV_URL names no key-value store; use redis://host:6379/0, rediss://…, unix://… or "
        "`sql`, or leave it unset for a file",
        setting="kv_url",
    )


# Stores by process and settings. The process is in the key because connections must not cross a
# fork; each process normally has one entry.
_opened: dict[tuple[int, Settings], Stores] = {}
_opening = threading.Lock()


def process_stores(settings: Settings) -> Stores:
    """The stores of this process for these settings, opened on first use and shared by threads.

    Raises:
        MatihError: As `open_stores`; a failure is not remembered.
    """
    key = (os.getpid(), settings)
    stores = _opened.get(key)
    if stores is None:
        with _opening:
            stores = _opened.get(key)
            if stores is None:
                stores = _opened[key] = open_stores(settings)
    return stores


def close_process_stores() -> None:
    """Close what `process_stores` opened in this process; a later call opens anew."""
    with _opening:
        for key in [key for key in _opened if key[0] == os.getpid()]:
            _opened.pop(key).close()


atexit.register(close_process_stores)
