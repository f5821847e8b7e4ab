"""Logs: one object per line, with what was bound, and never a secret."""

import json
import threading

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from matih_ray import telemetry
from matih_ray.settings import Settings
from matih_ray.telemetry import REDACTED, bind, configure_logging, is_secret_name, redact

CANARY = "hunter2-canary"


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]):
    structlog.contextvars.clear_contextvars()
    yield capsys
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


def lines(captured: pytest.CaptureFixture[str]) -> list[dict]:
    return [json.loads(line) for line in captured.readouterr().err.splitlines()]


def test_a_line_is_one_json_object_with_what_was_bound(stderr):
    configure_logging(Settings(log_format="json"))
    bind(tenant="acme", run="r-1", slice="s-0", unit=None)
    structlog.get_logger("x").info("slice committed", rows=3)
    (line,) = lines(stderr)
    assert line["event"] == "slice committed"
    assert line["level"] == "info"
    assert (line["tenant"], line["run"], line["slice"], line["rows"]) == ("acme", "r-1", "s-0", 3)
    assert "unit" not in line
    assert line["timestamp"].endswith("Z")


def test_leaving_a_binding_restores_what_was_bound_before(stderr):
    configure_logging(Settings())
    log = structlog.get_logger()
    bind(tenant="acme", slice="s-0")
    with bind(slice="s-1"):
        log.info("inside")
    log.info("outside")
    assert [line["slice"] for line in lines(stderr)] == ["s-1", "s-0"]


def test_bindings_do_not_cross_threads(stderr):
    configure_logging(Settings())
    bind(tenant="acme")
    thread = threading.Thread(target=lambda: structlog.get_logger().info("elsewhere"))
    thread.start()
    thread.join()
    assert "tenant" not in lines(stderr)[0]


def test_lines_below_the_level_are_not_written(stderr):
    configure_logging(Settings(log_level="WARNING"))
    log = structlog.get_logger()
    log.info("no")
    log.warning("yes")
    assert [line["event"] for line in lines(stderr)] == ["yes"]


def test_configuring_again_reaches_loggers_made_before(stderr):
    configure_logging(Settings(log_level="ERROR"))
    log = structlog.get_logger()
    log.info("no")
    configure_logging(Settings(log_level="INFO"))
    log.info("yes")
    assert [line["event"] for line in lines(stderr)] == ["yes"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_secret_reaches_a_line(stderr, log_format):
    configure_logging(Settings(log_format=log_format))
    bind(tenant="acme")
    log = structlog.get_logger()
    url = f"postgresql://app:{CANARY}@db:5432/x"
    log.info(
        url,
        password=CANARY,
        config={"nested": [{"apiToken": CANARY}, f"redis://:{CANARY}@cache"]},
        headers={"Authorization": f"Bearer {CANARY}"},
        dsn=f"host=db password={CANARY}",
        query=f"https://host/path?access_token={CANARY}&page=2",
    )
    local = CANARY  # a local variable that a traceback with locals would show
    try:
        int(f"postgresql://app:{local}@db/x")
    except ValueError:
        log.exception("failed")
    text = stderr.readouterr().err
    assert CANARY not in text
    assert REDACTED in text
    assert "page=2" in text
    assert "ValueError" in text


@pytest.mark.parametrize(
    "name",
    [
        "password", "db_password", "dbPassword", "dbpassword", "PGPASSWORD", "client_secret",
        "clientSecret", "token", "access-token", "accessToken", "apiKey", "apikey", "X-API-Key",
        "sasKey", "key", "credentials", "Authorization", "dsn", "metadata_dsn", "passphrase",
    ],
)  # fmt: skip
def test_secret_names_are_recognised(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    ["slice", "slice_key", "sliceKey", "primaryKey", "tenant", "monkey", "rows", "tokenizer",
     "kv_key", "author", "run", "key_column", "credential_name", "event"],
)  # fmt: skip
def test_harmless_names_stay_readable(name):
    assert not is_secret_name(name)


SCALARS = st.none() | st.booleans() | st.integers() | st.just(CANARY)


@given(
    st.recursive(
        SCALARS,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(["rows", "a", "list"]), inner, max_size=4)
        ),
        max_leaves=20,
    ),
    st.sampled_from(["password", "api_key", "token", "dsn"]),
)
def test_whatever_lies_under_a_secret_name_is_gone(value, name):
    assert CANARY not in json.dumps(redact({"outer": [{name: value}]}))


def test_a_huge_value_is_cut_instead_of_rendered():
    shown = redact({"rows": list(range(100_000))})
    assert len(json.dumps(shown)) < 2_000
    deep: object = 1
    for _ in range(1_000):
        deep = [deep]
    assert "..." in json.dumps(redact(deep))


def test_metric_names_share_the_prefix_and_differ():
    names = [value for name, value in vars(telemetry).items() if name.startswith("METRIC_")]
    names = [name for name in names if isinstance(name, str)]
    assert len(names) == len(set(names)) >= 10
    assert all(name.startswith("matih_") for name in names)
