"""Flink's options of a `kafka` table, and what librdkafka calls what Kafka's Java client has.

Source: "Apache Kafka SQL Connector" of Flink's documentation and librdkafka's CONFIGURATION.md.
Most properties have one name in both clients. Keys in Java's own formats (JKS) cannot be read
without Java and are refused with the remedy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from matih_ray.errors import SqlInvalidError, SqlNotSupportedError
from matih_ray.streaming.connectors.json_format import JsonOptions
from matih_ray.streaming.connectors.options import duration_ms, option, table_name
from matih_ray.streaming.sql.script import CreateTable

STARTUPS = ("group-offsets", "earliest-offset", "latest-offset", "timestamp", "specific-offsets")
BOUNDS = ("unbounded", "latest-offset", "group-offsets", "timestamp", "specific-offsets")
# How often Flink looks for new partitions, too.
DISCOVERY_MS = 5 * 60 * 1000
_PROPERTIES = "properties."
_KNOWN = frozenset(
    {
        "connector", "topic", "topic-pattern", "format", "value.format",
        "scan.startup.mode", "scan.startup.timestamp-millis", "scan.startup.specific-offsets",
        "scan.bounded.mode", "scan.bounded.timestamp-millis", "scan.bounded.specific-offsets",
        "scan.topic-partition-discovery.interval", "scan.watermark.idle-timeout",
    }
)  # fmt: skip
_JSON = ("ignore-parse-errors", "fail-on-missing-field", "timestamp-format.standard")
# Ours to set: whose offsets are read is decided by the job, and values are bytes.
_IGNORED = frozenset(
    {
        "enable.auto.commit", "auto.commit.interval.ms", "auto.offset.reset", "key.deserializer",
        "value.deserializer", "group.instance.id", "partition.assignment.strategy",
        "partition.discovery.interval.ms", "enable.partition.eof", "ssl.keystore.type",
        "ssl.truststore.type", "max.poll.records", "default.api.timeout.ms", "request.timeout.ms",
    }
)  # fmt: skip
# Callbacks and files that librdkafka would load code from.
_REFUSED = ("plugin.library.paths", "interceptor", "debug", "sasl.oauthbearer.method", "log")
_RENAMED = {
    "fetch.max.wait.ms": "fetch.wait.max.ms",
    "receive.buffer.bytes": "socket.receive.buffer.bytes",
    "send.buffer.bytes": "socket.send.buffer.bytes",
    "ssl.truststore.location": "ssl.ca.location",
    "ssl.truststore.certificates": "ssl.ca.pem",
    "ssl.keystore.certificate.chain": "ssl.certificate.pem",
    "ssl.keystore.key": "ssl.key.pem",
}
_LOGIN = re.compile(r'\b(username|password)\s*=\s*"((?:[^"\\]|\\.)*)"')
_OFFSET = re.compile(r"partition:(\d+),offset:(\d+)")


@dataclass(frozen=True)
class Edge:
    """Where reading begins or ends: a mode with its timestamp or its offsets by partition."""

    mode: str
    timestamp_ms: int = 0
    offsets: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class KafkaTable:
    """The options of a table. `client` holds librdkafka's properties and may hold secrets."""

    name: str
    topics: tuple[str, ...]
    pattern: str | None
    startup: Edge
    bound: Edge
    group_id: str | None
    reset: str
    discovery_ms: int
    format: JsonOptions
    client: Mapping[str, str] = field(repr=False)


def kafka_table(table: CreateTable) -> KafkaTable:
    """The options as they are meant.

    Raises:
        SqlInvalidError: One is missing, unknown or wrong.
        SqlNotSupportedError: One is Flink's and not there.
    """
    values = dict(table.options.values)
    name, prefix = table_name(table), "value.json." if "value.format" in values else "json."
    _check_known(values, name, prefix)
    text_format = values.get("format", values.get("value.format"))
    if text_format != "json":
        raise SqlNotSupportedError(
            f"table {name}: format {text_format!r} of Kafka is not supported, json is",
            clause="format",
        )
    topics = tuple(one.strip() for one in values.get("topic", "").split(";") if one.strip())
    pattern = values.get("topic-pattern")
    if bool(topics) == (pattern is not None):
        raise SqlInvalidError(f"table {name} needs either 'topic' or 'topic-pattern'")
    _check_pattern(pattern)
    startup = _edge(table, "startup", "group-offsets", STARTUPS)
    bound = _edge(table, "bounded", "unbounded", BOUNDS)
    if len(topics) != 1 and (startup.offsets or bound.offsets):
        raise SqlInvalidError(f"table {name}: specific offsets are of one topic")
    group_id = values.get("properties.group.id")
    if group_id is None and "group-offsets" in (startup.mode, bound.mode):
        raise SqlInvalidError(f"table {name}: group-offsets need option 'properties.group.id'")
    return KafkaTable(
        name,
        topics,
        pattern,
        startup,
        bound,
        group_id,
        values.get("properties.auto.offset.reset", "none"),
        duration_ms(table, "scan.topic-partition-discovery.interval", DISCOVERY_MS),
        _json(table, prefix),
        _client(values, name),
    )


