"""Conversations from the first message to rows, over the real use cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from matih_ray.testing.devstack.postgres import PostgresServer
from tests.agent.lab import AgentLab

SECRET = "s3cret-Pa55"


@pytest.fixture
def shop(postgres: PostgresServer, tmp_path: Path) -> str:
    """A database with three tables; returns the message that connects it."""
    name = f"shop_{tmp_path.name[-20:].lower()}"
    postgres.create_database(name)
    postgres.execute(
        """
        CREATE TABLE orders (id bigint PRIMARY KEY, total numeric(10,2), updated_at timestamptz);
        INSERT INTO orders SELECT g, g * 1.5, now() FROM generate_series(1, 500) g;
        CREATE TABLE customers (id int PRIMARY KEY, name text);
        INSERT INTO customers SELECT g, 'c' || g FROM generate_series(1, 20) g;
        CREATE TABLE audit_log (id int PRIMARY KEY, what text);
        ANALYZE;
        """,
        name,
    )
    return (
        f"postgres at {postgres.host} port {postgres.port}, database {name}, "
        f"user {postgres.user}, password {SECRET}, without ssl"
    )


def test_the_first_answers_are_those_of_the_specification(lab: AgentLab):
    chat = lab.open()
    assert chat.last["state"] == "select_source_type"
    assert chat.last["message"] == ("Welcome! What type of data source would you like to connect?")
    chat.say("postgres")
    assert chat.last == {
        "session_id": chat.last["session_id"],
        "state": "gather_credentials",
        "message": "To connect to PostgreSQL, I'll need: Host, Port, Database, Username, Password",
        "options": [],
        "data": {
            "required_fields": ["host", "port", "database", "username", "password"],
            "missing_fields": ["host", "port", "database", "username", "password"],
            "secret_fields": ["password"],
        },
    }


def test_four_messages_lead_from_nothing_to_runs(lab: AgentLab, shop: str):
    chat = lab.open()
    said = chat.say(shop)
    assert chat.state == "select_streams", said
    assert "public.orders (about 500 rows" in said
    said = chat.say("all but audit*")
    assert chat.state == "configure_sync"
    assert "public.orders: incremental by updated_at" in said
    assert "public.customers: full" in said
    assert "audit" not in said
    said = chat.say("ok")
    assert chat.state == "review"
    said = chat.say("go")
    assert chat.state == "execute"
    outcomes = chat.last["data"]["outcomes"]
    assert [o["unit_id"] for o in outcomes] == ["public.customers", "public.orders"], said
    assert all(o["run_id"] and not o["problem"] for o in outcomes)
    assert SECRET not in str(chat.show())
