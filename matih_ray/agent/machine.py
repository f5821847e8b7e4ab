"""The state machine: (conversation, event) -> (conversation, what is said, effects). Pure.

`TRANSITIONS` declares every arrow; one that is not declared cannot be taken. Effects are carried
out elsewhere and come back as events.
"""

from __future__ import annotations

from collections.abc import Callable

from matih_ray.agent import sentences
from matih_ray.agent.commands import Command, command_in
from matih_ray.agent.conversation import Conversation, State
from matih_ray.agent.events import (
    Connect,
    Connected,
    Discover,
    Discovered,
    DropSecrets,
    Effect,
    Event,
    Execute,
    Executed,
    Failed,
    Forbidden,
    Opened,
    Pending,
    Remove,
    Said,
    Unresolved,
)
from matih_ray.agent.gathering import correction, gather, select_type
from matih_ray.agent.planning_sync import change_sync, choose
from matih_ray.agent.steps import Step, Templates, moved, say, unclear
from matih_ray.agent.templates import missing_fields
from matih_ray.agent.transitions import TRANSITIONS
from matih_ray.agent.words import MAX_MESSAGE_CHARS
from matih_ray.control.building import DEFAULT_SINK
from matih_ray.model.value import JsonValue

_ALLOWED = {(arrow.source, arrow.target) for arrow in TRANSITIONS}
# Where `back` leads; what was said is kept.
_BACK = {
    State.GATHER_CREDENTIALS: State.SELECT_SOURCE_TYPE,
    State.TEST_CONNECTION: State.GATHER_CREDENTIALS,
    State.DISCOVER_SCHEMA: State.GATHER_CREDENTIALS,
    State.SELECT_STREAMS: State.GATHER_CREDENTIALS,
    State.CONFIGURE_SYNC: State.SELECT_STREAMS,
    State.REVIEW: State.CONFIGURE_SYNC,
}


def advance(before: Conversation, event: Event, templates: Templates) -> Step:
    """What follows from an event."""
    step = _advanced(before, event, templates)
    change = (before.state, step.conversation.state)
    if change[0] is not change[1] and change not in _ALLOWED:
        raise AssertionError(f"no arrow leads from {change[0].value} to {change[1].value}")
    return step


def view_data(conversation: Conversation, templates: Templates) -> dict[str, JsonValue]:
    """What a program needs to know of a state, beside the sentences."""
    state = conversation.state
    if state is State.GATHER_CREDENTIALS:
        template = templates.of(conversation.type)
        known = (*conversation.fields, *conversation.given_secrets)
        missing: list[JsonValue] = [field.name for field in missing_fields(template, known)]
        required: list[JsonValue] = [field.name for field in template.required]
        secret: list[JsonValue] = [field.name for field in template.fields if field.is_secret]
        return {"required_fields": required, "missing_fields": missing, "secret_fields": secret}
    if state is State.SELECT_STREAMS:
        return {"streams": [stream.model_dump(mode="json") for stream in conversation.streams]}
    if state in (State.CONFIGURE_SYNC, State.REVIEW):
        sink = conversation.sink
        return {
            "connector_id": conversation.connector_id,
            "streams": _plan(conversation),
            "destination": DEFAULT_SINK if sink is None else sink.sink_id,
            "schedule": _timing(conversation),
        }
    if state is State.EXECUTE:
        outcomes: list[JsonValue] = [
            outcome.model_dump(mode="json") for outcome in conversation.outcomes
        ]
        return {"connector_id": conversation.connector_id, "outcomes": outcomes}
    return {}


def view_options(conversation: Conversation, templates: Templates) -> tuple[str, ...]:
    """Short answers that a state understands."""
    match conversation.state:
        case State.SELECT_SOURCE_TYPE:
            return templates.titles
        case State.SELECT_STREAMS:
            return ("all",)
        case State.CONFIGURE_SYNC:
            return ("ok", "back")
        case State.REVIEW:
            return ("go", "back", "cancel")
        case State.TEST_CONNECTION | State.DISCOVER_SCHEMA:
            return ("retry", "back")
        case _:
            return ()


