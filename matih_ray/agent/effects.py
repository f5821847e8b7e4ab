"""What the machine decided, carried out through the use cases in the user's own name.

Everything here may be repeated: connectors and runs are made under idempotency keys of the session,
so a turn that was cut off half-way makes nothing twice.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

import structlog
from pydantic import SecretStr

from matih_ray.agent import sentences
from matih_ray.agent.conversation import (
    Conversation,
    Destination,
    Outcome,
    Stream,
    SyncChoice,
)
from matih_ray.agent.events import (
    Connected,
    Discovered,
    Event,
    Executed,
    Failed,
    Forbidden,
    Pending,
    Unresolved,
)
from matih_ray.agent.planning_sync import stream_of
from matih_ray.agent.templates import Template
from matih_ray.control import (
    catalog,
    connectors,
    ingestion_sinks,
    runs,
    schedules,
    unit_configurations,
)
from matih_ray.control.authorization import Principal
from matih_ray.control.building import DEFAULT_SINK
from matih_ray.control.connectors import Connector, ConnectorChange, ConnectorDraft
from matih_ray.control.discovery import is_running
from matih_ray.control.idempotency import claim_of, release
from matih_ray.control.loads import LoadRequest
from matih_ray.control.pages import MAX_PAGE_ITEMS
from matih_ray.control.ports import Ports
from matih_ray.control.source_calls import SourceCalls
from matih_ray.errors import (
    ConfigurationError,
    ConflictError,
    DnsResolutionError,
    ForbiddenError,
    HostNotAllowedError,
    MatihError,
    NotFoundError,
    StateError,
)
from matih_ray.model.connector import DiscoveryState
from matih_ray.model.ids import EndpointId
from matih_ray.model.policy import IngestionPolicy, WriteMode
from matih_ray.model.value import JsonValue
from matih_ray.sources.host_policy import HostPolicy

# Streams that a conversation keeps and can choose from; a larger database is loaded by its API.
MAX_STREAMS = 1000
# A small database is discovered while its user waits; for a large one he looks again.
DISCOVERY_WAIT_S = 20.0
POLL_EVERY_S = 0.1
# Addresses do not depend on it.
ANY_PORT = 443
# Sinks to choose from by talking; a tenant has a handful.
MAX_SINKS = 100
# Names that are tried when others of the tenant's connectors have the first ones.
NAME_ATTEMPTS = 20

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Backend:
    """Whom effects are carried out for, and with what.

    `is_resumed` says that whoever began the effect has died, and holds nothing any more.
    """

    principal: Principal
    ports: Ports
    calls: SourceCalls
    session_id: str
    is_resumed: bool = False

    def connect(
        self, known: Conversation, template: Template, secrets: Mapping[str, SecretStr]
    ) -> Event:
        """Test and save the connector, or change the one that there is."""
        try:
            connector = self._connected(known, template, secrets)
        except ConflictError as error:
            if error.context.get("field") == "Idempotency-Key":
                return Pending()
            return Failed(error.message)
        except MatihError as error:
            return failure_of(error)
        test = connector.state.last_test
        version = None if test is None else test.server_version
        keeps_changes = test is not None and test.capabilities.cdc
        record = connector.record
        return Connected(record.endpoint_id, record.name, version, keeps_changes)

    def check_host(self, host: str) -> Event | None:
        """A doubt about a host, if there is one."""
        try:
            HostPolicy.of(self.ports.settings).resolve_allowed(host, ANY_PORT)
        except (DnsResolutionError, HostNotAllowedError) as error:
            return Unresolved(error.message)
        return None

    def discover(self, known: Conversation, *, is_new: bool) -> Event:
        """The catalog, when its discovery is over."""
        try:
            return self._discovered(_connector_id(known), is_new=is_new)
        except MatihError as error:
            return failure_of(error)

    def execute(self, known: Conversation) -> Event:
        """Start the first runs and create the schedules that are not there yet."""
        before = {outcome.unit_id: outcome for outcome in known.outcomes}
        return Executed(
            tuple(
                self._started(known, stream, before.get(stream.unit_id))
                for stream in known.chosen_streams()
            )
        )

    def remove(self, connector_id: EndpointId) -> None:
        """Delete a connector that nothing was loaded with; one that cannot be deleted stays."""
        tenant_id = self.principal.tenant_id
        try:
            connectors.delete_connector(self.principal, self.ports, tenant_id, connector_id)
        except MatihError as error:
            log.warning("connector_left_behind", connector=connector_id, code=error.code)

    def _connected(
        self, known: Conversation, template: Template, secrets: Mapping[str, SecretStr]
    ) -> Connector:
        tenant_id = self.principal.tenant_id
        fields, credentials = draft_parts(known.fields, secrets, template)
        change = ConnectorChange.from_json(fields)
        change = change.model_copy(update={"credentials": credentials if secrets else None})
        if known.connector_id is not None:
            return connectors.update_connector(
                self.principal, self.ports, self.calls, tenant_id, known.connector_id, change
            )
        chosen = known.fields.get("name")
        for number in range(1, NAME_ATTEMPTS + 1):
            name = chosen or default_name(template, known.fields, number)
            draft = ConnectorDraft.from_json({**fields, "name": name, "type": template.type})
            draft = draft.model_copy(update={"credentials": credentials})
            key = f"agent:{self.session_id}:{known.attempt}:{name}"
            if (made := self._made_before(key)) is not None:
                return connectors.update_connector(
                    self.principal, self.ports, self.calls, tenant_id, made, change
                )
            try:
                return connectors.create_connector(
                    self.principal, self.ports, self.calls, tenant_id, draft, key
                )
            except ConflictError as error:
                is_taken = error.context.get("field") == "name"
                if chosen or not is_taken or number == NAME_ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    def _made_before(self, key: str) -> EndpointId | None:
        """The connector that an earlier try saved, without coming to tell so."""
        tenant_id = self.principal.tenant_id
        claim = claim_of(self.ports, tenant_id, "connector", key)
        if claim is None:
            return None
        try:
            made = self.ports.metadata.get_endpoint(tenant_id, EndpointId(claim.resource_id))
        except NotFoundError:
            if self.is_resumed:
                release(self.ports, tenant_id, "connector", key)
            return None
        return made.endpoint_id

    def _discovered(self, connector_id: EndpointId, *, is_new: bool) -> Event:
        tenant_id = self.principal.tenant_id
        if is_new:
            connectors.discover_connector(
                self.principal, self.ports, self.calls, tenant_id, connector_id
            )
        deadline = time.monotonic() + DISCOVERY_WAIT_S
        while True:
            known = connectors.get_connector(self.principal, self.ports, tenant_id, connector_id)
            discovery = known.state.discovery
            if not is_running(discovery, self.ports):
                break
            if time.monotonic() > deadline:
                return Pending()
            time.sleep(POLL_EVERY_S)
        if discovery is None or discovery.state is not DiscoveryState.COMPLETED:
            why = (
                discovery.error.message
                if discovery and discovery.error
                else sentences.DISCOVERY_CANCELLED
            )
            return Failed(why)
        streams = self._streams(connector_id)
        total = max(discovery.tables or 0, len(streams))
        return Discovered(tuple(streams), total, discovery.skipped, self._sinks())

    def _sinks(self) -> tuple[Destination, ...]:
        known = ingestion_sinks.list_sinks(self.principal, self.ports, self.principal.tenant_id)
        return tuple(Destination(sink_id=s.sink_id, name=s.name) for s in known[:MAX_SINKS])

    def _streams(self, connector_id: EndpointId) -> list[Stream]:
        found: list[Stream] = []
        while len(found) < MAX_STREAMS:
            page = catalog.list_units(
                self.principal,
                self.ports,
                self.principal.tenant_id,
                connector_id,
                pattern=None,
                offset=len(found),
                limit=min(MAX_PAGE_ITEMS, MAX_STREAMS - len(found)),
            )
            found += [stream_of(unit) for unit in page.items]
            if not page.has_more or not page.items:
                break
        return found

    def _started(self, known: Conversation, stream: Stream, before: Outcome | None) -> Outcome:
        outcome = before or Outcome(unit_id=stream.unit_id)
        outcome = outcome.model_copy(update={"problem": None})
        choice = known.choice(stream)
        load = LoadRequest(
            endpoint_id=_connector_id(known),
            unit_id=stream.unit_id,
            sink_id=DEFAULT_SINK if known.sink is None else known.sink.sink_id,
            policy=_policy(choice),
        )
        try:
            self._configure(load)
            if outcome.run_id is None:
                run_id = self._run(known, load)
                link = f"/api/v1/tenants/{quote(self.principal.tenant_id, safe='')}/runs/{run_id}"
                outcome = outcome.model_copy(update={"run_id": run_id, "link": link})
            if known.timing is not None and outcome.schedule_id is None:
                outcome = outcome.model_copy(update={"schedule_id": self._schedule(known, load)})
        except MatihError as error:
            event = failure_of(error)
            problem = event.message if isinstance(event, Failed) else sentences.FORBIDDEN
            outcome = outcome.model_copy(update={"problem": problem})
        return outcome

    def _configure(self, load: LoadRequest) -> None:
        """Runs that others start of this unit go the same way."""
        unit_configurations.configure_unit(
            self.principal,
            self.ports,
            self.principal.tenant_id,
            load.endpoint_id,
            load.unit_id,
            unit_configurations.UnitChange(sink_id=load.sink_id, policy=load.policy),
        )

    def _run(self, known: Conversation, load: LoadRequest) -> str:
        key = f"agent:{self.session_id}:{known.attempt}:{load.endpoint_id}:{load.unit_id}"
        run = runs.start_run(
            self.principal, self.ports, self.principal.tenant_id, load, idempotency_key=key
        )
        return run.run_id

    def _schedule(self, known: Conversation, load: LoadRequest) -> str:
        assert known.timing is not None  # noqa: S101 asked before
        tenant_id = self.principal.tenant_id
        there = schedules.list_schedules(
            self.principal,
            self.ports,
            tenant_id,
            endpoint_id=load.endpoint_id,
            offset=0,
            limit=MAX_PAGE_ITEMS,
        )
        for schedule in there.items:
            if schedule.unit_id == load.unit_id:
                return schedule.schedule_id
        draft = schedules.ScheduleDraft(
            endpoint_id=load.endpoint_id,
            unit_id=load.unit_id,
            sink_id=load.sink_id or DEFAULT_SINK,
            policy=load.policy or IngestionPolicy(),
            timing=known.timing,
        )
        return schedules.create_schedule(self.principal, self.ports, tenant_id, draft).schedule_id


def _policy(choice: SyncChoice) -> IngestionPolicy:
    return IngestionPolicy(
        run_mode=choice.run_mode,
        cursor_column=choice.cursor_column,
        write_mode=WriteMode.MERGE if choice.merge_key else None,
        key_columns=choice.merge_key,
    )


def failure_of(error: MatihError) -> Event:
    """What a user is told of an error; what is the operator's business goes to the log."""
    if type(error) is ForbiddenError:
        return Forbidden()
    if isinstance(error, (StateError, ConfigurationError)) or type(error) is MatihError:
        log.error("agent_effect_failed", code=error.code, message=error.message)
        return Failed(sentences.BROKEN)
    return Failed(error.message)


