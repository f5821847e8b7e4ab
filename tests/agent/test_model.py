"""A model may help; it sees no value, invents none, gives no command, and may fail in any way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from matih_ray.agent.masking import masked
from matih_ray.agent.model import open_model
from matih_ray.errors import ConfigurationError
from matih_ray.settings import Settings
from tests.agent.lab import AgentLab, open_agent_lab
from tests.agent.model_server import ModelServer, model_server
from tests.agent.test_sessions import MEMORY

SECRETS = ["S3cr3t-of-nobody!", "swordfish", "correcthorse", "pa55"]
KEY = "sk-of-the-model-0123456789"


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with model_server() as model:
        yield model


@pytest.fixture
def lab(tmp_path: Path, model: ModelServer) -> Iterator[AgentLab]:
    yield from open_agent_lab(
        tmp_path / "home",
        ("MEMORY", "POSTGRESQL"),
        agent_model_url=model.url,
        agent_model_key=SecretStr(KEY),
        agent_model_wait_s=5.0,
    )


def test_a_model_names_fields_that_it_has_not_seen(lab: AgentLab, model: ModelServer):
    chat = lab.open()
    chat.say("postgres")
    text = f"{SECRETS[0]} opens dbhost-1 when {SECRETS[1]} comes around"
    number = {value: f"<{n}>" for n, value in enumerate(masked(text).values, 1)}
    fields = {"host": "dbhost-1", "username": SECRETS[1], "password": SECRETS[0]}
    model.answer = lambda _: {"fields": {name: number[value] for name, value in fields.items()}}
    said = chat.say(text)
    assert "Noted: Host, Username, Password." in said
    assert chat.last["data"]["missing_fields"] == ["port", "database"]
    [asked] = model.asked
    assert "<1>" in asked
    assert not [word for word in (*SECRETS, "dbhost") if word in asked]
    assert f"authorization: bearer {KEY}".encode() in model.received[0].lower()
    assert SECRETS[0] not in str(chat.show())


def test_what_the_rules_understand_is_asked_of_nobody(lab: AgentLab, model: ModelServer):
    chat = lab.open()
    chat.say("postgres")
    chat.say("host: 127.0.0.1")
    chat.say("help")
    chat.say(SECRETS[1])
    assert model.received == []


@pytest.mark.parametrize(
    "answer",
    [
        {"fields": {"host": "evil.example.com"}},  # nothing that the user wrote
        {"fields": {"password": "let-me-in"}},
        {"fields": {"port": "99999999"}},
        {"fields": {"no_such_field": "<1>"}},
        {"fields": {"host": "<9>"}},
        {"fields": {"host": ["<1>"]}},
        {"fields": "<1>"},
        {"say": "cancel"},
        "cancel",
        [],
        b"{",
        b"\xff" * 100_000,
    ],
)
def test_what_a_model_makes_up_is_not_believed(lab: AgentLab, model: ModelServer, answer: object):
    chat = lab.open()
    chat.say("postgres")
    model.answer = lambda _: answer
    chat.say("it is over there where mr xyzzy put it")
    assert chat.state == "gather_credentials"
    assert chat.last["data"]["missing_fields"] == chat.last["data"]["required_fields"]
    assert len(model.received) == 1


def test_times_and_streams_are_understood_with_its_help(lab: AgentLab, model: ModelServer):
    chat = lab.open()
    chat.say("memory")
    chat.say(f'{MEMORY[:-1]}, "password": "{SECRETS[0]}", "clientKey": "none"}}')
    model.answer = lambda _: {"say": "public.orders"}
    chat.say("what people have been ordering from us")
    assert chat.state == "configure_sync"
    model.answer = lambda _: {"say": "every 12 hours"}
    chat.say("whenever 7 has come around and 7 again please")
    assert chat.last["data"]["schedule"]["every_s"] == 43_200
    assert "7" in model.asked[-1]
    model.answer = lambda _: {"say": "go"}
    chat.say("and now what shall we be doing")
    assert chat.state == "configure_sync"


def test_a_model_that_is_slow_or_broken_is_left_alone(tmp_path: Path, model: ModelServer):
    for lab in open_agent_lab(
        tmp_path / "home", ("MEMORY",), agent_model_url=model.url, agent_model_wait_s=0.2
    ):
        model.proceed.clear()
        chat = lab.open()
        assert chat.say("some fancy database of ours").startswith("I do not know that type")
        model.proceed.set()
        chat.say("some other fancy thing of ours")
        assert len(model.received) == 1


@pytest.mark.parametrize("status", [401, 429, 500])
def test_a_refusal_is_no_answer(lab: AgentLab, model: ModelServer, status: int):
    model.status = status
    model.answer = lambda _: {"say": "postgres"}
    chat = lab.open()
    assert chat.say("some fancy database of ours").startswith("I do not know that type")


def test_sentences_are_put_in_other_words_with_their_facts(tmp_path: Path, model: ModelServer):
    for lab in open_agent_lab(
        tmp_path / "home", ("POSTGRESQL",), agent_model_url=model.url, agent_model_rephrases=True
    ):
        model.answer = lambda asked: {"lines": [f"Sure! {line}" for line in asked.split("\n")]}
        chat = lab.open()
        assert chat.say("postgres").startswith("Sure! To connect to PostgreSQL, I'll need: Host")
        model.answer = lambda asked: {"lines": ["Now send 100 dollars."] * (asked.count("\n") + 1)}
        assert "dollars" not in chat.say("port: 5433")
        model.answer = lambda _: {"lines": []}
        assert "Noted" in chat.say("database: d")


def test_no_model_is_asked_unless_a_setting_names_one(tmp_path: Path):
    assert open_model(Settings(home=tmp_path)) is None
    with pytest.raises(ConfigurationError, match="MATIH_AGENT_MODEL_URL"):
        open_model(Settings(home=tmp_path, agent_model_url="ftp://x"))


@given(st.text(min_size=1, max_size=60), st.sampled_from(SECRETS))
def test_only_words_of_the_vocabulary_are_shown(text: str, secret: str):
    shown = masked(f"{text} {secret} {text}")
    assert secret not in shown.text
    assert shown.text.count("<") >= len(shown.values)
    assert secret in " ".join(shown.values)


def test_what_is_known_to_be_a_secret_is_not_shown_even_if_it_is_a_word():
    assert masked("mine is please").text == "<1> is please"
    assert masked("mine is please", is_hidden="please".__eq__).text == "<1> is <2>"
