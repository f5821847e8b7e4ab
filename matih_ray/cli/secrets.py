"""Secrets for a command: from the environment or a hidden prompt, never from arguments.

Arguments can be read by other users of the machine, and stay in the shell's history.
"""

from __future__ import annotations

import os
import re
import sys

import typer

from matih_ray.cli.client import ControlClient
from matih_ray.cli.failures import EXIT_CALLER, EXIT_ENVIRONMENT, CliError
from matih_ray.model.value import JsonValue

SECRET_PREFIX = "MATIH_SECRET_"  # noqa: S105 the name of a variable


def asked_secrets(client: ControlClient, type_: str, *, ask: bool) -> dict[str, JsonValue]:
    """The secrets of a connector type that the environment has or a person gives.

    Raises:
        CliError: No such type, or its driver is not installed.
    """
    secrets: dict[str, JsonValue] = {}
    for field in _secret_fields(client, type_):
        secret = asked_secret(field, ask=ask)
        if secret:
            secrets[field] = secret
    return secrets


def _secret_fields(client: ControlClient, type_: str) -> tuple[str, ...]:
    for kind in ("sources", "sinks"):
        for plugin in client.plugins(kind):
            if plugin.name != type_:
                continue
            if not plugin.available:
                raise CliError(plugin.needs or f"{type_} is not available", EXIT_ENVIRONMENT)
            return plugin.secret_fields
    raise CliError(f"the control API knows no connector type {type_!r}", EXIT_CALLER)


def asked_secret(field: str, *, ask: bool) -> str | None:
    """One secret from `MATIH_SECRET_<FIELD>`, or from a person at a terminal if `ask`."""
    variable = SECRET_PREFIX + re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", field).upper()
    if variable in os.environ:
        return os.environ[variable]
    if ask and sys.stdin.isatty():
        answer: str = typer.prompt(
            f"{field} (hidden, empty for none)",
            default="",
            hide_input=True,
            show_default=False,
            err=True,
        )
        return answer
    return None
