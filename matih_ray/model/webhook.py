"""A tenant's webhook: where its notifications are sent."""

from __future__ import annotations

from datetime import datetime

from matih_ray.model.value import Value


class Webhook(Value):
    """What is known about a webhook. Its URL may hold a token, so only the host is shown.

    `last_error` is None when the last attempt was answered with a status of 200 to 299.
    """

    host: str
    created_at: datetime
    last_attempt_at: datetime | None = None
    last_status: int | None = None
    last_error: str | None = None


class WebhookAttempt(Value):
    """Outcome of sending one notification. `status` is None when there was no answer."""

    success: bool
    status: int | None = None
    message: str
    attempted_at: datetime
