"""Conversations as docs/agent-transcript.md shows them: what is said by the real machine, what
sources answer by these scripts. `python -m tests.agent.transcript` writes the page anew."""

from __future__ import annotations

from pathlib import Path

from matih_ray.agent.conversation import Conversation, Outcome, Stream, SyncChoice
from matih_ray.agent.events import (
    Connect,
    Connected,
    Discover,
    Discovered,
    Event,
    Execute,
    Executed,
    Failed,
    Forbidden,
    Opened,
    Said,
)
from matih_ray.agent.machine import advance
from matih_ray.agent.redaction import redact_message
from matih_ray.agent.sentences import REASON_KEY_ONLY, reason_changed
from matih_ray.agent.steps import Templates
from matih_ray.agent.templates import BUILT_IN
from matih_ray.model.ids import EndpointId, UnitId
from matih_ray.model.policy import RunMode
from matih_ray.telemetry import REDACTED

PAGE = Path(__file__).parents[2] / "docs" / "agent-transcript.md"
LOGIN = "postgres at db.acme.com port 5433, database sales, user bob, password s3cret!"
ORDERS = Stream(
    unit_id="public.orders",
    name="orders",
    rows=1_200_000,
    bytes=96_000_000,
    columns=("id", "updated_at"),
    key=("id",),
    suggested=SyncChoice(
        run_mode=RunMode.INCREMENTAL, cursor_column="updated_at", merge_key=("id",)
    ),
    reason=reason_changed("updated_at", merged=True),
)
CUSTOMERS = Stream(
    unit_id="public.customers", name="customers", rows=40_000, columns=("id",), key=("id",),
    reason=REASON_KEY_ONLY,
)  # fmt: skip
AUDIT = Stream(
    unit_id="public.audit_log", name="audit_log", rows=9_000_000, columns=("id",), key=("id",),
    reason=REASON_KEY_ONLY,
)  # fmt: skip
CONNECTED = Connected(EndpointId("c1"), "postgresql-sales", "PostgreSQL 16.4")
FOUND = Discovered((AUDIT, CUSTOMERS, ORDERS), 3)
STARTED = Executed(
    (
        Outcome(unit_id="public.customers", run_id="4f1c"),
        Outcome(unit_id="public.orders", run_id="a07e"),
    )
)
PARTIAL = Executed(
    (
        Outcome(unit_id="public.customers", run_id="4f1c", schedule_id="51"),
        Outcome(unit_id="public.orders", problem="the metadata store does not answer"),
    )
)
WHOLE = Executed(
    (
        Outcome(unit_id="public.customers", run_id="4f1c", schedule_id="51"),
        Outcome(unit_id="public.orders", run_id="a07e", schedule_id="52"),
    )
)

# Those that are written down: derived ones come and go with what is installed.
TEMPLATES = Templates(BUILT_IN, {})

# Title, what the user says, and what sources and stores answer, in order.
S3_KEYS = """[default]
aws_access_key_id = AKIAIOSFODNN7EXAMPLE
aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"""
EVENTS = Discovered((Stream(unit_id=UnitId("events"), name="events"),), 1)
REFUSED = Failed("the server refuses connections on port 5432; is the port right?")
CONVERSATIONS: list[tuple[str, list[str], list[Event]]] = [
    ("The shortest", [LOGIN, "all but audit*", "ok", "go"], [CONNECTED, FOUND, STARTED]),
    (
        "Step by step, with a mistake",
        ["postgres", "help", "db.acme.com", "five", "5432", "sales", "bob", "s3cret!",
         "change port to 5433", "orders, customers", "customers incremental by id",
         "every night at 2 Europe/Berlin", "ok", "drop customers", "back", "1-3",
         "ok", "cancel"],
        [REFUSED, CONNECTED, FOUND],
    ),
    (
        "Something fails, and is tried again",
        [LOGIN, "customers, orders", "hourly", "ok", "go", "retry", "retry"],
        [CONNECTED, FOUND, PARTIAL, WHOLE],
    ),
    ("Nothing is found", [LOGIN, "retry"], [CONNECTED, Discovered((), 0, 2), FOUND]),
    ("Not permitted", [LOGIN], [Forbidden()]),
    (
        "Amazon S3, with pasted keys",
        ["s3", S3_KEYS, "bucket acme-lake in eu-central-1"],
        [Connected(EndpointId("c2"), "s3-acme-lake"), EVENTS],
    ),
    (
        "What is not understood",
        ["fax", "mysql", "hunter2!", "start over", "back", "cancel", "start"],
        [],
    ),
]  # fmt: skip


def page() -> str:
    """The page."""
    lines = [
        "# What conversations look like",
        "",
        "Written by `python -m tests.agent.transcript`: the sentences are the program's, the",
        "answers of sources are made up. Behind `>` is what the user says, as it is kept.",
    ]
    for title, said, answers in CONVERSATIONS:
        lines += ["", f"## {title}", "", "```text", *_conversation(said, list(answers)), "```"]
    return "\n".join(lines) + "\n"


def _conversation(said: list[str], answers: list[Event]) -> list[str]:
    step = advance(Conversation(), Opened(), TEMPLATES)
    lines = list(step.said)
    for text in said:
        step = advance(step.conversation, Said(text), TEMPLATES)
        kept = REDACTED if step.is_hidden else redact_message(text, step.secrets)
        lines += ["", *(f"> {line}" for line in kept.split("\n")), *_shown(step.said)]
        waiting = list(step.effects)
        while waiting:
            if isinstance(waiting.pop(0), (Connect, Discover, Execute)):
                step = advance(step.conversation, answers.pop(0), TEMPLATES)
                lines += _shown(step.said)
                waiting += step.effects
    assert not answers
    return lines


def _shown(said: tuple[str, ...]) -> list[str]:
    return [line for sentence in said for line in sentence.split("\n")]


if __name__ == "__main__":
    PAGE.write_text(page())
