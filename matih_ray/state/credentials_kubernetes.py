"""Credentials as Secrets of Kubernetes, through its own client (`matih-ray[kubernetes]`).

Tenant `acme` has the namespace `matih-acme`; a name that is a DNS label is the Secret's name. The
cluster encrypts what it keeps, and its roles say who may read it. Tenants and names that are no DNS
labels are hashed, and fields of odd names spelled in hexadecimal, so that every name that the other
store takes works here too and no two of them meet.

Namespaces are made by who owns the cluster and not here: the right to make them would be the right
to everything.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matih_ray.errors import (
    ConfigurationError,
    MatihError,
    MissingExtraError,
    NotFoundError,
    StateConflictError,
    StateError,
    ValidationError,
)
from matih_ray.model.ids import TenantId
from matih_ray.state.credentials import MAX_CREDENTIAL_BYTES
from matih_ray.state.names import checked_name

NAMESPACE_PREFIX = "matih-"
# RFC 1123, and https://kubernetes.io/docs/concepts/overview/working-with-objects/labels
MAX_LABEL_CHARS = 63
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
# 192 bits of SHA-256: short enough for a label after the prefix, long enough never to meet another.
_HASH_CHARS = 48
_HASHED = re.compile(r"h-[0-9a-f]{48}")
# Names of a Secret's fields, as the API server checks them.
_FIELD = re.compile(r"(?!\.\.?$|\.\.)[-._a-zA-Z0-9]{1,253}")
_HEX_FIELD = "_hex."
MAX_FIELD_CHARS = 253

# Seconds to connect and to answer. A healthy API server answers in milliseconds.
TIMEOUTS_S = (3.0, 10.0)
# Each round lets at least one of those through who write the same name at once; the waits spread
# them, and all of them together are about three seconds.
MAX_PUT_ATTEMPTS = 32
FIRST_WAIT_S = 0.002
MAX_WAIT_S = 0.2


class KubernetesCredentials:
    """A `CredentialStore` on Secrets; safe for threads. `client` is a configured `ApiClient`."""

    def __init__(self, client: Any) -> None:
        from kubernetes.client import CoreV1Api

        # older clients (33, for one) log whole answers at DEBUG
        logging.getLogger("kubernetes.client.rest").setLevel(logging.INFO)
        self._api = CoreV1Api(client)

    def __repr__(self) -> str:
        return f"KubernetesCredentials({self._api.api_client.configuration.host!r})"

    def put(
        self,
        tenant_id: TenantId,
        name: str,
        secrets: Mapping[str, str],
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Store secrets under a name, in place of earlier ones; without labels theirs stay.

        Raises:
            ValidationError: They are too large, or something cannot be stored.
            ConfigurationError: The namespace is missing, or the account may not write to it.
            StateConflictError: Too many others write the same name.
            StateError: The API server cannot be reached or refuses for another reason.
        """
        where = _Place.of(tenant_id, name)
        data = _encoded(secrets)
        _check_labels(labels or {})
        if self._created(where, data, labels):
            return
        for attempt in range(MAX_PUT_ATTEMPTS):
            if self._replaced(where, data, labels):
                return
            wait_s = min(FIRST_WAIT_S * 2**attempt, MAX_WAIT_S)
            time.sleep(random.uniform(0, wait_s))  # noqa: S311 - spreads writers, hides nothing
        raise StateConflictError(
            f"the Secret {where} is being written by too many at once; try again", name=name
        )

    def get(self, tenant_id: TenantId, name: str) -> dict[str, str]:
        """The secrets.

        Raises:
            NotFoundError: There are none of that name.
            ConfigurationError: The account may not read them, or they are not ours.
            StateError: The API server cannot be reached or refuses for another reason.
        """
        where = _Place.of(tenant_id, name)
        secret = self._read(where)
        if secret is None:
            raise NotFoundError(f"no credentials named {name!r}", name=name)
        try:
            return _decoded(secret.data or {})
        except ValueError:
            raise ConfigurationError(
                f"the Secret {where} does not hold texts; store these credentials again",
                namespace=where.namespace,
            ) from None

    def delete(self, tenant_id: TenantId, name: str) -> bool:
        """Remove credentials; tells whether there were any."""
        where = _Place.of(tenant_id, name)
        return self._ask("delete", where, {404}) is not None

    def close(self) -> None:
        """Close all connections; harmless to repeat."""
        self._api.api_client.close()

    def _created(self, where: _Place, data: _Data, labels: Mapping[str, str] | None) -> bool:
        secret = _secret(where, data, labels or {})
        return self._ask("create", where, {409}, secret) is not None

    def _replaced(self, where: _Place, data: _Data, labels: Mapping[str, str] | None) -> bool:
        """False if somebody else has changed or deleted it since it was read."""
        before = self._read(where)
        if before is None:
            return self._created(where, data, labels)
        kept = before.metadata.labels if labels is None else labels
        secret = _secret(where, data, kept or {}, before.metadata.resource_version)
        return self._ask("replace", where, {404, 409}, secret) is not None

    def _read(self, where: _Place) -> Any:
        return self._ask("read", where, {404})

    def _ask(self, verb: str, where: _Place, tolerated: set[int], body: Any = None) -> Any:
        """The answer of the API server, or None if its status is a tolerated one."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        call = getattr(self._api, f"{verb}_namespaced_secret")
        # a new Secret has its name inside
        arguments = {"namespace": where.namespace, "_request_timeout": TIMEOUTS_S}
        arguments |= {} if verb == "create" else {"name": where.name}
        arguments |= {} if body is None else {"body": body}
        try:
            return call(**arguments)
        except ApiException as error:
            if error.status in tolerated:
                return None
            # not chained: the exception holds the whole answer
            raise _typed(verb, where, int(error.status or 0), _status_of(error.body)) from None
        except HTTPError as error:
            raise StateError(
                f"cannot {verb} the Secret {where}: the API server does not answer "
                f"({type(error).__name__})",
                namespace=where.namespace,
            ) from None


_Data = Mapping[str, str]


@dataclass(frozen=True)
class _Place:
    """Where the credentials of a tenant and name are."""

    namespace: str
    name: str

    @classmethod
    def of(cls, tenant_id: TenantId, name: str) -> _Place:
        tenant = _label(checked_name(tenant_id), MAX_LABEL_CHARS - len(NAMESPACE_PREFIX))
        return cls(NAMESPACE_PREFIX + tenant, _label(checked_name(name), MAX_LABEL_CHARS))

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def open_kubernetes_credentials(kube_config: Path | None) -> KubernetesCredentials:
    """The credentials of the cluster that this process belongs to, or that the file names.

    Nothing is asked of the cluster yet.

    Raises:
        MissingExtraError: The client is not installed.
        ConfigurationError: There is no cluster to be found.
    """
    try:
        from kubernetes import client, config
        from urllib3 import Retry
        from yaml import YAMLError
    except ModuleNotFoundError:
        raise MissingExtraError(
            "credentials in Kubernetes need its client: pip install 'matih-ray[kubernetes]'",
            extra="kubernetes",
        ) from None
    configuration = client.Configuration()
    # once more for a connection that was closed while idle; all our requests can be repeated
    configuration.retries = Retry(1, redirect=0)
    try:
        _configure(config, configuration, kube_config)
    except (config.ConfigException, YAMLError, OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(
            f"no Kubernetes cluster is configured ({type(error).__name__}); run in a pod with a "
            "service account, or set MATIH_KUBE_CONFIG",
            setting="kube_config",
        ) from None
    return KubernetesCredentials(client.ApiClient(configuration))


def _configure(config: Any, configuration: Any, kube_config: Path | None) -> None:
    if kube_config is None:
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:  # not in a pod
            config.load_kube_config(client_configuration=configuration)
        return
    config.load_kube_config(
        str(kube_config), client_configuration=configuration, persist_config=False
    )


def _typed(verb: str, where: _Place, status: int, said: _Status) -> MatihError:
    """Our error for a refusal, without the server's words: they may quote what was sent."""
    doing = f"cannot {verb} the Secret {where}"
    facts: dict[str, str | int] = {"namespace": where.namespace, "status": status}
    if status == 404:
        return ConfigurationError(
            f"{doing}: the tenant has no namespace; `kubectl create namespace {where.namespace}`, "
            "and give this runtime's service account its role there",
            **facts,
        )
    if status == 401:
        return ConfigurationError(
            f"{doing}: the API server does not know this account; check the service account's "
            "token or MATIH_KUBE_CONFIG",
            **facts,
        )
    if status == 403 and said.has("NamespaceTerminating"):
        return StateError(f"{doing}: its namespace is being deleted", **facts)
    if status == 403 and said.has("exceeded quota"):
        return ConfigurationError(
            f"{doing}: the namespace's quota is used up; raise it or delete unused Secrets", **facts
        )
    if status == 403:
        return ConfigurationError(
            f"{doing}: the account may not; `kubectl create role matih-credentials -n "
            f"{where.namespace} --verb=get,create,update,delete --resource=secrets`, and bind it "
            "to this runtime's service account",
            **facts,
        )
    return StateError(f"{doing}: the API server answered {status} {said.reason}".rstrip(), **facts)


