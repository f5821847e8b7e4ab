"""The contracts of the state layer.

Subclass `KeyValueContract`, `MetadataContract` or `CredentialContract` and provide a fixture `kv`,
`metadata` or `credentials`. Every test works under tenants of its own, so one store may serve all.
"""

from __future__ import annotations

import uuid

import pytest

from matih_ray.errors import (
    NotFoundError,
    StateConflictError,
    ValidationError,
)
from matih_ray.model.ids import TenantId
from matih_ray.model.value import JsonValue
from matih_ray.state.base import CredentialStore, KeyValueStore
from matih_ray.testing.contracts.state_connectors import ConnectorContract
from matih_ray.testing.contracts.state_endpoints import EndpointContract
from matih_ray.testing.contracts.state_runs import RunContract, RunLifeContract
from matih_ray.testing.contracts.state_samples import (
    BAD_NAMES,
    THREADS,
    new_tenant,
    together,
)
from matih_ray.testing.contracts.state_schedules import ScheduleContract
from matih_ray.testing.contracts.state_stream_jobs import StreamJobContract
from matih_ray.testing.contracts.state_unit_configurations import UnitConfigurationContract
from matih_ray.testing.contracts.state_units import UnitStateContract

EXACT_VALUES: list[JsonValue] = [
    None,
    True,
    0,
    -1,
    2**53 + 1,
    10**40,
    0.1,
    1e308,
    -0.0,
    "",
    "text with \x00, \n, \u2028 and 🦆",
    "\ud800",
    [],
    {},
    {"a": [1, {"b": None}], "": "empty key", "A": "case"},
]


