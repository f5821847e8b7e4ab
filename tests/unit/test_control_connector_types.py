"""A configuration is complete, typed and without secrets before it is stored."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import Field

from matih_ray.control.connector_types import (
    MAX_SECRET_BYTES,
    ConnectorType,
    checked_config,
    checked_secrets,
)
from matih_ray.errors import ValidationError
from matih_ray.model.value import JsonValue, Value


class Config(Value):
    """`uri` may be given as a secret instead; `primary_key` only sounds like one."""

    host: str
    port: Annotated[int, Field(ge=1)] = 1
    uri: str | None = None
    primary_key: str | None = None
    api_key_header: str | None = None
    extra: dict[str, JsonValue] = {}


TYPE = ConnectorType("TEST", "sources", Config, ("password", "uri"), "test")


def test_defaults_are_stored_with_the_rest():
    assert checked_config(TYPE, {"host": "h", "port": "7"}) == {
        "host": "h",
        "port": 7,
        "uri": None,
        "primaryKey": None,
        "apiKeyHeader": None,
        "extra": {},
    }


@pytest.mark.parametrize(
    "config",
    [
        {"primaryKey": "id"},
        {"apiKeyHeader": "X-Api-Key"},
        {"uri": "sqlite:////tmp/c.db"},
        {"uri": "postgresql://reader@host/db"},
        {"extra": {"region": "eu", "nested": [{"a": 1}, None, True]}},
        {"host": "tokens.example.com"},
    ],
    ids=str,
)
def test_what_only_sounds_like_a_secret_is_stored(config: dict):
    checked_config(TYPE, {"host": "h", **config})


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"password": "hunter2"}, "config.password"),
        ({"Password": "hunter2"}, "config.Password"),
        ({"accessToken": "hunter2"}, "config.accessToken"),
        ({"uri": "postgresql://u:hunter2@h/d"}, "config.uri"),
        ({"host": "h password=hunter2"}, "config.host"),
        ({"extra": {"s3.secret-access-key": "hunter2"}}, "config.extra.s3.secret-access-key"),
        ({"extra": {"a": [{"clientSecret": "hunter2"}]}}, "config.extra.a.0.clientSecret"),
        ({"extra": {"a": ["x", "amqp://u:hunter2@h"]}}, "config.extra.a.1"),
        ({"port": "hunter2"}, "config.port"),
        ({"colour": "hunter2"}, "config.colour"),
        ({"host": ["hunter2"]}, "config.host"),
    ],
    ids=str,
)
def test_secrets_and_mistakes_are_refused_by_name_only(config: dict, field: str):
    with pytest.raises(ValidationError) as refused:
        checked_config(TYPE, {"host": "h", **config})
    assert refused.value.context["field"] == field
    assert "hunter2" not in repr(refused.value) + str(refused.value)


def test_secrets_are_those_of_the_type_and_not_too_large():
    assert checked_secrets(TYPE, {"password": "p"}) == {"password": "p"}
    for wrong in ({"passwort": "hunter2"}, {"password": "hunter2" * MAX_SECRET_BYTES}):
        with pytest.raises(ValidationError) as refused:
            checked_secrets(TYPE, wrong)
        assert "hunter2" not in str(refused.value)


def test_a_callers_own_name_cannot_bring_control_characters_into_a_message():
    with pytest.raises(ValidationError) as refused:
        checked_secrets(TYPE, {"\x1b[2Jpass\n" + "x" * 100: "v"})
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 150
