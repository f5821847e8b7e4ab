"""The control API as Python calls: values in, values out, every failure a `CliError`."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from typing import TypeVar
from urllib.parse import quote, urlsplit

import httpx
from pydantic import Field, SecretStr, TypeAdapter, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from matih_ray.api.connector_wire import ConnectorBody, SchemaBody, SchemasBody
from matih_ray.api.wire import (
    PROBLEM_MEDIA_TYPE,
    CheckpointBody,
    CollectedBody,
    ConnectionTestBody,
    EndpointBody,
    HealthBody,
    PageBody,
    PluginBody,
    Problem,
    RunBody,
)
from matih_ray.cli.failures import EXIT_CALLER, EXIT_ENVIRONMENT, CliError, of_problem
from matih_ray.control.webhooks import WebhookCreated
from matih_ray.errors import MatihError
from matih_ray.model.connector import ConnectorTest, ConnectorUsage, Notification
from matih_ray.model.plan import IngestionPlan
from matih_ray.model.run import SliceRecord
from matih_ray.model.schedule import Schedule
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import JsonValue, Value
from matih_ray.model.webhook import Webhook, WebhookAttempt

Body = TypeVar("Body", bound=Value)
Query = Mapping[str, str | int | float | list[str] | None]

CONNECT_TIMEOUT_S = 10.0
# The longest that the API itself lets a request take (collecting a catalog), and some.
ANSWER_TIMEOUT_S = 330.0
# Items asked for at a time.
PAGE_ITEMS = 500
# Five million items: more than any catalog or ledger that a person lists.
MAX_PAGES = 10_000

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class ClientSettings(BaseSettings):
    """Where the control API is and how to be let in; from the environment, prefix `MATIH_`."""

    model_config = SettingsConfigDict(env_prefix="MATIH_", frozen=True, extra="ignore")

    url: str = Field(default="http://127.0.0.1:8080", description="Address of the control API.")
    token: SecretStr | None = Field(default=None, description="Bearer token; see `matih token`.")


class ControlClient:
    """One caller's view of a control API. The tenant is the token's."""

    def __init__(self, settings: ClientSettings) -> None:
        self._url = settings.url.rstrip("/")
        self._token = settings.token
        self._http = httpx.Client(
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            # a proxy has no business between two processes of one machine
            trust_env=urlsplit(self._url).hostname not in _LOOPBACK,
        )

    # endpoints

    def endpoint(self, reference: str) -> EndpointBody:
        """The endpoint of that name, or else with that id."""
        found = self._get(PageBody[EndpointBody], "/endpoints", {"name": reference})
        if found.items:
            return found.items[0]
        try:
            return self._get(EndpointBody, f"/endpoints/{quote(reference, safe='')}")
        except CliError as error:
            if error.problem is None or error.problem.status != 404:
                raise
            raise CliError(
                f"no endpoint has the name or id {reference!r}; see `matih endpoints list`",
                EXIT_CALLER,
                error.problem,
            ) from None

    def endpoints(self) -> Iterator[EndpointBody]:
        """All endpoints, ordered by name."""
        return self._pages(PageBody[EndpointBody], "/endpoints", {})

    def create_endpoint(self, draft: dict[str, JsonValue]) -> EndpointBody:
        """Create an endpoint."""
        return self._post(EndpointBody, "/endpoints", draft)

    def delete_endpoint(self, endpoint: EndpointBody) -> None:
        """Delete an endpoint."""
        self._send("DELETE", f"/endpoints/{endpoint.endpoint_id}")

    def test_endpoint(self, endpoint: EndpointBody) -> ConnectionTestBody:
        """Test the connection."""
        return self._post(ConnectionTestBody, f"/endpoints/{endpoint.endpoint_id}/test")

    def collect(self, endpoint: EndpointBody, pattern: str | None) -> CollectedBody:
        """Collect the catalog."""
        path = f"/endpoints/{endpoint.endpoint_id}/collect"
        response = self._send("POST", path, query={"pattern": pattern})
        return self._value(CollectedBody, response)

    # connectors

    def connector(self, reference: str) -> ConnectorBody:
        """The connector of that name, or else with that id."""
        path = f"/connectors/{self.endpoint(reference).endpoint_id}"
        return self._get(ConnectorBody, path)

    def connectors(self) -> Iterator[ConnectorBody]:
        """All connectors, ordered by name."""
        return self._pages(PageBody[ConnectorBody], "/connectors", {})

    def create_connector(self, draft: dict[str, JsonValue], key: str) -> ConnectorBody:
        """Test and save a connector, once per key."""
        response = self._send("POST", "/connectors", body=draft, headers={"Idempotency-Key": key})
        return self._value(ConnectorBody, response)

    def delete_connector(self, connector: ConnectorBody) -> None:
        """Delete a connector."""
        self._send("DELETE", f"/connectors/{connector.id}")

    def test_connector(self, connector: ConnectorBody) -> ConnectorTest:
        """Test a connector."""
        return self._post(ConnectorTest, f"/connectors/{connector.id}/test")

    def discover(self, connector: ConnectorBody) -> ConnectorBody:
        """Start a discovery."""
        return self._post(ConnectorBody, f"/connectors/{connector.id}/discover")

    def schemas(self, connector: ConnectorBody) -> Iterator[SchemaBody]:
        """Discovered schemas; one that is on two pages comes twice."""
        path = f"/connectors/{connector.id}/schemas"
        page = self._get(SchemasBody, path, {"limit": PAGE_ITEMS})
        for _ in range(MAX_PAGES):
            yield from page.schemas
            if page.next is None:
                return
            page = self._value(SchemasBody, self._send("GET", path + page.next))

    def rotate(self, connector: ConnectorBody, credentials: dict[str, JsonValue]) -> ConnectorBody:
        """Replace a connector's credentials."""
        path = f"/connectors/{connector.id}/credentials"
        response = self._send("PUT", path, body={"credentials": credentials})
        return self._value(ConnectorBody, response)

    def cancel_discovery(self, connector: ConnectorBody) -> ConnectorBody:
        """Cancel a running discovery."""
        response = self._send("DELETE", f"/connectors/{connector.id}/discover")
        return self._value(ConnectorBody, response)

    def usage(self, connector: ConnectorBody, days: int) -> ConnectorUsage:
        """What the connector's runs have read."""
        return self._get(ConnectorUsage, f"/connectors/{connector.id}/usage", {"days": days})

    # schedules

    def create_schedule(self, draft: dict[str, JsonValue]) -> Schedule:
        """Create a schedule."""
        return self._post(Schedule, "/schedules", draft)

    def schedules(self) -> Iterator[Schedule]:
        """All schedules."""
        return self._pages(PageBody[Schedule], "/schedules", {})

    def schedule(self, schedule_id: str) -> Schedule:
        """One schedule."""
        return self._get(Schedule, f"/schedules/{quote(schedule_id, safe='')}")

    def change_schedule(self, schedule_id: str, change: dict[str, JsonValue]) -> Schedule:
        """Change a schedule."""
        path = f"/schedules/{quote(schedule_id, safe='')}"
        return self._value(Schedule, self._send("PATCH", path, body=change))

    def delete_schedule(self, schedule_id: str) -> None:
        """Delete a schedule."""
        self._send("DELETE", f"/schedules/{quote(schedule_id, safe='')}")

    # notifications

    def notifications(self) -> Iterator[Notification]:
        """All notifications, newest first."""
        return self._pages(PageBody[Notification], "/notifications", {})

    def webhook(self) -> Webhook:
        """The webhook."""
        return self._get(Webhook, "/notifications/webhook")

    def set_webhook(self, draft: dict[str, JsonValue]) -> WebhookCreated:
        """Set the webhook."""
        return self._value(WebhookCreated, self._send("PUT", "/notifications/webhook", body=draft))

    def try_webhook(self) -> WebhookAttempt:
        """Send a request to the webhook."""
        return self._post(WebhookAttempt, "/notifications/webhook/test")

    def delete_webhook(self) -> None:
        """Remove the webhook."""
        self._send("DELETE", "/notifications/webhook")

    # units

    def units(
        self, endpoint: EndpointBody, pattern: str | None
    ) -> Iterator[EndpointUnitDescriptor]:
        """Units of the catalog, ordered by id."""
        path = f"/endpoints/{endpoint.endpoint_id}/units"
        return self._pages(PageBody[EndpointUnitDescriptor], path, {"pattern": pattern})

    def unit(self, endpoint: EndpointBody, unit_id: str) -> EndpointUnitDescriptor:
        """One unit."""
        path = f"/endpoints/{endpoint.endpoint_id}/units/{quote(unit_id, safe='')}"
        return self._get(EndpointUnitDescriptor, path)

    def plan(self, load: dict[str, JsonValue]) -> IngestionPlan:
        """Preview a plan."""
        return self._post(IngestionPlan, "/plans", load)

    # runs

    def start_run(self, load: dict[str, JsonValue], key: str) -> RunBody:
        """Start a run, once per key."""
        response = self._send("POST", "/runs", body=load, headers={"Idempotency-Key": key})
        return self._value(RunBody, response)

    def run(
        self, run_id: str, wait_s: float | None = None, since_version: int | None = None
    ) -> RunBody:
        """One run; with a version, once it has changed or after `wait_s`."""
        query = {"waitS": wait_s, "sinceVersion": since_version}
        return self._get(RunBody, f"/runs/{quote(run_id, safe='')}", query)

    def runs(self, query: Query) -> Iterator[RunBody]:
        """Runs, newest first."""
        return self._pages(PageBody[RunBody], "/runs", query)

    def slices(self, run_id: str) -> Iterator[SliceRecord]:
        """Slices of a run, in commit order."""
        return self._pages(PageBody[SliceRecord], f"/runs/{quote(run_id, safe='')}/slices", {})

    def tell_run(self, run_id: str, what: str) -> RunBody:
        """`pause`, `resume` or `cancel` a run."""
        return self._post(RunBody, f"/runs/{quote(run_id, safe='')}/{what}")

    # checkpoints

    def checkpoint(self, stream: Query) -> CheckpointBody:
        """Where a stream stands."""
        return self._get(CheckpointBody, "/checkpoints", stream)

    def reset_checkpoint(self, stream: Query) -> None:
        """Forget a checkpoint."""
        self._send("DELETE", "/checkpoints", query=stream)

    # the service itself

    def plugins(self, kind: str) -> list[PluginBody]:
        """Plugins of a kind."""
        response = self._request("GET", "/api/v1/plugins", {"kind": kind}, None, {})
        try:
            return TypeAdapter(list[PluginBody]).validate_json(response.content)
        except ValidationError:
            raise self._not_ours(response) from None

    def health(self) -> HealthBody:
        """Whether the service can do its work; needs no token."""
        response = self._request("GET", "/api/v1/health/ready", {}, None, {}, with_token=False)
        return self._value(HealthBody, response)

    def agent(
        self, method: str, path: str, body: dict[str, JsonValue] | None = None
    ) -> dict[str, JsonValue]:
        """A request to the ingestion agent; an empty answer is an empty object."""
        url = f"/api/v1/agents/ingestion/sessions{path}"
        response = self._request(method, url, {}, body, {})
        try:
            return TypeAdapter(dict[str, JsonValue]).validate_json(response.content or b"{}")
        except ValidationError:
            raise self._not_ours(response) from None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # requests

    def _get(self, kind: type[Body], path: str, query: Query | None = None) -> Body:
        return self._value(kind, self._send("GET", path, query=query))

    def _post(self, kind: type[Body], path: str, body: dict[str, JsonValue] | None = None) -> Body:
        return self._value(kind, self._send("POST", path, body=body))

    def _pages(self, kind: type[PageBody[Body]], path: str, query: Query) -> Iterator[Body]:
        page = self._get(kind, path, {**query, "limit": PAGE_ITEMS})
        for _ in range(MAX_PAGES):
            yield from page.items
            if page.next is None:
                return
            page = self._value(kind, self._send("GET", path + page.next))

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: dict[str, JsonValue] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        url = f"/api/v1/tenants/{quote(self._tenant(), safe='')}{path}"
        return self._request(method, url, query or {}, body, headers or {})

    def _request(
        self,
        method: str,
        path: str,
        query: Query,
        body: dict[str, JsonValue] | None,
        headers: dict[str, str],
        *,
        with_token: bool = True,
    ) -> httpx.Response:
        given = {name: value for name, value in query.items() if value is not None}
        if with_token:
            headers = {**headers, "Authorization": f"Bearer {self._known_token()}"}
        try:
            response = self._http.request(
                method, self._url + path, params=given or None, json=body, headers=headers
            )
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise CliError(
                f"cannot reach the control API at {self._url} ({type(error).__name__}); "
                "is it running? set MATIH_URL or --url if it is elsewhere",
                EXIT_ENVIRONMENT,
            ) from None
        if response.is_success:
            return response
        if response.headers.get("content-type") == PROBLEM_MEDIA_TYPE:
            raise of_problem(self._value(Problem, response))
        raise self._not_ours(response)

    def _value(self, kind: type[Body], response: httpx.Response) -> Body:
        try:
            return kind.from_json(response.content)
        except MatihError:
            raise self._not_ours(response) from None

    def _not_ours(self, response: httpx.Response) -> CliError:
        return CliError(
            f"{self._url} answered {response.status_code} with something that is not the control "
            "API's; is MATIH_URL right, and of the same version?",
            EXIT_ENVIRONMENT,
        )

    def _known_token(self) -> str:
        if self._token is None or not self._token.get_secret_value().strip():
            raise CliError(
                "set MATIH_TOKEN to a bearer token; for a runtime on this machine: "
                'export MATIH_TOKEN="$(matih token)"',
                EXIT_ENVIRONMENT,
            )
        return self._token.get_secret_value().strip()

    def _tenant(self) -> str:
        """The tenant that the token is for. Read, not verified: the API does that."""
        try:
            payload = self._known_token().split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            tenant = claims["tenant"]
        except (IndexError, binascii.Error, ValueError, KeyError, TypeError):
            tenant = None
        if not isinstance(tenant, str) or not tenant:
            raise CliError(
                "MATIH_TOKEN is no token of the control API: it names no tenant",
                EXIT_ENVIRONMENT,
            )
        return tenant
