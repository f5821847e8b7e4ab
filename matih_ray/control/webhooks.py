"""A tenant's webhook: set, shown, tried, removed.

The URL is kept with the credentials, because those of many services hold a token; so is the key
that requests are signed with. What is shown is in the key-value store.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from contextlib import suppress
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, SecretStr

from matih_ray.control.authorization import Action, Principal, authorize
from matih_ray.control.ports import Ports
from matih_ray.control.webhook_delivery import CREDENTIALS, KEY, SECRET_PREFIX, known, send_test
from matih_ray.errors import DnsResolutionError, NotFoundError, ValidationError
from matih_ray.model.ids import TenantId
from matih_ray.model.value import Value
from matih_ray.model.webhook import Webhook, WebhookAttempt
from matih_ray.sources.host_policy import HostPolicy

MAX_URL_CHARS = 2048
# What the Standard Webhooks specification allows for a key, in bytes.
MIN_KEY_BYTES, MAX_KEY_BYTES = 24, 64


class WebhookDraft(Value):
    """Where to send notifications. Without a `secret` one is made and shown once."""

    url: Annotated[SecretStr, Field(description="http:// or https://; never shown again")]
    secret: Annotated[
        SecretStr | None,
        Field(description=f"Signing key: {SECRET_PREFIX} and 24 to 64 bytes in base64"),
    ] = None


class WebhookCreated(Webhook):
    """A new webhook; `secret` is the signing key that was made, which is not shown again."""

    secret: str | None = None


def set_webhook(
    principal: Principal, ports: Ports, tenant_id: TenantId, draft: WebhookDraft
) -> WebhookCreated:
    """Send the tenant's notifications from now on to this URL, in place of an earlier one.

    Raises:
        ValidationError: URL or key are malformed, or the host is not known.
        HostNotAllowedError: The operator does not allow requests to where it points.
    """
    authorize(principal, Action.CONNECT, tenant_id)
    url = _checked_url(draft.url.get_secret_value())
    try:
        HostPolicy.of(ports.settings).resolve_allowed(str(url.hostname), url.port or 443)
    except DnsResolutionError as error:  # of the caller's making, not of a source's
        raise ValidationError(error.message, field="url") from None
    made = None if draft.secret is not None else _new_key()
    key = made if draft.secret is None else _checked_key(draft.secret.get_secret_value())
    ports.credentials.put(tenant_id, CREDENTIALS, {"url": url.geturl(), "secret": str(key)})
    webhook = Webhook(host=str(url.hostname), created_at=ports.clock())
    found = ports.kv.get(tenant_id, KEY)
    version = 0 if found is None else found.version
    ports.kv.compare_and_set(tenant_id, KEY, webhook.to_dict(), version)
    return WebhookCreated(host=webhook.host, created_at=webhook.created_at, secret=made)


def get_webhook(principal: Principal, ports: Ports, tenant_id: TenantId) -> Webhook:
    """The tenant's webhook and how its last delivery went. Raises `NotFoundError`."""
    authorize(principal, Action.READ, tenant_id)
    found = known(ports, tenant_id)
    if found is None:
        raise NotFoundError("the tenant has no webhook")
    return found[0]


def delete_webhook(principal: Principal, ports: Ports, tenant_id: TenantId) -> None:
    """Send notifications nowhere; what was not delivered yet is not sent any more."""
    authorize(principal, Action.CONNECT, tenant_id)
    get_webhook(principal, ports, tenant_id)
    with suppress(NotFoundError):
        ports.credentials.delete(tenant_id, CREDENTIALS)
    ports.kv.delete(tenant_id, KEY)


def try_webhook(principal: Principal, ports: Ports, tenant_id: TenantId) -> WebhookAttempt:
    """Send a request of type `webhook.test` now; a failure is an outcome and not an error.

    Raises:
        NotFoundError: The tenant has no webhook.
    """
    authorize(principal, Action.CONNECT, tenant_id)
    get_webhook(principal, ports, tenant_id)
    return send_test(ports, tenant_id)


def _checked_url(text: str) -> SplitResult:
    problem = None
    try:
        url = urlsplit(text)
        port_is_wrong = url.port == 0
    except ValueError:  # brackets, or a port that is no number
        url, port_is_wrong = urlsplit(""), True
    if url.scheme not in ("http", "https") or not url.hostname or port_is_wrong:
        problem = "must be an http:// or https:// URL"
    elif url.username is not None or url.password is not None:
        problem = "must not hold a login; requests are signed instead"
    elif len(text) > MAX_URL_CHARS or not text.isprintable() or " " in text:
        problem = f"must have at most {MAX_URL_CHARS} printable characters"
    if problem is not None:
        raise ValidationError(f"the webhook's URL {problem}", field="url")
    return url


def _checked_key(text: str) -> str:
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(SECRET_PREFIX) or not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        raise ValidationError(
            f"the webhook's secret must be {SECRET_PREFIX} followed by {MIN_KEY_BYTES} to "
            f"{MAX_KEY_BYTES} bytes in base64; leave it out and one is made",
            field="secret",
        )
    return text


def _new_key() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
