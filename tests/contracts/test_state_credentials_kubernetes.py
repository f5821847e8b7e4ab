"""Credentials as Secrets: the contract, what the cluster gets to see, and how it can refuse.

The API server is our own fake, to which the official client talks over HTTP.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from matih_ray.errors import ConfigurationError, NotFoundError, StateError, ValidationError
from matih_ray.model.ids import TenantId
from matih_ray.settings import Settings
from matih_ray.state.base import CredentialStore
from matih_ray.state.credentials_kubernetes import (
    KubernetesCredentials,
    open_kubernetes_credentials,
)
from matih_ray.state.factory import open_stores
from matih_ray.testing.contracts.state import CredentialContract
from matih_ray.testing.contracts.state_samples import THREADS, new_tenant, together
from matih_ray.testing.devstack.kubernetes_api import ApiFault, KubernetesApi

ACME = TenantId("acme")
NAMESPACE = "matih-acme"
NAME = "connector-770e8400"
CANARY = "hunter2-canary"
IN_BASE64 = base64.b64encode(CANARY.encode()).decode()
SECRETS = {"username": "matih_reader", "password": CANARY}


@pytest.fixture
def api() -> Iterator[KubernetesApi]:
    with KubernetesApi() as server:
        server.add_namespace(NAMESPACE)
        yield server


@pytest.fixture
def store(api: KubernetesApi, tmp_path: Path) -> Iterator[KubernetesCredentials]:
    opened = open_kubernetes_credentials(api.write_kube_config(tmp_path / "kube.json"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def provisioning() -> Iterator[KubernetesApi]:
    """Tests of the contract make tenants of their own; so their namespaces are made too."""
    with KubernetesApi(provision=True) as server:
        yield server


class TestKubernetesSecrets(CredentialContract):
    @pytest.fixture
    def credentials(self, provisioning: KubernetesApi, tmp_path: Path) -> Iterator[CredentialStore]:
        path = provisioning.write_kube_config(tmp_path / "kube.json")
        opened = open_kubernetes_credentials(path)
        yield opened
        opened.close()


# --- what the cluster sees -------------------------------------------------------------------


def test_a_secret_has_the_specified_shape(api: KubernetesApi, store: KubernetesCredentials):
    labels = {"matih.ai/connector-id": "770e8400-e29b", "matih.ai/connector-type": "snowflake"}
    store.put(ACME, NAME, SECRETS, labels)
    secret = api.secret(NAMESPACE, NAME)
    assert secret["type"] == "Opaque"
    assert secret["metadata"]["labels"] == labels
    assert secret["metadata"]["name"] == NAME
    assert secret["metadata"]["namespace"] == NAMESPACE
    assert secret["data"] == {
        "username": base64.b64encode(b"matih_reader").decode(),
        "password": IN_BASE64,
    }


def test_replacing_changes_data_and_keeps_labels_that_are_not_given(
    api: KubernetesApi, store: KubernetesCredentials
):
    store.put(ACME, NAME, SECRETS, {"matih.ai/connector-id": "a"})
    first = api.secret(NAMESPACE, NAME)["metadata"]
    store.put(ACME, NAME, {"token": "t"})
    second = api.secret(NAMESPACE, NAME)["metadata"]
    assert second["labels"] == first["labels"]
    assert second["resourceVersion"] != first["resourceVersion"]
    store.put(ACME, NAME, {"token": "t"}, {"matih.ai/connector-id": "b"})
    assert api.secret(NAMESPACE, NAME)["metadata"]["labels"] == {"matih.ai/connector-id": "b"}
    assert list(api.secret(NAMESPACE, NAME)["data"]) == ["token"]


def test_a_new_name_costs_one_request(api: KubernetesApi, store: KubernetesCredentials):
    store.put(ACME, NAME, SECRETS)
    assert list(api.requests) == [f"POST /api/v1/namespaces/{NAMESPACE}/secrets"]


@pytest.mark.parametrize(
    "odd", ["Upper", "a_b", "-a", "a-", "x" * 64, "h-" + "0" * 48, "ü", "a.b", "a/b", ".."]
)
def test_names_that_are_no_labels_are_hashed_and_meet_no_other(
    api: KubernetesApi, store: KubernetesCredentials, odd: str
):
    store.put(ACME, odd, {"a": "odd"})
    (path,) = {request.split("/secrets")[0] for request in api.requests}
    assert path == f"POST /api/v1/namespaces/{NAMESPACE}"
    names = [name for space, name in api._stored if space == NAMESPACE]
    assert len(names) == 1
    assert names[0].startswith("h-")
    # even the hashed name itself, asked for as a name, is another one
    with pytest.raises(NotFoundError):
        store.get(ACME, names[0])
    assert store.get(ACME, odd) == {"a": "odd"}


@pytest.mark.parametrize("tenant", ["Acme", "a" * 58, "../kube-system", "acme."])
def test_tenants_stay_in_their_namespaces(
    api: KubernetesApi, store: KubernetesCredentials, tenant: str
):
    with pytest.raises(ConfigurationError, match="namespace") as caught:
        store.put(TenantId(tenant), NAME, SECRETS)
    namespace = caught.value.context["namespace"]
    assert str(namespace).startswith("matih-h-")
    assert len(str(namespace)) <= 63
    api.add_namespace(str(namespace))
    store.put(TenantId(tenant), NAME, SECRETS)
    assert store.get(TenantId(tenant), NAME) == SECRETS
    with pytest.raises(NotFoundError):
        store.get(ACME, NAME)


@pytest.mark.parametrize("value", ["a" * 64, "a b", "-a", "ü", "a/b"])
def test_a_label_that_is_no_label_is_refused(store: KubernetesCredentials, value: str):
    with pytest.raises(ValidationError, match=r"matih\.ai/connector-id"):
        store.put(ACME, NAME, SECRETS, {"matih.ai/connector-id": value})


@pytest.mark.parametrize("secrets", [{"a": "\ud800"}, {"\ud800": "a"}, {"ü" * 200: "a"}, {"a": 1}])
def test_what_is_no_text_is_refused_without_being_shown(
    store: KubernetesCredentials, secrets: dict
):
    with pytest.raises(ValidationError):
        store.put(ACME, NAME, {**SECRETS, **secrets})


# --- refusals and faults ---------------------------------------------------------------------


def call(store: KubernetesCredentials, verb: str) -> None:
    {
        "create": lambda: store.put(ACME, "new", SECRETS),
        "get": lambda: store.get(ACME, NAME),
        "update": lambda: store.put(ACME, NAME, SECRETS),
        "delete": lambda: store.delete(ACME, NAME),
    }[verb]()


@pytest.mark.parametrize("verb", ["create", "get", "update", "delete"])
def test_a_missing_right_names_the_role_to_add(
    api: KubernetesApi, store: KubernetesCredentials, verb: str
):
    store.put(ACME, NAME, SECRETS)
    api.forbid(verb, NAMESPACE)
    with pytest.raises(ConfigurationError, match=r"create role .* --resource=secrets") as caught:
        call(store, verb)
    assert caught.value.context == {"namespace": NAMESPACE, "status": 403}
    assert f"-n {NAMESPACE}" in str(caught.value)
    assert_silent(caught.value)


def test_a_missing_namespace_is_named(store: KubernetesCredentials):
    stranger = TenantId("globex")
    with pytest.raises(ConfigurationError, match="kubectl create namespace matih-globex") as caught:
        store.put(stranger, NAME, SECRETS)
    assert_silent(caught.value)
    # nothing can be there, so nothing is found there
    with pytest.raises(NotFoundError):
        store.get(stranger, NAME)
    assert store.delete(stranger, NAME) is False


def test_an_unknown_account_is_told_apart(api: KubernetesApi, tmp_path: Path):
    path = api.write_kube_config(tmp_path / "kube.json", token=f"{CANARY}-token")
    with pytest.raises(ConfigurationError, match="account") as caught:
        open_kubernetes_credentials(path).get(ACME, NAME)
    assert caught.value.context["status"] == 401
    assert_silent(caught.value)


def test_a_quota_and_an_ending_namespace_are_no_missing_rights(
    api: KubernetesApi, store: KubernetesCredentials
):
    api.set_quota(NAMESPACE, 0)
    with pytest.raises(ConfigurationError, match="quota"):
        store.put(ACME, NAME, SECRETS)
    api.terminate_namespace(NAMESPACE)
    with pytest.raises(StateError, match="being deleted"):
        store.put(ACME, NAME, SECRETS)


@pytest.mark.parametrize("verb", ["create", "get", "update", "delete"])
def test_a_failing_server_is_a_state_error_that_shows_nothing(
    api: KubernetesApi, store: KubernetesCredentials, verb: str
):
    store.put(ACME, NAME, SECRETS)
    api.fail_next(ApiFault.FAIL)
    with pytest.raises(StateError, match="500 InternalError") as caught:
        call(store, verb)
    assert_silent(caught.value)
    call(store, verb)


@pytest.mark.parametrize("fault", [ApiFault.DROP, ApiFault.APPLY_THEN_DROP])
def test_a_lost_reply_ends_with_the_secret_stored(
    api: KubernetesApi, store: KubernetesCredentials, fault: ApiFault
):
    for number in range(2):  # once new, once in place of the first
        api.fail_next(fault)
        secrets = {"n": str(number)}
        with contextlib.suppress(StateError):
            store.put(ACME, NAME, secrets)
        store.put(ACME, NAME, secrets)
        assert store.get(ACME, NAME) == secrets


def test_a_server_that_is_away_is_a_state_error(api: KubernetesApi, store: KubernetesCredentials):
    api.stop()
    for verb in ("create", "get", "update", "delete"):
        with pytest.raises(StateError, match="does not answer") as caught:
            call(store, verb)
        assert_silent(caught.value)


@pytest.mark.parametrize("value", ["!", base64.b64encode(b"\xff").decode()])
def test_a_secret_of_somebody_else_is_told_apart(
    api: KubernetesApi, store: KubernetesCredentials, value: str
):
    api.replace_secret(NAMESPACE, NAME, {"a": value})
    with pytest.raises(ConfigurationError, match="does not hold texts"):
        store.get(ACME, NAME)


def test_writers_and_deleters_at_once_leave_a_whole_secret_or_none(
    store: KubernetesCredentials,
):
    def work(number: int) -> None:
        for _ in range(10):
            if number % 4 == 0:
                store.delete(ACME, NAME)
            else:
                store.put(ACME, NAME, {"n": str(number), str(number): "x"})

    assert together(THREADS, work) == [None] * THREADS
    store.put(ACME, NAME, {"n": "last"})
    assert store.get(ACME, NAME) == {"n": "last"}


def assert_silent(error: BaseException) -> None:
    """Neither the error nor what it came from shows a secret."""
    shown = "".join(repr(each) + str(each) for each in (error, error.__cause__))
    assert CANARY not in shown
    assert IN_BASE64 not in shown
    assert error.__suppress_context__


def test_no_log_line_shows_a_secret(store: KubernetesCredentials, caplog: pytest.LogCaptureFixture):
    with contextlib.ExitStack() as levels:
        for name in ("", "kubernetes", "urllib3", "client"):
            levels.enter_context(caplog.at_level(logging.DEBUG, name))
        store.put(ACME, NAME, SECRETS)
        store.put(ACME, NAME, SECRETS)
        assert store.get(ACME, NAME) == SECRETS
        logging.getLogger("kubernetes").debug("listening")
    assert "listening" in caplog.text
    assert CANARY not in caplog.text
    assert IN_BASE64 not in caplog.text


# --- settings --------------------------------------------------------------------------------


def test_the_settings_choose_the_store(api: KubernetesApi, tmp_path: Path):
    path = api.write_kube_config(tmp_path / "kube.json")
    settings = Settings(home=tmp_path / "home", credential_store="kubernetes", kube_config=path)
    stores = open_stores(settings)
    assert isinstance(stores.credentials, KubernetesCredentials)
    tenant = new_tenant()
    api.add_namespace(f"matih-{tenant}")
    stores.credentials.put(tenant, NAME, SECRETS)
    assert stores.credentials.get(tenant, NAME) == SECRETS
    assert api.secret(f"matih-{tenant}", NAME)
    assert not (tmp_path / "home" / "credentials.key").exists()
    assert api.token not in repr(stores.credentials)
    stores.close()


@pytest.mark.parametrize("content", [None, "", "[]", "{}", "a: b: c", "\x00", '{"clusters": 1}'])
def test_a_kubeconfig_that_is_none_is_refused(tmp_path: Path, content: str | None):
    path = tmp_path / "kube.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match="MATIH_KUBE_CONFIG"):
        open_kubernetes_credentials(path)


def test_without_the_client_the_extra_is_named(tmp_path: Path):
    code = (
        "import sys\n"
        "sys.modules['kubernetes'] = None\n"
        "from matih_ray.errors import MissingExtraError\n"
        "from matih_ray.settings import Settings\n"
        "from matih_ray.state.factory import open_stores\n"
        "try:\n"
        f"    open_stores(Settings(home={str(tmp_path)!r}, credential_store='kubernetes'))\n"
        "except MissingExtraError as error:\n"
        "    print(error.context['extra'], error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("kubernetes ")
    assert "matih-ray[kubernetes]" in done.stdout
