"""Choosing streams, how each is loaded, and when. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from matih_ray.agent import sentences
from matih_ray.agent.choosing import select_streams
from matih_ray.agent.conversation import Conversation, State, Stream, SyncChoice
from matih_ray.agent.steps import Step, moved, say, shown, unclear
from matih_ray.agent.timing import read_timing
from matih_ray.errors import ValidationError
from matih_ray.model.policy import RunMode
from matih_ray.model.unit import EndpointUnitDescriptor

# Names of columns that a row gets anew whenever it changes, most telling first.
_CHANGED = re.compile(
    r"^_?(?:updated|modified|changed|last_?(?:updated?|modified|changed?))(?:_?(?:at|on|date|time|ts))?$"
    r"|^(?:update|modification|change)_?(?:time|date|ts)$|^_file_modified_at$|^file_modified_at$",
    re.IGNORECASE,
)
_MODE = re.compile(
    r"\b(?:(?P<full>full(?: load| refresh| sync)?|complete(?:ly)?|from scratch|replace)|"
    r"(?P<log>cdc|change data capture|change log)|"
    r"(?P<inc>incremental(?:ly)?|append|only new(?: rows)?|delta))\b"
    r"(?:\s+(?:load\s+)?(?:by|on|with|using|cursor)\s+(?:the\s+)?(?:cursor\s+|column\s+)*(?P<cursor>[\w$.-]+))?",
    re.IGNORECASE,
)
_STREAMS = re.compile(
    r"^\s*(?:change\s+)?(?:the\s+)?(?:streams?|tables?)\b\s*[:=]?\s*(?:to\s+)?(?P<rest>.*)$",
    re.IGNORECASE | re.DOTALL,
)
_DROP = re.compile(
    r"^\s*(?:drop|remove|leave out|skip|exclude|without|not)\s+(?P<rest>.+)$",
    re.IGNORECASE | re.DOTALL,
)
_ADD = re.compile(r"^\s*(?:also|add|and|include|plus)\s+(?P<rest>.+)$", re.IGNORECASE | re.DOTALL)


_DESTINATION = re.compile(
    r"^\s*(?:(?:change|set|make|use)\s+)?(?:the\s+)?(?:destination|sink|target)\b\s*"
    r"(?:to\s+|is\s+|as\s+|[:=]\s*)?[`'\"]?(?P<name>[^`'\"]+?)[`'\"]?[.!]?\s*$"
    r"|^\s*(?:load|write|send|put)\s+(?:(?:it|them|everything|all|rows|the rows)\s+)?(?:in)?to\s+"
    r"(?:the\s+)?[`'\"]?(?P<other>[\w.-]+)[`'\"]?\s*$",
    re.IGNORECASE,
)


def stream_of(unit: EndpointUnitDescriptor) -> Stream:
    """What a choice needs of a unit, with a suggestion and its reason."""
    changed = next((name for name in unit.cursor_candidates if _CHANGED.match(name)), None)
    suggested, reason = SyncChoice(), sentences.REASON_NO_CURSOR
    if changed is not None:
        suggested = _incremental(changed, unit.primary_key)
        reason = sentences.reason_changed(changed, merged=bool(suggested.merge_key))
    elif unit.cursor_candidates:
        reason = sentences.REASON_KEY_ONLY
    return Stream(
        unit_id=unit.unit_id,
        name=unit.name,
        rows=unit.estimated_rows,
        bytes=unit.estimated_bytes,
        columns=unit.cursor_candidates,
        key=unit.primary_key,
        suggested=suggested,
        reason=reason,
    )


def choose(before: Conversation, text: str) -> Step:
    """A message that names streams."""
    ids = [stream.unit_id for stream in before.streams]
    selection = select_streams(text, ids)
    if selection.unknown:
        return unclear(before, sentences.unknown_streams(shown(selection.unknown)))
    if not selection.positions:
        return say(before, sentences.CHOOSE_SOME)
    return _chosen(before, tuple(ids[p] for p in selection.positions))


def change_sync(before: Conversation, text: str) -> Step | None:
    """A message that changes how or when streams are loaded, or which; None if it says nothing."""
    if match := _STREAMS.match(text):
        if not match["rest"].strip():
            back = moved(before, State.SELECT_STREAMS)
            return say(back, sentences.found_streams(before.streams, before.unlisted))
        return choose(moved(before, State.SELECT_STREAMS), match["rest"])
    if match := _DROP.match(text):
        return _changed_streams(before, match["rest"], is_added=False)
    if match := _DESTINATION.match(text):
        return _with_destination(before, (match["name"] or match["other"]).lower())
    step = _with_loading(before, text)
    if step is not None:
        return step
    if match := _ADD.match(text):
        return _changed_streams(before, match["rest"], is_added=True)
    return None


def _with_loading(before: Conversation, text: str) -> Step | None:
    """How and when, which may be in one message."""
    after = _with_mode(before, text)
    if isinstance(after, Step):
        return after
    try:
        understood = read_timing(_MODE.sub(" ", text) if after else text)
    except ValidationError:
        return unclear(before, sentences.BAD_TIMING)
    if understood is not None:
        after = (after or before).model_copy(update={"timing": understood.timing})
    if after is not None:
        after = moved(after, State.CONFIGURE_SYNC)
        return say(after, sentences.sync_plan(after))
    return None


def _with_destination(before: Conversation, name: str) -> Step:
    found = next((s for s in before.sinks if name in (s.name.lower(), s.sink_id.lower())), None)
    if found is None:
        return unclear(before, sentences.unknown_destination([s.name for s in before.sinks]))
    after = moved(before, State.CONFIGURE_SYNC, sink=found)
    return say(after, sentences.sync_plan(after))


def _with_mode(before: Conversation, text: str) -> Conversation | Step | None:
    choices = dict(before.choices)
    is_said = False
    for part in re.split(r"[;\n]|,\s*(?=\S+\s+(?:full|incremental|cdc))", text):
        match = _MODE.search(part)
        if match is None:
            continue
        if match["log"] and not before.keeps_changes:
            return say(before, sentences.NO_CDC)
        targets = _targets(before, part[: match.start()] + " " + part[match.end() :])
        if not targets:
            return None
        for stream in targets:
            choice = _choice(stream, match)
            if choice is None:
                return say(before, sentences.NO_COLUMN)
            choices[stream.unit_id] = choice
        is_said = True
    return before.model_copy(update={"choices": choices}) if is_said else None


def _choice(stream: Stream, match: re.Match[str]) -> SyncChoice | None:
    if match["full"]:
        return SyncChoice()
    if match["log"]:
        return SyncChoice(run_mode=RunMode.CDC, merge_key=stream.key)
    cursor = match["cursor"]
    if cursor is None:
        cursor = stream.suggested.cursor_column or next(iter(stream.columns), None)
    else:
        named = [c for c in stream.columns if c.lower() == cursor.rstrip(".").lower()]
        cursor = named[0] if named else None
    if cursor is None:
        return None
    return _incremental(cursor, stream.key)


def _incremental(cursor: str, key: tuple[str, ...]) -> SyncChoice:
    """By a time of change rows come again, and have to replace themselves; by a key they do not."""
    merge_key = () if cursor in key else key
    return SyncChoice(run_mode=RunMode.INCREMENTAL, cursor_column=cursor, merge_key=merge_key)


def _targets(before: Conversation, words: str) -> Sequence[Stream]:
    """The chosen streams that the rest of a message names; all of them if it names none."""
    chosen = before.chosen_streams()
    plain = re.sub(
        r"\b(?:make|load|sync|use|do|set|to|as|be|for|is|should|please|change|mode|it|them|the|"
        r"every|hourly|daily|nightly)\b",
        " ",
        words,
        flags=re.IGNORECASE,
    ).strip(" .,:")
    if not plain:
        return chosen
    selection = select_streams(plain, [stream.unit_id for stream in chosen])
    if selection.unknown and not selection.positions:
        return chosen if read_or_none(words) else ()
    return [chosen[p] for p in selection.positions]


def read_or_none(text: str) -> bool:
    """Whether a text says when."""
    try:
        return read_timing(text) is not None
    except ValidationError:
        return False


def _changed_streams(before: Conversation, text: str, *, is_added: bool) -> Step:
    ids = [stream.unit_id for stream in before.streams]
    selection = select_streams(text, ids)
    if selection.unknown:
        return unclear(before, sentences.unknown_streams(shown(selection.unknown)))
    named = {ids[p] for p in selection.positions}
    chosen = set(before.chosen) | named if is_added else set(before.chosen) - named
    if not chosen:
        return say(before, sentences.CHOOSE_SOME)
    return _chosen(before, tuple(id_ for id_ in ids if id_ in chosen))


def _chosen(before: Conversation, chosen: tuple[str, ...]) -> Step:
    after = moved(before, State.CONFIGURE_SYNC, chosen=chosen)
    return say(after, sentences.sync_plan(after))
