"""`matih notifications …`: what a tenant's admins should know, and where else it is sent."""

from __future__ import annotations

import typer

from matih_ray.cli.failures import EXIT_CALLER, EXIT_NO, CliError
from matih_ray.cli.options import JsonOption, YesOption, client_of, confirm
from matih_ray.cli.output import Output, note
from matih_ray.cli.secrets import asked_secret
from matih_ray.model.value import JsonValue

app = typer.Typer(
    no_args_is_help=True,
    help="Notifications, and the webhook they are sent to.",
    rich_markup_mode=None,
)


@app.command("list")
def list_(context: typer.Context, *, as_json: JsonOption = False) -> None:
    """List notifications, newest first."""
    found = list(client_of(context).notifications())
    output = Output(as_json=as_json)
    if output.as_json:
        output.document([notification.to_dict() for notification in found])
        return
    output.table(
        ("TIME", "KIND", "MESSAGE"), [(n.created_at, n.kind.value, n.message) for n in found]
    )


@app.command("webhook")
def webhook(context: typer.Context, *, as_json: JsonOption = False) -> None:
    """Show the webhook and how its last delivery went; never its URL."""
    found = client_of(context).webhook()
    output = Output(as_json=as_json)
    if output.as_json:
        output.document(found)
        return
    output.facts(
        [
            ("host", found.host),
            ("since", found.created_at),
            ("last attempt", found.last_attempt_at),
            ("status", found.last_status),
            ("error", found.last_error),
        ]
    )


@app.command("set-webhook")
def set_webhook(context: typer.Context, *, as_json: JsonOption = False) -> None:
    """Send notifications to a URL from now on.

    The URL may hold a token, so it is never an argument: it is taken from MATIH_SECRET_URL, or
    asked for on a terminal. The signing key comes from MATIH_SECRET_SECRET; without one it is made
    and shown once.
    """
    url = asked_secret("url", ask=True)
    if not url:
        raise CliError("set MATIH_SECRET_URL to the webhook's URL", EXIT_CALLER)
    draft: dict[str, JsonValue] = {"url": url}
    secret = asked_secret("secret", ask=False)
    if secret:
        draft["secret"] = secret
    created = client_of(context).set_webhook(draft)
    output = Output(as_json=as_json)
    if output.as_json:
        output.document(created)
        return
    output.line(f"notifications go to {created.host}")
    if created.secret is not None:
        note("signing key, shown this once:")
        output.line(created.secret)


@app.command("test-webhook")
def try_webhook(context: typer.Context, *, as_json: JsonOption = False) -> None:
    """Send a request to the webhook now; exit code 1 when that fails."""
    attempt = client_of(context).try_webhook()
    output = Output(as_json=as_json)
    if output.as_json:
        output.document(attempt)
    else:
        output.line(f"{'ok' if attempt.success else 'failed'}: {attempt.message}")
    if not attempt.success:
        raise typer.Exit(EXIT_NO)


@app.command("remove-webhook")
def remove_webhook(context: typer.Context, *, yes: YesOption = False) -> None:
    """Send notifications nowhere any more."""
    confirm("Remove the webhook?", yes=yes)
    client_of(context).delete_webhook()
    Output(as_json=False).line("removed the webhook")
