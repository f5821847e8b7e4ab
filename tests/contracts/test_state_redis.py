"""What is particular to Redis: restarts, refusals, foreign values."""

import pytest
import redis
from pydantic import SecretStr

from matih_ray.errors import StateConflictError, StateError, StateVersionError
from matih_ray.model.ids import TenantId
from matih_ray.state.kv_redis import RedisKeyValueStore
from matih_ray.testing.devstack.redis import RedisServer

TENANT = TenantId("acme")
CANARY = "hunter2-canary"


@pytest.fixture
def server():
    with RedisServer(password=CANARY) as server:
        yield server


@pytest.fixture
def kv(server):
    store = RedisKeyValueStore(SecretStr(server.url))
    yield store
    store.close()


def test_a_store_goes_on_after_its_server_was_killed_and_started_again(server, kv):
    version = kv.compare_and_set(TENANT, "k", "kept", 0)
    server.kill()
    with pytest.raises(StateError, match="reachable"):
        kv.get(TENANT, "k")
    server.start()
    stored = kv.get(TENANT, "k")
    assert (stored.value, stored.version) == ("kept", version)
    kv.compare_and_set(TENANT, "k", "again", version)
    with pytest.raises(StateConflictError):
        kv.compare_and_set(TENANT, "k", "zombie", version)


def test_a_wrong_password_is_a_typed_error_and_not_shown(server):
    kv = RedisKeyValueStore(SecretStr(server.url.replace(CANARY, "wrong-canary")))
    with pytest.raises(StateError, match="password") as caught:
        kv.compare_and_set(TENANT, "k", 1, 0)
    assert "canary" not in str(caught.value) + str(caught.value.context)
    assert "canary" not in repr(vars(kv))
    kv.close()


def test_a_full_server_refuses_and_keeps_what_it_has(server, kv):
    version = kv.compare_and_set(TENANT, "k", "kept", 0)
    admin = redis.Redis(port=server.port, password=CANARY)
    admin.config_set("maxmemory", "1")
    with pytest.raises(StateError, match="room"):
        kv.compare_and_set(TENANT, "k", "x" * 1000, version)
    assert kv.get(TENANT, "k").value == "kept"
    admin.close()


def test_a_value_of_somebody_else_is_a_typed_error(server, kv):
    admin = redis.Redis(port=server.port, password=CANARY)
    admin.hset("matih:kv:{acme}:values", "k", "not ours")
    admin.hset("matih:kv:{acme}:values", "j", "5 {broken")
    for key in ("k", "j"):
        with pytest.raises(StateVersionError, match="something else"):
            kv.get(TENANT, key)
    with pytest.raises(StateConflictError):
        kv.compare_and_set(TENANT, "k", "mine", 0)
    admin.close()