def draft_parts(
    fields: Mapping[str, str], secrets: Mapping[str, SecretStr], template: Template
) -> tuple[dict[str, JsonValue], dict[str, SecretStr]]:
    """Settings and credentials of a connector, in their JSON form."""
    settings: dict[str, JsonValue] = {}
    metadata: dict[str, JsonValue] = {}
    credentials: dict[str, SecretStr] = {}
    for field in template.fields:
        if field.name in secrets:
            credentials[field.wire] = secrets[field.name]
        value = fields.get(field.name)
        if value is None or field.name == "name":
            continue
        if field.place == "credentials":
            credentials[field.wire] = SecretStr(value)
        elif field.place == "metadata":
            metadata[field.wire] = _json(value) if field.kind == "json" else value
        else:
            settings[field.wire] = int(value) if field.kind == "port" else value
    if metadata:
        settings["metadata"] = metadata
    return settings, credentials


def default_name(template: Template, fields: Mapping[str, str], number: int) -> str:
    """A connector's name when the user gave none."""
    what = next((fields[n] for n in ("database", "bucket", "host", "account") if n in fields), "")
    words = f"{template.type.lower()}-{what}" if what else template.type.lower()
    plain = re.sub(r"[^\w.-]+", "-", words).strip("-.")[:80]
    return plain if number == 1 else f"{plain}-{number}"


def _json(text: str) -> JsonValue:
    try:
        parsed: JsonValue = json.loads(text)
    except ValueError:
        return text
    return parsed


def _connector_id(known: Conversation) -> EndpointId:
    if known.connector_id is None:
        raise NotFoundError("there is no connector yet")
    return known.connector_id