def _check_pattern(pattern: str | None) -> None:
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise SqlInvalidError(f"option 'topic-pattern' is no pattern: {error}") from None


def _check_known(values: Mapping[str, str], name: str, prefix: str) -> None:
    known = _KNOWN | {prefix + key for key in _JSON}
    for key in values:
        if key in known or key.startswith(_PROPERTIES):
            continue
        if key.startswith(("key.", "value.", "sink.", "json.", "scan.")):
            raise SqlNotSupportedError(
                f"table {name}: option {key!r} of Kafka is not supported", clause=key
            )
        raise SqlInvalidError(f"table {name}: there is no option {key!r}", option=key)


def _json(table: CreateTable, prefix: str) -> JsonOptions:
    def said(key: str) -> bool:
        text = option(table, prefix + key, "false").lower()
        if text not in ("true", "false"):
            raise SqlInvalidError(f"option {prefix + key!r} is true or false", option=prefix + key)
        return text == "true"

    ignore, missing, standard = _JSON
    return JsonOptions(said(ignore), said(missing), option(table, prefix + standard, "SQL"))


def _edge(table: CreateTable, which: str, default: str, modes: tuple[str, ...]) -> Edge:
    mode = option(table, f"scan.{which}.mode", default)
    if mode not in modes:
        raise SqlInvalidError(
            f"table {table_name(table)}: scan.{which}.mode is one of {', '.join(modes)}"
        )
    if mode == "timestamp":
        text = option(table, f"scan.{which}.timestamp-millis")
        if not text.isdigit():
            raise SqlInvalidError(f"scan.{which}.timestamp-millis is a number of milliseconds")
        return Edge(mode, timestamp_ms=int(text))
    if mode == "specific-offsets":
        key = f"scan.{which}.specific-offsets"
        found = [_OFFSET.fullmatch(part.strip()) for part in option(table, key).split(";")]
        pairs = {int(match[1]): int(match[2]) for match in found if match}
        if len(pairs) < len(found):
            raise SqlInvalidError(f"{key} is 'partition:0,offset:42;partition:1,offset:300'")
        return Edge(mode, offsets=pairs)
    return Edge(mode)


def _client(values: Mapping[str, str], name: str) -> dict[str, str]:
    given = {
        key[len(_PROPERTIES) :]: text
        for key, text in values.items()
        if key.startswith(_PROPERTIES) and key[len(_PROPERTIES) :] not in _IGNORED
    }
    if "bootstrap.servers" not in given:
        raise SqlInvalidError(f"table {name} needs option 'properties.bootstrap.servers'")
    found: dict[str, str] = {}
    for key, text in given.items():
        if key.startswith(_REFUSED):
            raise SqlNotSupportedError(f"table {name}: property {key!r} is refused", clause=key)
        if key.startswith(("ssl.truststore.", "ssl.keystore.")):
            found |= _store(key, text, given, name)
        elif key == "sasl.jaas.config":
            found |= _login(text, name)
        elif key == "ssl.endpoint.identification.algorithm":
            found[key] = text.strip() or "none"
        elif key == "isolation.level":
            found[key] = text.lower()
        else:
            found[_RENAMED.get(key, key)] = text
    return found


def _store(key: str, text: str, given: Mapping[str, str], name: str) -> dict[str, str]:
    """A key or trust store in PEM, or PKCS #12 for the key; Java's own format cannot be read."""
    store = ".".join(key.split(".")[:2])
    kind = given.get(f"{store}.type", "").upper()
    if not kind:
        kind = "PKCS12" if text.endswith((".p12", ".pfx")) else "PEM"
        kind = "JKS" if text.endswith(".jks") else kind
    if kind == "JKS" or (store == "ssl.truststore" and kind == "PKCS12"):
        raise SqlNotSupportedError(
            f"table {name}: a {store} of type {kind} cannot be read without Java; export it as PEM "
            f"and set '{store}.type' = 'PEM'",
            clause=key,
        )
    if key == "ssl.truststore.password":
        return {}
    if key == "ssl.keystore.location" and kind == "PEM":
        return {"ssl.certificate.location": text, "ssl.key.location": text}
    return {_RENAMED.get(key, key): text}


def _login(text: str, name: str) -> dict[str, str]:
    found = {key: value.replace('\\"', '"').replace("\\\\", "\\") for key, value in
             _LOGIN.findall(text)}  # fmt: skip
    if set(found) != {"username", "password"}:
        raise SqlNotSupportedError(
            f"table {name}: sasl.jaas.config is understood with a PlainLoginModule or "
            'ScramLoginModule and username="…" password="…" only',
            clause="sasl.jaas.config",
        )
    return {"sasl.username": found["username"], "sasl.password": found["password"]}