def _advanced(before: Conversation, event: Event, templates: Templates) -> Step:
    match event:
        case Opened():
            return say(moved(before, State.SELECT_SOURCE_TYPE), sentences.WELCOME)
        case Said(text):
            return _said(before, text, templates)
        case Connected():
            return _connected(before, event, templates)
        case Discovered():
            return _discovered(before, event, templates)
        case Executed(outcomes):
            after = moved(before, State.EXECUTE, outcomes=outcomes)
            return say(after, sentences.executed(after, outcomes))
        case Forbidden():
            return say(before, sentences.FORBIDDEN)
        case Pending():
            return say(before, sentences.still_working(before.state.value))
        case Unresolved(message):
            return say(before, sentences.doubtful_host(message))
        case Failed(message):
            return say(before, _failure(before, message))


def _said(before: Conversation, text: str, templates: Templates) -> Step:
    if len(text) > MAX_MESSAGE_CHARS:
        return Step(before, (sentences.TOO_LONG,), is_hidden=True)
    command = command_in(text)
    if command in _ANYWHERE:
        return _ANYWHERE[command](before, templates)
    return _IN_STATE[before.state](before, text, command, templates)


def _help(before: Conversation, templates: Templates) -> Step:
    said = [sentences.help_in(before.state.value)]
    if before.state is State.GATHER_CREDENTIALS:
        template = templates.of(before.type)
        missing = missing_fields(template, (*before.fields, *before.given_secrets))
        said += [sentences.still_needs(missing)] if missing else []
    return say(before, *said)


def _start_over(before: Conversation, _: Templates) -> Step:
    after = Conversation(state=State.SELECT_SOURCE_TYPE, attempt=before.attempt + 1)
    return Step(after, (sentences.STARTED_OVER, sentences.WELCOME), _ended(before))


def _cancel(before: Conversation, _: Templates) -> Step:
    done = before.state is State.EXECUTE
    said = sentences.CANCELLED_DONE if done else sentences.CANCELLED
    return Step(Conversation(attempt=before.attempt + 1), (said,), _ended(before))


def _ended(before: Conversation) -> tuple[Effect, ...]:
    """A connector that nothing was loaded with goes; one that was executed stays."""
    if before.connector_id is None or before.state is State.EXECUTE:
        return (DropSecrets(),)
    return (DropSecrets(), Remove(before.connector_id))


def _back(before: Conversation, templates: Templates) -> Step:
    target = _BACK.get(before.state)
    if target is None:
        return say(before, sentences.NOWHERE_BACK)
    if target is State.SELECT_SOURCE_TYPE:
        effects = _ended(before)
        return Step(_start_over(before, templates).conversation, (sentences.WELCOME,), effects)
    after = moved(before, target)
    return say(after, _prompt(after, templates))


def _show(before: Conversation, templates: Templates) -> Step:
    return say(before, _prompt(before, templates))


def _prompt(conversation: Conversation, templates: Templates) -> str:
    """What a state asks for."""
    state = conversation.state
    if state is State.WELCOME:
        return sentences.AT_START
    if state is State.SELECT_SOURCE_TYPE:
        return sentences.WELCOME
    if state is State.SELECT_STREAMS:
        return sentences.found_streams(conversation.streams, conversation.unlisted)
    if state is State.CONFIGURE_SYNC:
        return sentences.sync_plan(conversation)
    template = templates.of(conversation.type)
    if state is State.REVIEW:
        return sentences.review(template, conversation)
    if state is State.EXECUTE:
        return sentences.executed(conversation, conversation.outcomes)
    known = sentences.known_fields(template, conversation)
    return sentences.to_correct(known) if known else sentences.needs(template)


_ANYWHERE: dict[Command | None, Callable[[Conversation, Templates], Step]] = {
    Command.HELP: _help,
    Command.BACK: _back,
    Command.START_OVER: _start_over,
    Command.CANCEL: _cancel,
    Command.SHOW: _show,
}


# --- messages by state -----------------------------------------------------------------------


def _at_welcome(before: Conversation, text: str, command: Command | None, ts: Templates) -> Step:
    if command is not None or len(text.split()) < 2:
        step = select_type(before, text, ts)
        if step.conversation.type is None:
            return say(step.conversation, sentences.WELCOME)
        return step
    return select_type(before, text, ts)


def _at_type(before: Conversation, text: str, command: Command | None, ts: Templates) -> Step:
    return say(before, sentences.WELCOME) if command else select_type(before, text, ts)


def _at_fields(before: Conversation, text: str, command: Command | None, ts: Templates) -> Step:
    known = (*before.fields, *before.given_secrets)
    is_complete = not missing_fields(ts.of(before.type), known)
    if is_complete and command in (Command.YES, Command.RETRY):
        return Step(moved(before, State.TEST_CONNECTION), (), (Connect(),))
    return correction(before, text, ts) or gather(before, text, ts)


