"""`matih chat`: the ingestion agent in a terminal. Secrets are typed unseen."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import typer

from matih_ray.cli.client import ControlClient
from matih_ray.cli.failures import CliError
from matih_ray.cli.options import client_of
from matih_ray.cli.output import clean
from matih_ray.model.value import JsonValue

# A person who types more than this is a program.
MAX_MESSAGES = 1000
_LEAVING = frozenset({"exit", "quit", "bye"})


def chat(context: typer.Context) -> None:
    """Set up a connection by talking. Ends with `exit`, or where the input ends.

    When one secret is all that is missing, it is asked for unseen. What takes a while is told on
    standard error.
    """
    client = client_of(context)
    answer = client.agent("POST", "")
    session_id = str(answer["session_id"])
    path = f"/{session_id}"
    try:
        _show(answer)
        for message in _messages(client, path):
            _show(client.say(session_id, message, _tell))
    finally:
        _end(client, path)


def _messages(client: ControlClient, path: str) -> Iterator[str]:
    for _ in range(MAX_MESSAGES):
        message = _asked(_missing_secret(client.agent("GET", path)))
        if message is None or message.strip().lower() in _LEAVING:
            return
        if message.strip():
            yield message


def _asked(secret: str | None) -> str | None:
    """What the user types; None at the end of the input."""
    is_terminal = sys.stdin.isatty()
    if secret is not None and is_terminal:
        typed: str = typer.prompt(f"{secret} (hidden)", hide_input=True, err=True)
        return f"{secret}: {typed}"
    if is_terminal:
        sys.stderr.write("> ")
        sys.stderr.flush()
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None


def _missing_secret(answer: dict[str, JsonValue]) -> str | None:
    """The one field that is missing, if it is a secret."""
    data = answer["data"]
    missing = data.get("missing_fields") if isinstance(data, dict) else None
    secret = data.get("secret_fields") if isinstance(data, dict) else None
    if isinstance(missing, list) and isinstance(secret, list) and len(missing) == 1:
        return str(missing[0]) if missing[0] in secret else None
    return None


def _show(answer: dict[str, JsonValue]) -> None:
    for line in str(answer["message"]).split("\n"):
        sys.stdout.write(clean(line) + "\n")
    sys.stdout.flush()


def _tell(progress: str) -> None:
    """What is being done, apart from what is said."""
    sys.stderr.write(clean(progress) + "\n")
    sys.stderr.flush()


def _end(client: ControlClient, path: str) -> None:
    """Let the agent forget; it does so by itself in a day if it cannot be reached now."""
    try:
        client.agent("DELETE", path)
    except CliError:
        return
