"""How well messages are understood: labelled ones, and how many of their slots come out right.

`python -m tests.agent.test_corpus` prints the report with every message that is not understood.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from functools import cache
from pathlib import Path

from matih_ray.agent.choosing import select_streams
from matih_ray.agent.commands import command_in
from matih_ray.agent.gathering import type_in
from matih_ray.agent.reading import read_fields
from matih_ray.agent.redaction import redact_message
from matih_ray.agent.steps import Templates
from matih_ray.agent.templates import BUILT_IN, Template, derived
from matih_ray.agent.timing import read_timing
from matih_ray.control.connector_types import ConnectorType
from matih_ray.registry import load_registry

CORPUS = Path(__file__).with_name("corpus.jsonl")
MIN_MESSAGES = 400
MIN_SHARE = 0.98
STREAMS = [
    "public.audit_log", "public.audit_trail", "public.customers", "public.order_items",
    "public.orders", "sales.leads", "sales.orders",
]  # fmt: skip


def rows() -> list[dict]:
    return [json.loads(line) for line in CORPUS.read_text().splitlines()]


@cache
def templates() -> Templates:
    registry = load_registry()
    found: list[Template] = list(BUILT_IN)
    for name in registry.names("sources"):
        if all(template.type != name for template in BUILT_IN):
            plugin = registry.resolve("sources", name)
            found.append(
                derived(
                    ConnectorType(
                        name, "sources", plugin.config_model, plugin.secret_fields, plugin.vendor
                    )
                )
            )
    return Templates(tuple(found), {})


def outcome(row: dict) -> tuple[dict, dict]:
    """What is expected of a message and what was understood, slot by slot."""
    text = row["text"]
    match row["kind"]:
        case "fields":
            template = templates().of(row["type"])
            reading = read_fields(text, template, row.get("missing", ()), row.get("asked"))
            secrets = {name: value.get_secret_value() for name, value in reading.secrets.items()}
            return row["slots"], {**reading.fields, **secrets}
        case "type":
            template = type_in(text, templates())
            return {"type": row["type"]}, {"type": template and template.type}
        case "streams":
            selection = select_streams(text, STREAMS)
            return (
                {"chosen": row["chosen"], "unknown": row["unknown"]},
                {
                    "chosen": [STREAMS[p] for p in selection.positions],
                    "unknown": len(selection.unknown),
                },
            )
        case "timing":
            understood = read_timing(text)
            timing = understood and understood.timing
            found = {
                "cron": timing and timing.cron,
                "every_s": timing and timing.every_s,
                "once": understood is not None and timing is None,
                "zone": timing.time_zone if timing and timing.cron else None,
            }
            return {name: row.get(name, False if name == "once" else None) for name in found}, found
        case _:
            command = command_in(text)
            return {"command": row["command"]}, {"command": command and command.value}


def report() -> tuple[Counter, Counter, list[str]]:
    """Right slots and all slots by kind, and what was misunderstood."""
    right, total, wrong = Counter(), Counter(), []
    for row in rows():
        expected, found = outcome(row)
        for name in expected.keys() | found.keys() or {"nothing"}:
            total[row["kind"]] += 1
            is_right = expected.get(name) == found.get(name)
            right[row["kind"]] += is_right
            if not is_right:
                wrong.append(
                    f"{row['text']!r}: {name} is {found.get(name)!r}, not {expected.get(name)!r}"
                )
    return right, total, wrong


def test_nearly_all_slots_of_the_corpus_are_right():
    right, total, wrong = report()
    assert len(rows()) >= MIN_MESSAGES
    for kind in total:
        assert right[kind] / total[kind] >= MIN_SHARE, (kind, wrong)


def test_a_secret_never_gets_into_another_field():
    for row in rows():
        if row["kind"] != "fields":
            continue
        template = templates().of(row["type"])
        secret = {
            value
            for name, value in row["slots"].items()
            if (field := template.field(name)) and field.is_secret
        }
        reading = read_fields(row["text"], template, row.get("missing", ()), row.get("asked"))
        plain = {name: v for name, v in row["slots"].items() if v not in secret}
        for name, value in reading.fields.items():
            if plain.get(name) != value:
                assert not any(s in value or value in s for s in secret), row


def test_no_secret_of_the_corpus_outlives_redaction():
    for row in rows():
        if row["kind"] != "fields":
            continue
        template = templates().of(row["type"])
        reading = read_fields(row["text"], template, row.get("missing", ()), row.get("asked"))
        found = [value.get_secret_value() for value in reading.secrets.values()]
        kept = redact_message(row["text"], found)
        for name, value in row["slots"].items():
            field = template.field(name)
            if field and field.is_secret and value != "user":  # a word of the message, too
                assert value not in kept, row


if __name__ == "__main__":
    right, total, wrong = report()
    lines = [f"{kind}: {right[kind]} of {total[kind]} slots right" for kind in total]
    sys.stdout.write("\n".join([f"{len(rows())} messages", *lines, *wrong]) + "\n")