def _at_test(before: Conversation, text: str, command: Command | None, ts: Templates) -> Step:
    corrected = None if command else correction(before, text, ts)
    if corrected is None and command is None:
        step = gather(before, text, ts)
        corrected = None if step.is_hidden or step.conversation == before else step
    return corrected or Step(before, (), (Connect(),))


def _at_discovery(before: Conversation, text: str, command: Command | None, ts: Templates) -> Step:
    corrected = None if command else correction(before, text, ts)
    return corrected or Step(before, (), (Discover(is_new=command is Command.RETRY),))


def _at_streams(before: Conversation, text: str, command: Command | None, ts: Templates) -> Step:
    if command is Command.RETRY:
        return Step(moved(before, State.TEST_CONNECTION), (), (Connect(),))
    if command is Command.YES:
        return choose(before, "all")
    return correction(before, text, ts) or choose(before, text)


def _at_sync(before: Conversation, text: str, command: Command | None, ts: Templates) -> Step:
    if command is Command.YES:
        after = moved(before, State.REVIEW)
        return say(after, sentences.review(ts.of(after.type), after))
    step = change_sync(before, text) or correction(before, text, ts)
    return step or unclear(before, sentences.UNCLEAR_SYNC)


def _at_review(before: Conversation, text: str, command: Command | None, ts: Templates) -> Step:
    if command is Command.YES:
        return Step(moved(before, State.EXECUTE), (), (Execute(),))
    step = correction(before, text, ts) or change_sync(before, text)
    return step or unclear(before, sentences.UNCLEAR_REVIEW)


def _at_end(before: Conversation, text: str, command: Command | None, ts: Templates) -> Step:
    del text, ts
    is_open = not before.outcomes or any(o.problem is not None for o in before.outcomes)
    if is_open and command in (Command.RETRY, Command.YES):
        return Step(before, (), (Execute(),))
    return say(before, sentences.UNCLEAR_DONE)


_IN_STATE: dict[State, Callable[[Conversation, str, Command | None, Templates], Step]] = {
    State.WELCOME: _at_welcome,
    State.SELECT_SOURCE_TYPE: _at_type,
    State.GATHER_CREDENTIALS: _at_fields,
    State.TEST_CONNECTION: _at_test,
    State.DISCOVER_SCHEMA: _at_discovery,
    State.SELECT_STREAMS: _at_streams,
    State.CONFIGURE_SYNC: _at_sync,
    State.REVIEW: _at_review,
    State.EXECUTE: _at_end,
}


# --- outcomes of effects ---------------------------------------------------------------------


def _connected(before: Conversation, event: Connected, templates: Templates) -> Step:
    title = templates.of(before.type).title
    after = moved(
        before,
        State.DISCOVER_SCHEMA,
        connector_id=event.connector_id,
        connector_name=event.name,
        is_connected=True,
        keeps_changes=event.keeps_changes,
    )
    said = sentences.connected(title, event.name, event.server_version)
    return Step(after, (said,), (DropSecrets(), Discover()))


def _discovered(before: Conversation, event: Discovered, templates: Templates) -> Step:
    if not event.streams:
        return say(before, sentences.no_streams(templates.of(before.type), event.skipped))
    ids = {stream.unit_id for stream in event.streams}
    after = moved(
        before,
        State.SELECT_STREAMS,
        streams=event.streams,
        sinks=event.sinks,
        unlisted=event.total - len(event.streams),
        chosen=tuple(id_ for id_ in before.chosen if id_ in ids),
    )
    return say(after, sentences.found_streams(after.streams, after.unlisted))


def _failure(before: Conversation, message: str) -> str:
    if before.state is State.TEST_CONNECTION:
        return sentences.not_connected(message)
    if before.state is State.DISCOVER_SCHEMA:
        return sentences.discovery_failed(message)
    return message


def _plan(conversation: Conversation) -> list[JsonValue]:
    return [
        {"unit_id": stream.unit_id, **conversation.choice(stream).model_dump(mode="json")}
        for stream in conversation.chosen_streams()
    ]


def _timing(conversation: Conversation) -> JsonValue:
    timing = conversation.timing
    return None if timing is None else timing.model_dump(mode="json")
