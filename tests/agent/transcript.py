"""Conversations as examples/conversations.md shows them: what is said by the real machine, what
sources answer by these scripts. `python -m tests.agent.transcript` writes the page anew."""

from __future__ import annotations

import re
from pathlib import Path

from matih_ray.agent import sentences
from matih_ray.agent.conversation import (
    Conversation,
    Destination,
    Outcome,
    Stream,
    SyncChoice,
)
from matih_ray.agent.events import (
    CheckHost,
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
    Pending,
    Said,
    Unresolved,
)
from matih_ray.agent.machine import advance
from matih_ray.agent.redaction import redact_message
from matih_ray.agent.sentences import REASON_KEY_ONLY, REASON_NO_CURSOR, reason_changed
from matih_ray.agent.steps import Templates
from matih_ray.agent.templates import BUILT_IN, POSTGRESQL, S3, SNOWFLAKE, Template
from matih_ray.model.ids import EndpointId, SinkId, UnitId
from matih_ray.model.policy import RunMode
from matih_ray.telemetry import REDACTED

PAGE = Path(__file__).parents[2] / "examples" / "conversations.md"
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
CONNECTED = Connected(EndpointId("c1"), "postgresql-sales", "PostgreSQL 16.4", keeps_changes=True)
SINKS = (
    Destination(sink_id=SinkId("iceberg"), name="iceberg"),
    Destination(sink_id=SinkId("raw"), name="raw"),
)
FOUND = Discovered((AUDIT, CUSTOMERS, ORDERS), 3, sinks=SINKS)
EVENTS_TABLE = Stream(
    unit_id="public.events", name="events", rows=1, bytes=3 << 40, columns=("updated_at",),
    suggested=SyncChoice(run_mode=RunMode.INCREMENTAL, cursor_column="updated_at"),
    reason=reason_changed("updated_at", merged=False),
)  # fmt: skip
NOTES = Stream(unit_id="public.notes", name="notes", reason=REASON_NO_CURSOR)
PARTITIONS = tuple(Stream(unit_id=UnitId(f"public.p{n}"), name=f"p{n}") for n in range(1, 43))
MANY = Discovered((EVENTS_TABLE, NOTES, *PARTITIONS), 1044)
ONE = Discovered((EVENTS_TABLE,), 1)
RUNS = "/api/v1/tenants/acme/runs"
STARTED = Executed(
    (
        Outcome(unit_id="public.customers", run_id="4f1c", link=f"{RUNS}/4f1c"),
        Outcome(unit_id="public.orders", run_id="a07e", link=f"{RUNS}/a07e"),
    )
)
PARTIAL = Executed(
    (
        Outcome(unit_id="public.customers", run_id="4f1c", link=f"{RUNS}/4f1c", schedule_id="51"),
        Outcome(unit_id="public.orders", problem="the metadata store does not answer"),
    )
)
WHOLE = Executed(
    (
        Outcome(unit_id="public.customers", run_id="4f1c", link=f"{RUNS}/4f1c", schedule_id="51"),
        Outcome(unit_id="public.orders", run_id="a07e", link=f"{RUNS}/a07e", schedule_id="52"),
    )
)

# Those that are written down: derived ones come and go with what is installed.
TEMPLATES = Templates(BUILT_IN, {})

KAFKA = Template("KAFKA", "Kafka", ())

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
        ["s3", S3_KEYS, "bucket acme-lake in eu-central-1", "all", "events cdc"],
        [Connected(EndpointId("c2"), "s3-acme-lake"), EVENTS],
    ),
    (
        "Many streams, loaded in other ways",
        [LOGIN, "help", "all", "help", "events cdc", "events incremental by nothing",
         "something else", "every second", "at 6 in the afternoon on mondays", "every 15 minutes",
         "destination: tape", "destination: raw", "ok", "help", "hm", "load into iceberg",
         "drop all", "drop nothing_like_it", "ok", "go", "continue", "help", "thanks", "cancel",
         "cancel"],
        [CONNECTED, MANY, Pending(), Executed((
            Outcome(unit_id="public.events", run_id="77aa", link=f"{RUNS}/77aa", schedule_id="61"),
        ))],
    ),
    (
        "One stream, and a slow source",
        [LOGIN, "continue", "help", "continue", "continue", "once", "back", "show",
         "back", "retry"],
        [Pending(), CONNECTED, Pending(), ONE, CONNECTED, Failed("the server has gone away.")],
    ),
    (
        "Values that cannot be",
        ["postgres", "host: db.acme.cmo", "host: db acme", "port: 99999", "sslmode: perhaps",
         "something in between", f"password: {'x' * 5000}", "start over", "s3", "region: Moon!",
         "x" * 20_000],
        [Unresolved("the host db.acme.cmo is not known here; check its spelling")],
    ),
    (
        "Another type, or none",
        ["help", "show", "snowflake",
         "account acme-1, warehouse w, database d, schema s, role r, user bob, password s3cret!",
         "back", "back", "mysql", "mysql://bob:s3cret!@db.acme.com/shop", "retry", "cancel",
         "help"],
        [Failed("the account acme-1 is not known here"), Connected(EndpointId("c3"), "mysql-shop"),
         Discovered((), 0), Discovered((), 0)],
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
    lines += ["", "## What is said beside that", ""]
    lines += [f"- {sentence}" for sentence in _others()]
    return "\n".join(lines) + "\n"


def _others() -> list[str]:
    """What the server says while something lasts, and where there is no conversation to go on."""
    kinds = ("connect", "discover", "execute", "drop")
    working = [sentences.working(kind, "PostgreSQL", 3) for kind in kinds]
    return [
        *filter(None, working),
        sentences.not_available(POSTGRESQL, sentences.NOT_INSTALLED),
        sentences.RESUMED,
        sentences.not_connected(sentences.DISCOVERY_CANCELLED),
        sentences.BROKEN,
        sentences.NO_SESSION,
        sentences.STILL_BUSY,
        sentences.OVERTAKEN,
        sentences.full(10_000),
        *(sentences.no_streams(template, 0) for template in (SNOWFLAKE, S3, KAFKA)),
    ]


def _conversation(said: list[str], answers: list[Event]) -> list[str]:
    step = advance(Conversation(), Opened(), TEMPLATES)
    lines = list(step.said)
    for text in said:
        step = advance(step.conversation, Said(text), TEMPLATES)
        kept = REDACTED if step.is_hidden else redact_message(text, step.secrets)
        shown = kept if len(kept) < 1000 else f"{kept[:20]}… ({len(kept):,} characters)"
        lines += ["", *(f"> {line}" for line in shown.split("\n")), *_shown(step.said)]
        waiting = list(step.effects)
        while waiting:
            effect = waiting.pop(0)
            doubted = isinstance(effect, CheckHost) and "cmo" in effect.host
            if doubted or isinstance(effect, (Connect, Discover, Execute)):
                step = advance(step.conversation, answers.pop(0), TEMPLATES)
                lines += _shown(step.said)
                waiting += step.effects
    assert not answers
    return lines


def _shown(said: tuple[str, ...]) -> list[str]:
    lines = [line for sentence in said for line in sentence.split("\n")]
    # one of the many partitions is enough to see
    return [line for line in lines if not re.search(r"\bpublic\.p(?!1\b)\d", line)]


if __name__ == "__main__":
    PAGE.write_text(page())
