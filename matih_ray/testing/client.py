"""A thin client of the control API for demos, benchmarks and tests: HTTP and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from types import TracebackType
from typing import TypeVar

import httpx

from matih_ray.api.tokens import open_tokens
from matih_ray.api.wire import CollectedBody, ConnectionTestBody, EndpointBody, RunBody
from matih_ray.control.authorization import Principal, Role
from matih_ray.model.ids import EndpointId, RunId, TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.run import RunState
from matih_ray.model.value import Value
from matih_ray.settings import Settings
from matih_ray.testing.devstack.postgres import PostgresServer

TOKEN_LIFETIME_S = 24 * 3600
# The API answers a long poll after 30 s at the latest.
REQUEST_TIMEOUT_S = 60.0
LONG_POLL_S = 10.0

Body = TypeVar("Body", bound=Value)


def issue_token(settings: Settings, tenant_id: TenantId) -> str:
    """An administrator's token of one tenant, signed with the runtime's own key."""
    principal = Principal("local", tenant_id, frozenset({Role.ADMIN}))
    now = datetime.now(timezone.utc)
    return open_tokens(settings, create_key=False).issue(principal, now, TOKEN_LIFETIME_S)


class ControlClient:
    """One tenant's view of a runtime. Raises `httpx.HTTPStatusError` with the problem's text."""

    def __init__(self, url: str, token: str, tenant_id: TenantId) -> None:
        self._http = httpx.Client(
            base_url=f"{url}/api/v1/tenants/{tenant_id}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=REQUEST_TIMEOUT_S,
            trust_env=False,
        )

    def create_endpoint(self, name: str, server: PostgresServer, database: str) -> EndpointBody:
        """Register a PostgreSQL server of the devstack."""
        config = {
            "host": server.host,
            "port": server.port,
            "database": database,
            "user": server.user,
            "sslMode": "disable",
        }
        return self.register(name, "POSTGRESQL", config)

    def register(
        self,
        name: str,
        type_: str,
        config: Mapping[str, object],
        secrets: Mapping[str, str] | None = None,
    ) -> EndpointBody:
        """Register a source or sink of any type."""
        body = {"name": name, "type": type_, "config": config, "secrets": secrets or {}}
        return self._post(EndpointBody, "/endpoints", body)

    def test_endpoint(self, endpoint_id: EndpointId) -> ConnectionTestBody:
        """Connect to the source."""
        return self._post(ConnectionTestBody, f"/endpoints/{endpoint_id}/test")

    def collect(self, endpoint_id: EndpointId) -> CollectedBody:
        """Read the source's units into the catalog."""
        return self._post(CollectedBody, f"/endpoints/{endpoint_id}/collect")

    def start_run(
        self,
        endpoint_id: EndpointId,
        unit_id: UnitId,
        policy: IngestionPolicy,
        sink_id: str | None = None,
    ) -> RunBody:
        """Queue a run."""
        load = {"endpointId": endpoint_id, "unitId": unit_id, "policy": policy.to_dict()}
        if sink_id is not None:
            load["sinkId"] = sink_id
        return self._post(RunBody, "/runs", load)

    def run(self, run_id: RunId, *, since_version: int | None = None) -> RunBody:
        """The run as it is; with a version, once it has changed or after `LONG_POLL_S`."""
        wait = (
            {} if since_version is None else {"waitS": LONG_POLL_S, "sinceVersion": since_version}
        )
        return self._answer(RunBody, self._http.get(f"/runs/{run_id}", params=wait))

    def finish(self, run: RunBody, watch: Callable[[RunBody], None] | None = None) -> RunBody:
        """Wait for the end of a run; `watch` sees every change.

        Raises:
            RuntimeError: It did not complete; carries the run's error.
        """
        while not run.state.is_terminal:
            run = self.run(run.run_id, since_version=run.version)
            if watch is not None:
                watch(run)
        if run.state is not RunState.COMPLETED:
            reason = f"{run.error.code}: {run.error.message}" if run.error else "no error given"
            raise RuntimeError(f"run {run.run_id} of {run.unit_id} is {run.state.value}: {reason}")
        return run

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _post(self, kind: type[Body], path: str, body: object = None) -> Body:
        return self._answer(kind, self._http.post(path, json=body))

    def _answer(self, kind: type[Body], response: httpx.Response) -> Body:
        if response.is_error:
            raise httpx.HTTPStatusError(
                f"{response.request.method} {response.request.url.path} answered "
                f"{response.status_code}: {response.text}",
                request=response.request,
                response=response,
            )
        return kind.from_json(response.content)

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
