"""The control API as Python calls: values in, values out, every failure a `CliError`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from matih_ray.api.connector_wire import ConnectorBody, SchemaBody, SchemasBody
from matih_ray.api.wire import (
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
from matih_ray.cli.requests import MAX_PAGES, PAGE_ITEMS, ApiRequests, Query
from matih_ray.control.webhooks import WebhookCreated
from matih_ray.errors import MatihError
from matih_ray.model.connector import ConnectorTest, ConnectorUsage, Notification
from matih_ray.model.plan import IngestionPlan
from matih_ray.model.preview import Preview
from matih_ray.model.run import SliceRecord
from matih_ray.model.schedule import Schedule
from matih_ray.model.stream_job import StreamJob
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.unit_configuration import UnitConfiguration
from matih_ray.model.value import JsonValue
from matih_ray.model.webhook import Webhook, WebhookAttempt


class ControlClient(ApiRequests):
    """One caller's view of a control API. The tenant is the token's."""

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
        self, endpoint: EndpointBody, pattern: str | None, *, disabled: bool = False
    ) -> Iterator[EndpointUnitDescriptor]:
        """Units of the catalog that may be loaded, ordered by id; all with `disabled`."""
        path = f"/endpoints/{endpoint.endpoint_id}/units"
        query = {"pattern": pattern, "includeDisabled": "true" if disabled else None}
        return self._pages(PageBody[EndpointUnitDescriptor], path, query)

    def unit(self, endpoint: EndpointBody, unit_id: str) -> EndpointUnitDescriptor:
        """One unit."""
        path = f"/endpoints/{endpoint.endpoint_id}/units/{quote(unit_id, safe='')}"
        return self._get(EndpointUnitDescriptor, path)

    def unit_configuration(self, endpoint: EndpointBody, unit_id: str) -> UnitConfiguration:
        """What was chosen for a unit."""
        return self._get(UnitConfiguration, _configuration_path(endpoint, unit_id))

    def configure_unit(
        self, endpoint: EndpointBody, unit_id: str, change: dict[str, JsonValue]
    ) -> UnitConfiguration:
        """Choose for a unit; what is not given stays."""
        path = _configuration_path(endpoint, unit_id)
        return self._value(UnitConfiguration, self._send("PATCH", path, body=change))

    def plan(self, load: dict[str, JsonValue]) -> IngestionPlan:
        """Preview a plan."""
        return self._post(IngestionPlan, "/plans", load)

    def preview(self, load: dict[str, JsonValue], rows: int) -> Preview:
        """Some rows that a run would read."""
        return self._post(Preview, f"/previews?limit={rows}", load)

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
        """`pause`, `resume`, `cancel` or `rollback` a run."""
        return self._post(RunBody, f"/runs/{quote(run_id, safe='')}/{what}")

    # streaming jobs

    def submit_jobs(self, draft: dict[str, JsonValue]) -> list[StreamJob]:
        """Submit a script."""
        response = self._send("POST", "/jobs", body=draft)
        try:
            return TypeAdapter(list[StreamJob]).validate_json(response.content)
        except ValidationError:
            raise self._not_ours(response) from None

    def jobs(self) -> Iterator[StreamJob]:
        """Streaming jobs, newest first."""
        return self._pages(PageBody[StreamJob], "/jobs", {})

    def job(self, job_id: str) -> StreamJob:
        """One streaming job."""
        return self._get(StreamJob, f"/jobs/{quote(job_id, safe='')}")

    def tell_job(self, job_id: str, what: str, body: dict[str, JsonValue] | None) -> StreamJob:
        """`cancel`, `stop` or save (`savepoints`) a streaming job."""
        return self._post(StreamJob, f"/jobs/{quote(job_id, safe='')}/{what}", body)

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

    def say(
        self, session_id: str, message: str, progress: Callable[[str], None]
    ) -> dict[str, JsonValue]:
        """A message to the agent; `progress` is told what it does until it answers."""
        path = f"/api/v1/agents/ingestion/sessions/{quote(session_id, safe='')}/chat"
        for kind, data in self._events(path, {"message": message}):
            try:
                if kind == "problem":
                    raise of_problem(Problem.from_json(data))
                told = TypeAdapter(dict[str, JsonValue]).validate_json(data)
            except (ValidationError, MatihError):
                break
            if kind == "answer":
                return told
            progress(str(told.get("message", "")))
        raise CliError("the agent ended without an answer; say it again", EXIT_ENVIRONMENT)


def _configuration_path(endpoint: EndpointBody, unit_id: str) -> str:
    return f"/endpoints/{endpoint.endpoint_id}/unit-configurations/{quote(unit_id, safe='')}"
