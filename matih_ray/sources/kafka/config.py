"""Configuration of a Kafka connector; the password is not part of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from matih_ray.model.value import Value

SslMode = Literal["disable", "require", "verify-ca", "verify-full"]
_FIELD_TYPE = (
    r"^(text|integer|number|double|boolean|date|timestamp|datetime|json"
    r"|decimal\(\d{1,2}, ?\d{1,2}\))$"
)


class FieldType(Value):
    """One top-level field of a topic's JSON values; types are those of REST streams."""

    name: Annotated[str, Field(pattern=r"^[^$.\x00][^.\x00]{0,254}$")]
    type: Annotated[str, Field(pattern=_FIELD_TYPE)]


class TopicOptions(Value):
    """What is said about one topic; all others have the defaults.

    `auto` is `json` if a sample has objects and nothing else. `missing_offsets` is about messages
    that retention removed before they were loaded: fail, or go on with those that are left.
    """

    name: Annotated[str, Field(max_length=249, pattern=r"^[a-zA-Z0-9._-]+$")]
    format: Literal["auto", "json", "raw"] = "auto"
    fields: Annotated[tuple[FieldType, ...], Field(alias="schema", max_length=500)] = ()
    missing_offsets: Literal["fail", "skip"] = "fail"

    @model_validator(mode="after")
    def _agree(self) -> TopicOptions:
        if self.fields and self.format == "raw":
            raise ValueError(f"topic {self.name} is raw and has no schema")
        return self


class KafkaConfig(Value):
    """Where the brokers are and how to log in. Durations are in seconds."""

    host: Annotated[str, Field(min_length=1, description="Host name or address of one broker")]
    port: Annotated[int, Field(ge=1, le=65_535)] = 9092
    hosts: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[^\s/@,?]+:\d{1,5}$")], ...],
        Field(description="Further brokers to ask first, each as `host:port`"),
    ] = ()
    user: Annotated[str | None, Field(min_length=1, description="None where nobody logs in")] = None
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    ssl_mode: SslMode = "disable"
    ssl_root_cert: Annotated[
        str | None, Field(description="File of trusted certificates; the system's if unset")
    ] = None
    topics: Annotated[tuple[TopicOptions, ...], Field(max_length=1000)] = ()
    connect_timeout_s: Annotated[
        int, Field(ge=1, le=300, description="Longest wait for a connection, or news of a topic")
    ] = 10
    read_timeout_s: Annotated[
        int, Field(ge=1, le=3600, description="Longest wait for the next message of a slice")
    ] = 60

    @model_validator(mode="after")
    def _agree(self) -> KafkaConfig:
        names = [topic.name for topic in self.topics]
        if len(set(names)) < len(names):
            raise ValueError("a topic is there twice")
        return self

    def options(self, topic: str) -> TopicOptions:
        """What is said about a topic."""
        found = next((entry for entry in self.topics if entry.name == topic), None)
        return found or TopicOptions(name=topic)
