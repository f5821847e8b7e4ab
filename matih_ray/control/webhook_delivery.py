"""Sending notifications to webhooks, as the Standard Webhooks specification 1.0 says.

Each request carries `webhook-id`, `webhook-timestamp` and `webhook-signature`: `v1,` and the
HMAC-SHA256 of `id.timestamp.body` in base64. Deliveries are at least once; the id stays the same.
Requests go to addresses that the host policy allows, redirects are not followed, and of an answer
only the status is looked at: a webhook must not be a way to read what is inside the network.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta

import httpx

from matih_ray.control.ports import Ports
from matih_ray.errors import MatihError, NotFoundError, StateConflictError
from matih_ray.model.ids import TenantId
from matih_ray.model.value import JsonValue
from matih_ray.model.webhook import Webhook, WebhookAttempt
from matih_ray.sources.guarded_http import GuardedTransport
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.state.base import Delivery

# Names in the credential store and the key-value store.
CREDENTIALS = "webhook"
KEY = "notifications::webhook"
SECRET_PREFIX = "whsec_"  # noqa: S105 a prefix, not a secret
# How long after each failed attempt the next one is; after the last it is given up. Over a day in
# all: long enough for a receiver that is repaired in the morning.
RETRY_DELAYS = tuple(
    timedelta(seconds=seconds) for seconds in (10, 60, 300, 1800, 7200, 18_000, 36_000, 36_000)
)
# Receivers are asked to answer first and work later.
TIMEOUT_S = 10.0
# Deliveries of one pass, and how many at once: a pass of dead receivers takes a minute.
PASS_DELIVERIES = 50
DELIVERIES_AT_ONCE = 8


def deliver_due(ports: Ports) -> int:
    """Send what is due once; returns how many there were."""
    due = ports.metadata.find_due_deliveries(ports.clock(), PASS_DELIVERIES)
    with ThreadPoolExecutor(DELIVERIES_AT_ONCE, thread_name_prefix="webhook") as threads:
        list(threads.map(lambda delivery: _deliver(ports, delivery), due))
    return len(due)


def send_test(ports: Ports, tenant_id: TenantId) -> WebhookAttempt:
    """Send a request that says nothing but that it arrives.

    Raises:
        NotFoundError: The tenant has no webhook.
    """
    return _send(ports, tenant_id, ports.new_id(), "webhook.test", {})


def _deliver(ports: Ports, delivery: Delivery) -> None:
    notification = delivery.notification
    event = f"connector.{notification.kind.value.removeprefix('CONNECTOR_').lower()}"
    try:
        attempt = _send(
            ports,
            notification.tenant_id,
            notification.notification_id,
            event,
            notification.to_dict(),
        )
    except NotFoundError:  # the webhook was removed meanwhile
        ports.metadata.note_delivery(delivery, None)
        return
    again = None
    if not attempt.success and delivery.attempts < len(RETRY_DELAYS):
        again = attempt.attempted_at + RETRY_DELAYS[delivery.attempts]
    ports.metadata.note_delivery(delivery, again)


def _send(
    ports: Ports,
    tenant_id: TenantId,
    message_id: str,
    event: str,
    data: Mapping[str, JsonValue],
) -> WebhookAttempt:
    stored = ports.credentials.get(tenant_id, CREDENTIALS)
    now = ports.clock()
    body = json.dumps({"type": event, "timestamp": now.isoformat(), "data": data}).encode()
    headers = signed_headers(stored["secret"], message_id, now, body)
    status, problem = _post(HostPolicy.of(ports.settings), stored["url"], body, headers)
    attempt = WebhookAttempt(
        success=problem is None,
        status=status,
        message=problem or "delivered",
        attempted_at=now,
    )
    _note(ports, tenant_id, attempt)
    return attempt


def _post(
    policy: HostPolicy, url: str, body: bytes, headers: Mapping[str, str]
) -> tuple[int | None, str | None]:
    """The answer's status, and what is wrong with it. Messages never hold the URL."""
    transport = GuardedTransport(policy)
    try:
        with (
            httpx.Client(transport=transport, timeout=TIMEOUT_S, trust_env=False) as client,
            client.stream("POST", url, content=body, headers=headers) as answer,
        ):
            status = answer.status_code
    except httpx.TimeoutException:
        return None, f"no answer within {TIMEOUT_S:g} s"
    except MatihError as error:
        return None, error.message
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return None, f"the request could not be sent ({type(error).__name__})"
    if status // 100 == 2:
        return status, None
    moved = "; give the URL that it redirects to" if status // 100 == 3 else ""
    return status, f"the receiver answered with status {status}{moved}"


def _note(ports: Ports, tenant_id: TenantId, attempt: WebhookAttempt) -> None:
    """Keep the outcome for people; another delivery's outcome does as well."""
    found = known(ports, tenant_id)
    if found is None:
        return
    webhook, version = found
    after = webhook.model_copy(
        update={
            "last_attempt_at": attempt.attempted_at,
            "last_status": attempt.status,
            "last_error": None if attempt.success else attempt.message,
        }
    )
    with suppress(StateConflictError):
        ports.kv.compare_and_set(tenant_id, KEY, after.to_dict(), version)


def known(ports: Ports, tenant_id: TenantId) -> tuple[Webhook, int] | None:
    """The tenant's webhook, if it has one, and its version."""
    found = ports.kv.get(tenant_id, KEY)
    if found is None or not isinstance(found.value, dict):
        return None
    return Webhook.from_json(found.value), found.version


def signed_headers(secret: str, message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """Headers of a signed request: Standard Webhooks 1.0, symmetric signatures."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    seconds = str(int(at.timestamp()))
    digest = hmac.new(key, f"{message_id}.{seconds}.".encode() + body, hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": seconds,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