class KeyValueContract:
    """What every key-value store must keep."""

    def test_a_missing_key_is_none(self, kv: KeyValueStore) -> None:
        assert kv.get(new_tenant(), "k") is None

    @pytest.mark.parametrize("value", EXACT_VALUES, ids=lambda value: ascii(value)[:20])
    def test_values_come_back_exact(self, kv: KeyValueStore, value: JsonValue) -> None:
        tenant = new_tenant()
        version = kv.compare_and_set(tenant, "k", value, 0)
        stored = kv.get(tenant, "k")
        assert stored is not None
        assert (stored.value, type(stored.value)) == (value, type(value))
        assert str(stored.value) == str(value)
        assert stored.version == version

    def test_a_new_key_is_created_once(self, kv: KeyValueStore) -> None:
        tenant = new_tenant()
        version = kv.compare_and_set(tenant, "k", "first", 0)
        assert version > 0
        with pytest.raises(StateConflictError):
            kv.compare_and_set(tenant, "k", "second", 0)
        stored = kv.get(tenant, "k")
        assert stored is not None
        assert stored.value == "first"

    def test_a_stale_version_loses_and_changes_nothing(self, kv: KeyValueStore) -> None:
        tenant = new_tenant()
        first = kv.compare_and_set(tenant, "k", 1, 0)
        second = kv.compare_and_set(tenant, "k", 2, first)
        assert second > first
        for stale in (first, 0, second + 1, -1):
            with pytest.raises(StateConflictError):
                kv.compare_and_set(tenant, "k", "lost", stale)
        stored = kv.get(tenant, "k")
        assert stored is not None
        assert (stored.value, stored.version) == (2, second)

    def test_a_key_that_does_not_exist_has_no_version_but_zero(self, kv: KeyValueStore) -> None:
        tenant = new_tenant()
        with pytest.raises(StateConflictError):
            kv.compare_and_set(tenant, "k", "lost", 1)
        assert kv.get(tenant, "k") is None

    def test_delete_says_whether_there_was_something(self, kv: KeyValueStore) -> None:
        tenant = new_tenant()
        kv.compare_and_set(tenant, "k", 1, 0)
        assert kv.delete(tenant, "k") is True
        assert kv.delete(tenant, "k") is False
        assert kv.get(tenant, "k") is None
        assert kv.keys(tenant, "") == []

    def test_versions_of_a_deleted_key_are_never_valid_again(self, kv: KeyValueStore) -> None:
        tenant = new_tenant()
        old = [kv.compare_and_set(tenant, "k", 1, 0)]
        old.append(kv.compare_and_set(tenant, "k", 2, old[-1]))
        for _ in range(3):
            kv.delete(tenant, "k")
            for version in old:
                with pytest.raises(StateConflictError):
                    kv.compare_and_set(tenant, "k", "zombie", version)
            version = kv.compare_and_set(tenant, "k", "anew", 0)
            assert version not in old
            for stale in old:
                with pytest.raises(StateConflictError):
                    kv.compare_and_set(tenant, "k", "zombie", stale)
            old.append(version)

    def test_tenants_do_not_see_each_other(self, kv: KeyValueStore) -> None:
        mine, yours = new_tenant("a"), new_tenant("b")
        kv.compare_and_set(mine, "k", "mine", 0)
        assert kv.get(yours, "k") is None
        assert kv.keys(yours, "") == []
        assert kv.delete(yours, "k") is False
        kv.compare_and_set(yours, "k", "yours", 0)
        stored = kv.get(mine, "k")
        assert stored is not None
        assert stored.value == "mine"

    @pytest.mark.parametrize("trick", [":k", "}:k", "/k", "%2F", "::endpoint::x", ".", "..", " "])
    def test_no_tenant_name_reaches_into_another_tenant(
        self, kv: KeyValueStore, trick: str
    ) -> None:
        tenant = new_tenant()
        kv.compare_and_set(tenant, "k", "mine", 0)
        odd = TenantId(tenant + trick)
        assert kv.get(odd, "k") is None
        assert kv.keys(odd, "") == []
        kv.compare_and_set(odd, "k", "odd", 0)
        assert kv.keys(tenant, "") == ["k"]

    def test_keys_are_listed_by_exact_prefix_in_byte_order(self, kv: KeyValueStore) -> None:
        tenant = new_tenant()
        names = ["a%1", "a%2", "a_x", "aXx", "A%1", "b", "a*", "a[x]", "é", "ä", "z"]
        for name in names:
            kv.compare_and_set(tenant, name, 1, 0)
        assert kv.keys(tenant, "") == sorted(names)
        assert kv.keys(tenant, "a%") == ["a%1", "a%2"]
        assert kv.keys(tenant, "a_") == ["a_x"]
        assert kv.keys(tenant, "A") == ["A%1"]
        assert kv.keys(tenant, "a*") == ["a*"]
        assert kv.keys(tenant, "a[") == ["a[x]"]
        assert kv.keys(tenant, "nothing") == []

    def test_a_returned_value_is_a_copy(self, kv: KeyValueStore) -> None:
        tenant = new_tenant()
        given: JsonValue = {"list": [1]}
        kv.compare_and_set(tenant, "k", given, 0)
        assert isinstance(given, dict)
        given["list"] = "changed by the caller"
        for _ in range(2):
            stored = kv.get(tenant, "k")
            assert stored is not None
            assert stored.value == {"list": [1]}
            assert isinstance(stored.value, dict)
            stored.value["list"] = "changed by the reader"

    @pytest.mark.parametrize("bad", BAD_NAMES, ids=["empty", "nul", "surrogate", "long"])
    def test_names_that_cannot_be_stored_are_refused(self, kv: KeyValueStore, bad: str) -> None:
        for tenant, key in ((TenantId(bad), "k"), (new_tenant(), bad)):
            with pytest.raises(ValidationError):
                kv.compare_and_set(tenant, key, 1, 0)
            with pytest.raises(ValidationError):
                kv.get(tenant, key)
            with pytest.raises(ValidationError):
                kv.delete(tenant, key)

    @pytest.mark.parametrize(
        "bad",
        [float("nan"), float("inf"), {"a": {1, 2}}, b"bytes", "x" * (4 * 1024 * 1024)],
        ids=["nan", "infinity", "set", "bytes", "large"],
    )
    def test_what_is_not_small_json_is_refused(self, kv: KeyValueStore, bad: JsonValue) -> None:
        tenant = new_tenant()
        with pytest.raises(ValidationError):
            kv.compare_and_set(tenant, "k", bad, 0)
        assert kv.get(tenant, "k") is None

    def test_a_long_key_and_a_large_value_fit(self, kv: KeyValueStore) -> None:
        tenant, key, value = TenantId("ü" * 250), uuid.uuid4().hex + "k" * 1_968, "v" * 1_000_000
        kv.compare_and_set(tenant, key, value, 0)
        stored = kv.get(tenant, key)
        assert stored is not None
        assert stored.value == value

    def test_concurrent_increments_lose_nothing(self, kv: KeyValueStore) -> None:
        tenant, rounds = new_tenant(), 10
        kv.compare_and_set(tenant, "n", 0, 0)

        def increment(_: int) -> int:
            lost = 0
            for _ in range(rounds):
                while True:
                    stored = kv.get(tenant, "n")
                    assert stored is not None
                    assert isinstance(stored.value, int)
                    try:
                        kv.compare_and_set(tenant, "n", stored.value + 1, stored.version)
                        break
                    except StateConflictError:
                        lost += 1
            return lost

        assert all(isinstance(lost, int) for lost in together(THREADS, increment))
        stored = kv.get(tenant, "n")
        assert stored is not None
        assert stored.value == THREADS * rounds

    def test_one_of_many_creators_wins(self, kv: KeyValueStore) -> None:
        tenant = new_tenant()
        results = together(THREADS, lambda number: kv.compare_and_set(tenant, "k", number, 0))
        (winner,) = [number for number, result in enumerate(results) if isinstance(result, int)]
        stored = kv.get(tenant, "k")
        assert stored is not None
        assert (stored.value, stored.version) == (winner, results[winner])