@dataclass(frozen=True)
class _Status:
    """The API server's own description of a failure: one word of it, and all of it to search."""

    reason: str = ""
    text: str = field(default="", repr=False)

    def has(self, words: str) -> bool:
        return words in self.text


def _status_of(body: str | bytes | None) -> _Status:
    try:
        document = json.loads(body or "{}")
    except ValueError:  # from a proxy on the way
        return _Status()
    if not isinstance(document, dict):
        return _Status()
    reason = str(document.get("reason") or "")
    return _Status(reason if reason.isalpha() else "", json.dumps(document))


def _secret(
    where: _Place, data: _Data, labels: Mapping[str, str], resource_version: str | None = None
) -> Any:
    from kubernetes.client import V1ObjectMeta, V1Secret

    return V1Secret(
        api_version="v1",
        kind="Secret",
        metadata=V1ObjectMeta(
            name=where.name,
            namespace=where.namespace,
            labels=dict(labels),
            resource_version=resource_version,
        ),
        type="Opaque",
        data=dict(data),
    )


def _label(name: str, max_chars: int) -> str:
    plain = len(name) <= max_chars and _DNS_LABEL.fullmatch(name) and not _HASHED.fullmatch(name)
    return name if plain else f"h-{hashlib.sha256(name.encode()).hexdigest()[:_HASH_CHARS]}"


