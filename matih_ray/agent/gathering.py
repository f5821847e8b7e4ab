"""Choosing the type and gathering its fields. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from matih_ray.agent import sentences
from matih_ray.agent.conversation import Conversation, State
from matih_ray.agent.events import CheckHost, Connect, Effect, KeepSecrets
from matih_ray.agent.reading import Reading, read_fields
from matih_ray.agent.steps import Step, Templates, moved, say, unclear
from matih_ray.agent.templates import Template, missing_fields
from matih_ray.agent.urls import URL, scheme_of

_CHANGE = re.compile(
    r"^\s*(?:no,?\s+|actually,?\s+|sorry,?\s+|oops,?\s+)*(?:please\s+)?(?:change|set|correct|fix|"
    r"update|make|use|replace|switch|rename)\s+(?:the\s+)?(?P<rest>.+)$",
    re.IGNORECASE | re.DOTALL,
)
_ACTUALLY = re.compile(
    r"^\s*(?:no|actually|sorry|oops|wait)\b[,.]?\s+(?P<rest>.+)$", re.IGNORECASE | re.DOTALL
)
_LABELLED = re.compile(r"^\s*[\w -]{2,30}?\s*[:=]\s*\S")


def type_in(text: str, templates: Templates) -> Template | None:
    """The type that a message names, by name, by alias, by URL or by its number."""
    for match in URL.finditer(text):
        for template in templates.known:
            if scheme_of(match[0]) in template.schemes:
                return template
    plain = text.strip().rstrip(".!?")
    if plain.isdecimal():
        usable = [t for t in templates.known if t.type not in templates.unavailable]
        position = int(plain) - 1 if len(plain) < 4 else -1
        return usable[position] if 0 <= position < len(usable) else None
    found: list[tuple[int, int, Template]] = []
    for template in templates.known:
        for name in (template.title, *template.aliases):
            spelled = re.escape(name.lower()).replace(r"\ ", r"[ _-]?")
            match_ = re.search(rf"(?<![\w.@/-]){spelled}(?![\w@-]|\.\w)", text.lower())
            if match_:
                found.append((match_.start(), -len(name), template))
    return min(found, key=lambda item: item[:2])[2] if found else None


def select_type(before: Conversation, text: str, templates: Templates) -> Step:
    """A message while the type is open; it may hold fields as well."""
    template = type_in(text, templates)
    if template is None:
        after = moved(before, State.SELECT_SOURCE_TYPE)
        return unclear(after, sentences.which_type(templates.titles))
    if template.type in templates.unavailable:
        why = templates.unavailable[template.type]
        after = moved(before, State.SELECT_SOURCE_TYPE)
        return say(after, sentences.not_available(template, why))
    fresh = before
    if before.type != template.type:
        fresh = before.model_copy(
            update={"type": template.type, "fields": {}, "given_secrets": (), "asked": None}
        )
    is_name_only = len(text.split()) <= len(template.title.split()) + 1 and not re.search(
        r"[:=@]", text
    )
    reading = Reading() if is_name_only else read_fields(text, template)
    return _with(fresh, reading, template, first=True)


def gather(before: Conversation, text: str, templates: Templates) -> Step:
    """A message while fields are missing."""
    template = templates.of(before.type)
    missing = [f.name for f in missing_fields(template, _known(before))]
    reading = read_fields(text, template, missing, before.asked)
    if reading.is_empty:
        other = type_in(text, templates)
        if other is not None and other.type != template.type and len(text.split()) < 8:
            return select_type(before, text, templates)
        lacking = missing_fields(template, _known(before))
        if not lacking:
            return _with(before, reading, template)
        if lacking[0].name == before.asked or len(lacking) == 1:
            said = (sentences.wrong_field(lacking[0]), sentences.still_needs(lacking))
        else:
            said = (sentences.unclear_field(lacking), sentences.still_needs(lacking))
        after = before.model_copy(update={"asked": lacking[0].name})
        hidden = any(f.is_secret for f in lacking)
        return Step(after, said, is_hidden=hidden, is_unclear=True)
    return _with(before, reading, template)


def correction(before: Conversation, text: str, templates: Templates) -> Step | None:
    """A message that corrects fields, in a state that is about something else."""
    if before.type is None:
        return None
    template = templates.of(before.type)
    match = _CHANGE.match(text) or _ACTUALLY.match(text)
    if match is None and not _LABELLED.match(text) and not URL.search(text):
        return None
    reading = read_fields(match["rest"] if match else text, template)
    if reading.is_empty:
        return None
    return _with(before, reading, template)


def _with(
    before: Conversation, reading: Reading, template: Template, *, first: bool = False
) -> Step:
    """The conversation with what was read; on to the test when nothing is missing."""
    given = (*before.given_secrets, *reading.secrets, *reading.none)
    is_changed = bool(reading.fields or reading.secrets)
    after = before.model_copy(
        update={
            "fields": {**before.fields, **reading.fields},
            "given_secrets": tuple(dict.fromkeys(given)),
            "is_connected": before.is_connected and not is_changed,
            "asked": None,
        }
    )
    effects: list[Effect] = [KeepSecrets(reading.secrets)] if reading.secrets else []
    secrets = tuple(value.get_secret_value() for value in reading.secrets.values())
    wrong = [f for name in reading.wrong if (f := template.field(name))]
    said = [sentences.wrong_field(field) for field in wrong]
    hidden = bool(wrong) and (reading.is_answer or any(f.is_secret for f in wrong))
    after, lost = _needing_secrets(before, after, reading, template)
    missing = missing_fields(template, _known(after))
    if wrong or missing:
        # what was connected stays so while other fields are looked for
        state = before.state if after.is_connected and not missing else State.GATHER_CREDENTIALS
        if missing:
            said += _asking(template, after, missing, reading, first=first, lost=lost)
        if (host := reading.fields.get("host")) and missing:
            effects.append(CheckHost(host))
        asked = None if (first and reading.is_empty) or not missing else missing[0].name
        return Step(moved(after, state, asked=asked), tuple(said), tuple(effects), secrets, hidden)
    if after.is_connected:
        return Step(after, (sentences.known_fields(template, after),), tuple(effects), secrets)
    return Step(moved(after, State.TEST_CONNECTION), (), (*effects, Connect()), secrets)


def _needing_secrets(
    before: Conversation, after: Conversation, reading: Reading, template: Template
) -> tuple[Conversation, bool]:
    """A stored connector's secrets are not here any more: one new secret, or another login, needs
    the others anew as well."""
    if before.connector_id is None or before.given_secrets != after.given_secrets:
        return after, False
    names = {f.name for f in template.fields if f.place == "credentials"}
    if not before.is_connected or not names & {*reading.fields, *reading.secrets}:
        return after, False
    kept = tuple(reading.secrets)
    others = [n for n in before.given_secrets if n not in kept]
    return after.model_copy(update={"given_secrets": kept}), bool(others)


def _asking(
    template: Template,
    after: Conversation,
    missing: Sequence[object],
    reading: Reading,
    *,
    first: bool,
    lost: bool,
) -> list[str]:
    lacking = missing_fields(template, _known(after))
    if first and reading.is_empty:
        return [sentences.needs(template)]
    noted = [f for f in template.fields if f.name in {*reading.fields, *reading.secrets}]
    del missing, lost
    return ([sentences.noted(noted)] if noted else []) + [sentences.still_needs(lacking)]


def _known(conversation: Conversation) -> tuple[str, ...]:
    return (*conversation.fields, *conversation.given_secrets)
