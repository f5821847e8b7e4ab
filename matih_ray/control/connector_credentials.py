"""Credentials of a connector while it is being tested, before it is known whether they stay."""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from pydantic import SecretStr

from matih_ray.control.connector_fields import stored_credentials
from matih_ray.control.connector_types import ConnectorType
from matih_ray.control.ports import Ports
from matih_ray.errors import MatihError, NotFoundError
from matih_ray.state.base import EndpointRecord

log = structlog.get_logger(__name__)


class TemporaryCredentials:
    """Stores credentials for the time of a test, and for good if that was kept."""

    def __init__(
        self,
        ports: Ports,
        type_: ConnectorType,
        record: EndpointRecord,
        credentials: Mapping[str, SecretStr] | None,
    ) -> None:
        self._ports = ports
        self._record = record
        self._type = type_
        self._given = credentials
        self._plain = stored_credentials(type_, credentials) if credentials is not None else None
        self._name: str | None = None
        self._kept = False

    @property
    def named(self) -> EndpointRecord:
        """The record with the name that its credentials are stored under."""
        if self._given is None:
            return self._record
        return self._record.model_copy(update={"credential_name": self._name})

    def keep(self) -> None:
        """The record is stored: its credentials stay."""
        self._kept = True

    def __enter__(self) -> TemporaryCredentials:
        if self._plain:
            name = credential_name(self._ports, self._record)
            labels = {
                "matih.ai/connector-id": self._record.endpoint_id,
                "matih.ai/connector-type": self._record.type.lower(),
            }
            self._ports.credentials.put(self._record.tenant_id, name, self._plain, labels)
            self._name = name
        return self

    def __exit__(self, *_: object) -> None:
        if self._name is None or self._kept:
            return
        try:
            self._ports.credentials.delete(self._record.tenant_id, self._name)
        except MatihError as error:  # the reason for it is what is reported
            log.warning("credentials_left_behind", name=self._name, code=error.code)


def credential_name(ports: Ports, record: EndpointRecord) -> str:
    """A free name: `connector-` and the first eight of the id (seed 001), more for the next ones.

    Credentials are never overwritten: until the endpoint names the new ones, the old ones are used.
    """
    name = f"connector-{record.endpoint_id[:8]}"
    try:
        ports.credentials.get(record.tenant_id, name)
    except NotFoundError:
        return name
    return f"{name}-{ports.new_id()[:12]}"
