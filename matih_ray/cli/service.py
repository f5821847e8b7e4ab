"""`matih token` and `matih health`: getting in, and whether there is something to get into."""

from __future__ import annotations

import getpass
from datetime import datetime, timezone
from typing import Annotated

import typer

from matih_ray.cli.failures import EXIT_ENVIRONMENT, CliError
from matih_ray.cli.options import JsonOption, client_of
from matih_ray.cli.output import Output

MAX_LIFETIME_S = 30 * 24 * 3600


def token(
    tenant: Annotated[str, typer.Option(help="Tenant that the token is for.")] = "default",
    role: Annotated[
        list[str] | None, typer.Option(help="Role; repeat it for several [default: ROLE_ADMIN].")
    ] = None,
    subject: Annotated[
        str | None, typer.Option(help="Who holds it [default: you].", show_default=False)
    ] = None,
    lifetime_s: Annotated[
        int, typer.Option(min=60, max=MAX_LIFETIME_S, help="Seconds until it expires.")
    ] = 12 * 3600,
) -> None:
    """Make a token for a runtime on this machine.

    Signs with MATIH_JWT_SECRET or the key file below MATIH_HOME, so only who can read that key can
    make tokens. Prints the token and nothing else: export MATIH_TOKEN="$(matih token)"
    """
    # not at the top: no other command needs them, and they load the runtime's own packages
    from matih_ray.api.tokens import open_tokens
    from matih_ray.control.authorization import Principal, Role
    from matih_ray.errors import ConfigurationError
    from matih_ray.model.ids import TenantId
    from matih_ray.settings import Settings

    known = {each.value: each for each in Role}
    wanted = role or [Role.ADMIN.value]
    for name in wanted:
        if name not in known:
            raise typer.BadParameter(f"{name} is none of {', '.join(known)}", param_hint="--role")
    roles = frozenset(known[name] for name in wanted)
    principal = Principal(subject or getpass.getuser(), TenantId(tenant), roles)
    try:
        tokens = open_tokens(Settings(), create_key=False)
        token = tokens.issue(principal, datetime.now(timezone.utc), lifetime_s)
    except ConfigurationError as error:
        raise CliError(error.message, EXIT_ENVIRONMENT) from None
    typer.echo(token)


def health(context: typer.Context, *, as_json: JsonOption = False) -> None:
    """Tell whether the control API answers and can reach its stores."""
    answer = client_of(context).health()
    output = Output(as_json=as_json)
    if output.as_json:
        output.document(answer)
    else:
        output.line(answer.status)