class MetadataContract(
    EndpointContract,
    ConnectorContract,
    ScheduleContract,
    UnitConfigurationContract,
    StreamJobContract,
    RunContract,
    RunLifeContract,
    UnitStateContract,
):
    """What every metadata store must keep."""


class CredentialContract:
    """What every credential store must keep."""

    def test_secrets_come_back_as_they_were_stored(self, credentials: CredentialStore) -> None:
        tenant = new_tenant()
        secrets = {"password": "p4ss \x00 wörd\n🦆", "": "empty name", "empty": ""}
        credentials.put(tenant, "warehouse", secrets)
        assert credentials.get(tenant, "warehouse") == secrets

    def test_storing_again_replaces_everything(self, credentials: CredentialStore) -> None:
        tenant = new_tenant()
        credentials.put(tenant, "n", {"a": "1", "b": "2"})
        credentials.put(tenant, "n", {"c": "3"})
        assert credentials.get(tenant, "n") == {"c": "3"}

    def test_labels_are_no_part_of_the_secrets(self, credentials: CredentialStore) -> None:
        tenant = new_tenant()
        for labels in ({"matih.ai/connector-type": "mysql"}, {}, None):
            credentials.put(tenant, "n", {"a": "1"}, labels)
            assert credentials.get(tenant, "n") == {"a": "1"}

    def test_missing_credentials_are_not_found(self, credentials: CredentialStore) -> None:
        tenant = new_tenant()
        credentials.put(tenant, "n", {"a": "1"})
        with pytest.raises(NotFoundError):
            credentials.get(tenant, "m")
        with pytest.raises(NotFoundError):
            credentials.get(new_tenant(), "n")

    def test_delete_says_whether_there_was_something(self, credentials: CredentialStore) -> None:
        tenant = new_tenant()
        credentials.put(tenant, "n", {"a": "1"})
        assert credentials.delete(new_tenant(), "n") is False
        assert credentials.delete(tenant, "n") is True
        assert credentials.delete(tenant, "n") is False
        with pytest.raises(NotFoundError):
            credentials.get(tenant, "n")

    @pytest.mark.parametrize(
        "odd",
        ["..", ".", "../../x", "/etc/passwd", "a/b", "a%2Fb", ".hidden", "a b", "ü", "a\\b", "~"],
    )
    def test_odd_names_are_names_like_any_other(
        self, credentials: CredentialStore, odd: str
    ) -> None:
        tenant = new_tenant()
        odd_tenant = TenantId(f"{odd}{tenant}")
        credentials.put(tenant, odd, {"who": "name"})
        credentials.put(odd_tenant, odd, {"who": "both"})
        assert credentials.get(tenant, odd) == {"who": "name"}
        assert credentials.get(odd_tenant, odd) == {"who": "both"}
        assert credentials.delete(tenant, odd) is True
        assert credentials.get(odd_tenant, odd) == {"who": "both"}

    @pytest.mark.parametrize("bad", BAD_NAMES, ids=["empty", "nul", "surrogate", "long"])
    def test_names_that_cannot_be_stored_are_refused(
        self, credentials: CredentialStore, bad: str
    ) -> None:
        for tenant, name in ((TenantId(bad), "n"), (new_tenant(), bad)):
            with pytest.raises(ValidationError):
                credentials.put(tenant, name, {"a": "1"})
            with pytest.raises(ValidationError):
                credentials.get(tenant, name)
            with pytest.raises(ValidationError):
                credentials.delete(tenant, name)

    def test_secrets_do_not_show_in_repr_or_errors(self, credentials: CredentialStore) -> None:
        tenant, secret = new_tenant(), "canary-5f2c"
        credentials.put(tenant, "n", {"password": secret})
        assert secret not in repr(credentials)
        assert secret not in str(vars(credentials))
        with pytest.raises(ValidationError) as caught:
            credentials.put(tenant, "big", {"password": secret * 200_000})
        assert secret not in repr(caught.value) + str(caught.value.context)

    def test_writers_at_once_end_as_one_of_them(self, credentials: CredentialStore) -> None:
        tenant = new_tenant()

        def write(number: int) -> None:
            credentials.put(tenant, "n", {str(number): "x" * 10_000, "n": str(number)})

        assert together(THREADS, write) == [None] * THREADS
        stored = credentials.get(tenant, "n")
        assert stored == {stored["n"]: "x" * 10_000, "n": stored["n"]}
