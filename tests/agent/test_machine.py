"""The machine: pure, so that every path is walked without a server."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matih_ray.agent import sentences
from matih_ray.agent.conversation import Conversation, Outcome, State, Stream, SyncChoice
from matih_ray.agent.events import (
    Connect,
    Connected,
    Discover,
    Discovered,
    DropSecrets,
    Event,
    Execute,
    Executed,
    Failed,
    Forbidden,
    KeepSecrets,
    Opened,
    Pending,
    Remove,
    Said,
)
from matih_ray.agent.machine import advance, view_data, view_options
from matih_ray.agent.transitions import TRANSITIONS, drawing
from matih_ray.model.policy import RunMode
from tests.agent.test_corpus import templates

DOCS = Path(__file__).parents[2] / "docs" / "agent.md"
LOGIN = "postgresql://bob:hunter2-x@db.acme.com:5433/sales"
STREAMS = (
    Stream(unit_id="public.customers", name="customers", rows=20, columns=("id",)),
    Stream(
        unit_id="public.orders",
        name="orders",
        rows=1,
        bytes=2048,
        columns=("id", "updated_at"),
        suggested=SyncChoice(run_mode=RunMode.INCREMENTAL, cursor_column="updated_at"),
    ),
)
FOUND = Discovered(STREAMS, 2)
CONNECTED = Connected("c1", "sales", "PostgreSQL 16")


def walk(*events: Event | str, start: Conversation | None = None):
    """The last step after these events; texts are what the user says."""
    conversation, step = start or Conversation(), None
    for event in events:
        said = Said(event) if isinstance(event, str) else event
        step = advance(conversation, said, templates())
        conversation = step.conversation
    assert step is not None
    return step


def at(state: State) -> Conversation:
    """A conversation that came to a state."""
    path = {
        State.WELCOME: [],
        State.SELECT_SOURCE_TYPE: [Opened()],
        State.GATHER_CREDENTIALS: [Opened(), "postgres"],
        State.TEST_CONNECTION: [Opened(), LOGIN],
        State.DISCOVER_SCHEMA: [Opened(), LOGIN, CONNECTED],
        State.SELECT_STREAMS: [Opened(), LOGIN, CONNECTED, FOUND],
        State.CONFIGURE_SYNC: [Opened(), LOGIN, CONNECTED, FOUND, "all"],
        State.REVIEW: [Opened(), LOGIN, CONNECTED, FOUND, "all", "ok"],
        State.EXECUTE: [Opened(), LOGIN, CONNECTED, FOUND, "all", "ok", "go"],
    }[state]
    conversation = walk(*path).conversation if path else Conversation()
    assert conversation.state is state
    return conversation


def test_the_drawing_in_the_documentation_is_of_this_machine():
    assert f"```mermaid\n{drawing()}```" in DOCS.read_text()


@pytest.mark.parametrize("state", State)
def test_help_is_given_in_every_state_and_changes_nothing(state: State):
    before = at(state)
    step = walk("help", start=before)
    assert step.conversation == before
    assert step.said[0] == sentences.help_in(state.value)


@pytest.mark.parametrize("state", State)
def test_cancelling_forgets_everything_in_every_state(state: State):
    step = walk("cancel", start=at(state))
    assert step.conversation == Conversation(attempt=1)
    assert DropSecrets() in step.effects
    is_draft = state in list(State)[4:8]
    assert (Remove("c1") in step.effects) is is_draft


@pytest.mark.parametrize("state", State)
def test_starting_over_is_possible_in_every_state(state: State):
    step = walk("start over", start=at(state))
    assert step.conversation.state is State.SELECT_SOURCE_TYPE
    assert step.conversation.fields == {}


@pytest.mark.parametrize(
    ("state", "target"),
    [
        (State.GATHER_CREDENTIALS, State.SELECT_SOURCE_TYPE),
        (State.TEST_CONNECTION, State.GATHER_CREDENTIALS),
        (State.DISCOVER_SCHEMA, State.GATHER_CREDENTIALS),
        (State.SELECT_STREAMS, State.GATHER_CREDENTIALS),
        (State.CONFIGURE_SYNC, State.SELECT_STREAMS),
        (State.REVIEW, State.CONFIGURE_SYNC),
        (State.EXECUTE, State.EXECUTE),
        (State.WELCOME, State.WELCOME),
    ],
)
def test_back_leads_one_step_back(state: State, target: State):
    assert walk("back", start=at(state)).conversation.state is target


@pytest.mark.parametrize("state", list(State)[3:8])
def test_one_field_can_be_corrected_and_leads_to_a_new_test(state: State):
    step = walk("change port to 6000", start=at(state))
    assert step.conversation.state is State.TEST_CONNECTION
    assert step.conversation.fields["port"] == "6000"
    assert step.conversation.fields["host"] == "db.acme.com"
    assert step.effects == (Connect(),)


def test_another_login_of_a_stored_connector_needs_its_secret_again():
    step = walk("change user to eve", start=at(State.REVIEW))
    assert step.conversation.state is State.GATHER_CREDENTIALS
    assert step.conversation.asked == "password"
    step = walk("pw-of-eve", start=step.conversation)
    assert isinstance(step.effects[0], KeepSecrets)
    assert step.effects[1] == Connect()


def test_fields_are_asked_for_by_name_one_after_the_other():
    step = walk("db.acme.com", start=at(State.GATHER_CREDENTIALS))
    assert step.said[-1].startswith("I still need: Port, Database, Username, Password.")
    for answer in ("5432", "sales", "bob"):
        step = walk(answer, start=step.conversation)
    assert step.conversation.fields["database"] == "sales"
    assert step.said[-1].startswith("What is the Password?")
    step = walk("hunter2", start=step.conversation)
    assert step.secrets == ("hunter2",)
    assert "hunter2" not in repr(step) + step.conversation.to_json()


def test_a_value_that_cannot_be_is_refused_at_once():
    step = walk("port: 99999", start=at(State.GATHER_CREDENTIALS))
    assert step.said[0] == "Port must be a number between 1 and 65535."
    assert "port" not in step.conversation.fields


def test_what_could_be_a_secret_is_hidden_when_it_is_not_understood():
    step = walk("hunter2!", start=at(State.GATHER_CREDENTIALS))
    assert step.is_hidden
    assert "hunter2" not in " ".join(step.said)


def test_a_failed_test_is_explained_and_may_be_repeated():
    step = walk(Failed("the port is closed"), start=at(State.TEST_CONNECTION))
    assert "the port is closed" in step.said[0]
    assert walk("retry", start=step.conversation).effects == (Connect(),)


def test_a_refusal_has_the_sentence_of_the_specification():
    step = walk(Forbidden(), start=at(State.TEST_CONNECTION))
    assert step.said == ("You don't have permission. Contact your administrator.",)


def test_no_streams_are_explained():
    step = walk(Discovered((), 0), start=at(State.DISCOVER_SCHEMA))
    assert step.conversation.state is State.DISCOVER_SCHEMA
    assert "Possible causes:" in step.said[0]
    assert walk("retry", start=step.conversation).effects == (Discover(is_new=True),)


def test_streams_can_be_changed_in_every_later_state():
    step = walk("drop customers", start=at(State.REVIEW))
    assert step.conversation.chosen == ("public.orders",)
    step = walk("also customers", start=step.conversation)
    assert set(step.conversation.chosen) == {"public.orders", "public.customers"}


def test_how_and_when_can_be_changed():
    step = walk("orders full, every night at 2", start=at(State.CONFIGURE_SYNC))
    known = step.conversation
    assert known.choice(STREAMS[1]) == SyncChoice()
    assert known.timing is not None
    assert known.timing.cron == "0 2 * * *"
    step = walk("customers incremental by id", start=known)
    assert step.conversation.choice(STREAMS[0]).cursor_column == "id"
    assert walk("customers incremental by nothing_like_it", start=known).conversation == known


def test_the_log_of_changes_is_for_sources_that_keep_one():
    known = at(State.CONFIGURE_SYNC)
    assert walk("orders cdc", start=known).said == (sentences.NO_CDC,)
    keeping = known.model_copy(update={"keeps_changes": True})
    choice = walk("orders cdc", start=keeping).conversation.choice(STREAMS[1])
    assert choice == SyncChoice(run_mode=RunMode.CDC, merge_key=STREAMS[1].key)


def test_a_partial_failure_is_told_and_only_what_failed_is_tried_again():
    outcomes = (
        Outcome(unit_id="public.customers", run_id="r1"),
        Outcome(unit_id="public.orders", problem="the store is away"),
    )
    step = walk(Executed(outcomes), start=at(State.EXECUTE))
    assert "1 of 2 first runs are started" in step.said[0]
    assert "public.orders: the store is away" in step.said[0]
    assert walk("retry", start=step.conversation).effects == (Execute(),)
    done = walk(Executed(outcomes[:1]), start=at(State.EXECUTE))
    assert walk("retry", start=done.conversation).effects == ()


def test_every_arrow_is_declared_once_and_every_state_is_reached():
    pairs = [(arrow.source, arrow.target) for arrow in TRANSITIONS]
    assert len(pairs) == len(set(pairs))
    assert {target for _, target in pairs} == set(State)


TEXTS = st.sampled_from(
    ["postgres", "s3", "snowflake", "kafka", "2", LOGIN, "host: h.example.com", "port: abc",
     "user bob", "password: x9x9x9", "all", "1", "orders", "ok", "go", "back", "cancel", "help",
     "start over", "retry", "show", "full", "orders incremental by id", "every night at 2",
     "every 1 second", "drop orders", "add customers", "streams", "streams: 1", "nonsense here", "",
     "change user to eve", "none", "once", "name: n", "s3://b", "call it x", "\x00", "{}", "🙂"]
) | st.text(max_size=30)  # fmt: skip
OUTCOMES = (
    st.sampled_from([CONNECTED, Failed("no"), Forbidden(), Pending()]),
    st.sampled_from([FOUND, Discovered((), 0, 3), Failed("no"), Forbidden(), Pending()]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXTS, max_size=25), st.data())
def test_no_conversation_gets_stuck_or_leaves_the_declared_arrows(texts, data):
    conversation = walk(Opened()).conversation
    for text in texts:
        events: list[Event] = [Said(text)]
        for _ in range(20):
            if not events:
                break
            step = advance(conversation, events.pop(0), templates())
            conversation = step.conversation
            assert step.said or step.effects
            view_data(conversation, templates())
            view_options(conversation, templates())
            for effect in step.effects:
                if isinstance(effect, Connect):
                    events.append(data.draw(OUTCOMES[0]))
                elif isinstance(effect, Discover):
                    events.append(data.draw(OUTCOMES[1]))
                elif isinstance(effect, Execute):
                    events.append(Executed((Outcome(unit_id="public.orders", problem="no"),)))
        assert Conversation.from_json(conversation.to_json()) == conversation
    assert walk("start over", "postgres", start=conversation).conversation.type == "POSTGRESQL" or (
        conversation.state is State.WELCOME
    )
