"""Encrypted credential files: keys, rotation, permissions, and no secret in the clear."""

import stat

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from matih_ray.errors import ConfigurationError, NotFoundError, StateError
from matih_ray.model.ids import TenantId
from matih_ray.state.credentials import EncryptedFileCredentials, open_credentials
from matih_ray.testing.contracts.state_processes import finish_together, start_together

TENANT = TenantId("acme")
CANARY = "hunter2-canary"
KEY = Fernet.generate_key().decode()


def new_key() -> str:
    return Fernet.generate_key().decode()


def with_keys(home, *keys: str) -> EncryptedFileCredentials:
    return open_credentials(home, SecretStr(",".join(keys)))


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def everything_under(home) -> bytes:
    return b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())


def test_files_are_encrypted_and_for_their_owner_only(tmp_path):
    store = open_credentials(tmp_path, None)
    store.put(TENANT, "warehouse", {"password": CANARY})
    path = tmp_path / "credentials" / "acme" / "warehouse"
    assert path.is_file()
    assert mode(path) == 0o600
    assert mode(path.parent) == mode(path.parent.parent) == 0o700
    assert mode(tmp_path / "credentials.key") == 0o600
    assert CANARY.encode() not in everything_under(tmp_path)


def test_the_key_file_is_made_once_and_read_again(tmp_path):
    open_credentials(tmp_path, None).put(TENANT, "n", {"a": "1"})
    key = (tmp_path / "credentials.key").read_bytes()
    assert open_credentials(tmp_path, None).get(TENANT, "n") == {"a": "1"}
    assert (tmp_path / "credentials.key").read_bytes() == key
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def _start(number: int, home) -> None:
    open_credentials(home, None).put(TENANT, f"n-{number}", {"a": str(number)})


def test_processes_that_start_together_agree_on_one_key(tmp_path):
    finish_together(start_together(4, _start, tmp_path))
    store = open_credentials(tmp_path, None)
    assert [store.get(TENANT, f"n-{n}") for n in range(4)] == [{"a": str(n)} for n in range(4)]


def test_a_lost_key_file_is_not_replaced_while_credentials_exist(tmp_path):
    open_credentials(tmp_path, None).put(TENANT, "n", {"a": "1"})
    (tmp_path / "credentials.key").unlink()
    with pytest.raises(ConfigurationError, match="restore"):
        open_credentials(tmp_path, None)
    assert not (tmp_path / "credentials.key").exists()


def test_the_wrong_key_is_a_typed_error_with_the_remedy(tmp_path):
    with_keys(tmp_path, new_key()).put(TENANT, "n", {"a": CANARY})
    with pytest.raises(ConfigurationError, match="MATIH_CREDENTIAL_KEY") as caught:
        with_keys(tmp_path, new_key()).get(TENANT, "n")
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("bad", ["", "  ,", "short", "x" * 44, "ü" * 44, "{KEY},no"])
def test_a_malformed_key_is_refused_without_being_shown(tmp_path, bad):
    bad = bad.format(KEY=KEY)
    with pytest.raises(ConfigurationError) as caught:
        open_credentials(tmp_path, SecretStr(bad))
    for part in filter(None, bad.split(",")):
        assert part.strip() == "" or part not in str(caught.value)


def test_older_keys_still_read_and_the_newest_writes(tmp_path):
    old, new = new_key(), new_key()
    with_keys(tmp_path, old).put(TENANT, "n", {"a": "old"})
    both = with_keys(tmp_path, new, old)
    assert both.get(TENANT, "n") == {"a": "old"}
    both.put(TENANT, "m", {"a": "new"})
    assert with_keys(tmp_path, new).get(TENANT, "m") == {"a": "new"}


def test_rotation_moves_everything_to_the_newest_key(tmp_path):
    old, new = new_key(), new_key()
    first = with_keys(tmp_path, old)
    for tenant in ("a", "b", "../odd"):
        first.put(TenantId(tenant), "n", {"who": tenant})
    assert with_keys(tmp_path, new, old).rotate() == 3
    only_new = with_keys(tmp_path, new)
    for tenant in ("a", "b", "../odd"):
        assert only_new.get(TenantId(tenant), "n") == {"who": tenant}
    with pytest.raises(ConfigurationError):
        with_keys(tmp_path, old).get(TenantId("a"), "n")
    assert all(mode(path) == 0o600 for path in (tmp_path / "credentials").glob("*/*"))


def test_rotation_without_the_old_key_changes_nothing(tmp_path):
    old, new = new_key(), new_key()
    with_keys(tmp_path, new).put(TENANT, "a", {"x": "1"})
    with_keys(tmp_path, old).put(TENANT, "b", {"x": "2"})
    before = everything_under(tmp_path)
    with pytest.raises(ConfigurationError):
        with_keys(tmp_path, new).rotate()
    assert everything_under(tmp_path) == before


def test_rotation_of_nothing_is_zero(tmp_path):
    assert open_credentials(tmp_path, None).rotate() == 0


def test_keys_in_the_key_file_are_one_per_line_newest_first(tmp_path):
    old, new = new_key(), new_key()
    (tmp_path / "credentials.key").write_text(f"{old}\n")
    open_credentials(tmp_path, None).put(TENANT, "n", {"a": "1"})
    (tmp_path / "credentials.key").write_text(f"{new}\n{old}\n")
    assert open_credentials(tmp_path, None).rotate() == 1
    assert with_keys(tmp_path, new).get(TENANT, "n") == {"a": "1"}


def test_a_file_moved_to_another_tenant_is_refused(tmp_path):
    store = open_credentials(tmp_path, None)
    store.put(TENANT, "n", {"a": CANARY})
    store.put(TenantId("other"), "m", {"a": "1"})
    (tmp_path / "credentials/acme/n").replace(tmp_path / "credentials/other/m")
    with pytest.raises(ConfigurationError, match="another tenant") as caught:
        store.get(TenantId("other"), "m")
    assert CANARY not in str(caught.value)


def test_a_damaged_file_is_a_typed_error(tmp_path):
    key = new_key()
    store = with_keys(tmp_path, key)
    store.put(TENANT, "n", {"a": "1"})
    path = tmp_path / "credentials/acme/n"
    for content in (b"", path.read_bytes()[:-5], Fernet(key).encrypt(b"[]"), b"\xff"):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match="damaged"):
            store.get(TENANT, "n")


def test_nothing_is_written_outside_the_directory(tmp_path):
    store = open_credentials(tmp_path / "home", None)
    for odd in ("..", ".", "../../escape", "/abs", "a/../../b", "%2e%2e", "..%2f"):
        store.put(TenantId(odd), odd, {"a": odd})
        assert store.get(TenantId(odd), odd) == {"a": odd}
    inside = {path for path in (tmp_path / "home" / "credentials").glob("*/*") if path.is_file()}
    everywhere = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert len(inside) == 7
    assert {path.name for path in everywhere - inside} == {"credentials.key", ".lock"}


def test_a_file_in_place_of_the_directory_is_a_typed_error(tmp_path):
    store = open_credentials(tmp_path, None)
    (tmp_path / "credentials").write_text("in the way")
    with pytest.raises(StateError):
        store.put(TENANT, "n", {"a": "1"})
    with pytest.raises((StateError, NotFoundError)):
        store.get(TENANT, "n")