def _check_labels(labels: Mapping[str, str]) -> None:
    for label, value in labels.items():
        if len(value) > MAX_LABEL_CHARS or not _LABEL_VALUE.fullmatch(value):
            raise ValidationError(
                f"the label {label} must have at most {MAX_LABEL_CHARS} letters, digits, dots, "
                "dashes and underscores, and begin and end with a letter or digit",
                label=label,
            )


def _encoded(secrets: Mapping[str, str]) -> dict[str, str]:
    """The data of a Secret: fields with valid names, values in base64."""
    try:
        plain = {_field(name): value.encode() for name, value in secrets.items()}
    except (AttributeError, TypeError, UnicodeEncodeError):
        raise ValidationError(
            "credentials are texts by name; encode other values as text"
        ) from None
    size = sum(len(name) + len(value) for name, value in plain.items())
    if size > MAX_CREDENTIAL_BYTES:
        raise ValidationError(
            f"credentials of {size} bytes are too large; at most {MAX_CREDENTIAL_BYTES} are "
            "allowed",
            bytes=size,
        )
    return {name: base64.b64encode(value).decode() for name, value in plain.items()}


def _decoded(data: Mapping[str, str | bytes]) -> dict[str, str]:
    """Raises `ValueError` for what is neither base64 nor text."""
    return {
        _name_of(field): base64.b64decode(value, validate=True).decode()
        for field, value in data.items()
    }


def _field(name: str) -> str:
    if _FIELD.fullmatch(name) and not name.startswith(_HEX_FIELD):
        return name
    spelled = _HEX_FIELD + name.encode().hex()
    if len(spelled) > MAX_FIELD_CHARS:
        raise ValidationError("the name of a credential's field is too long")
    return spelled


def _name_of(field_: str) -> str:
    if not field_.startswith(_HEX_FIELD):
        return field_
    return bytes.fromhex(field_.removeprefix(_HEX_FIELD)).decode()
