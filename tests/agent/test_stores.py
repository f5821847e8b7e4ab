"""What every store of sessions does, and what is particular to Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone

import pytest
from pydantic import SecretStr

from matih_ray.agent import sessions_redis
from matih_ray.agent.conversation import Conversation, State
from matih_ray.agent.events import Connect, Discover, DropSecrets, Execute, Remove
from matih_ray.agent.sessions import MemorySessions, Session, SessionKey, SessionStore, Turn
from matih_ray.agent.sessions_redis import RedisSessions
from matih_ray.errors import ConfigurationError, ConflictError, SessionsFullError, StateError
from matih_ray.errors import NotFoundError as NotFound
from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.testing.devstack.redis import RedisServer

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
CANARY = "hunter2-canary"


@pytest.fixture(scope="module")
def server():
    with RedisServer(password=CANARY) as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
def opened(request, server) -> Callable[[], object]:
    """Opens an empty store for at most three sessions, to be used in the loop it is opened in."""

    @asynccontextmanager
    async def opening() -> AsyncIterator[SessionStore]:
        if request.param == "memory":
            yield MemorySessions(3)
            return
        store = RedisSessions(SecretStr(server.url), 3)
        await store._client.flushdb()
        yield store
        await store.close()

    return opening


def session(id_: str, used_at: datetime = NOW, **changes) -> Session:
    return Session(
        session_id=id_,
        tenant_id=TenantId("acme {}"),
        subject="ann",
        conversation=Conversation(state=State.REVIEW, fields={"host": "ä\x00\n"}),
        history=(Turn(role="user", message="hi", state=State.WELCOME, at=NOW),),
        created_at=NOW,
        used_at=used_at,
        **changes,
    )


def test_what_is_stored_comes_back_whole(opened):
    async def check():
        async with opened() as store:
            await store.create(session("a"))
            assert await store.get("a") == session("a")
            unfinished = (
                DropSecrets(),
                Connect(),
                Discover(is_new=True),
                Execute(),
                Remove(EndpointId("c")),
            )
            other = session("a", unfinished=unfinished, has_secrets=True)
            async with store.turn("a") as fence:
                await store.put(other, fence)
            found = await store.get("a")
            assert found == other
            assert [type(e) for e in found.unfinished] == [type(e) for e in unfinished]
            assert await store.delete("a")
            assert not await store.delete("a")

    asyncio.run(check())


def test_what_is_unknown_is_said_to_be(opened):
    async def check():
        async with opened() as store:
            with pytest.raises(NotFound):
                await store.get("a")
            with pytest.raises(NotFound):
                await store.put(session("a"), 1)
            with pytest.raises(NotFound):
                async with store.turn("a"):
                    pass

    asyncio.run(check())


def test_a_full_store_refuses_until_there_is_room(opened):
    async def check():
        async with opened() as store:
            for id_ in "abc":
                await store.create(session(id_))
            with pytest.raises(SessionsFullError, match="3 conversations"):
                await store.create(session("d"))
            await store.delete("b")
            await store.create(session("d"))

    asyncio.run(check())


def test_those_not_used_since_are_evicted_and_named(opened):
    async def check():
        async with opened() as store:
            for hours, id_ in enumerate("abc"):
                await store.create(session(id_, NOW + timedelta(hours=hours)))
            async with store.turn("a") as fence:
                await store.put(session("a", NOW + timedelta(hours=5)), fence)
            evicted = await store.evict(NOW + timedelta(hours=2))
            assert evicted == [SessionKey(TenantId("acme {}"), "b")]
            assert await store.evict(NOW + timedelta(hours=2)) == []
            with pytest.raises(NotFound):
                await store.get("b")
            assert (await store.get("c")).session_id == "c"

    asyncio.run(check())


def test_turns_of_a_session_follow_each_other_and_those_of_others_do_not_wait(opened):
    async def check():
        async with opened() as store:
            await store.create(session("a"))
            await store.create(session("b"))
            inside: list[int] = []
            most = 0

            async def turn() -> None:
                nonlocal most
                async with store.turn("a") as fence:
                    inside.append(fence)
                    most = max(most, len(inside))
                    await asyncio.sleep(0)
                    async with store.turn("b"):
                        pass
                    inside.remove(fence)

            await asyncio.gather(*(turn() for _ in range(20)))
            assert most == 1
            async with store.turn("a") as fence:
                assert fence == 21

    asyncio.run(check())


def test_a_turn_that_was_overtaken_stores_nothing(opened):
    async def check():
        async with opened() as store:
            await store.create(session("a"))
            async with store.turn("a") as early:
                pass
            async with store.turn("a") as late:
                with pytest.raises(ConflictError):
                    await store.put(session("a", has_secrets=True), early)
                await store.put(session("a"), late)
            assert not (await store.get("a")).has_secrets

    asyncio.run(check())


def test_replicas_take_turns_and_the_lock_of_a_dead_one_runs_out(server, monkeypatch):
    monkeypatch.setattr(sessions_redis, "LOCK_S", 0.3)

    async def check():
        one, two = (RedisSessions(SecretStr(server.url)) for _ in range(2))
        await one._client.flushdb()
        await one.create(session("a"))
        order: list[str] = []

        async def turn(store: RedisSessions, name: str) -> None:
            async with store.turn("a"):
                order.append(name)
                await asyncio.sleep(0.5)  # longer than a lock lasts: it is renewed
                order.append(name)

        await asyncio.gather(turn(one, "one"), turn(two, "two"))
        assert order in (["one", "one", "two", "two"], ["two", "two", "one", "one"])
        # one stands still: its lock is not renewed and runs out, and it can store nothing more
        stuck = await one._locked("a")
        async with two.turn("a") as fence:
            assert fence > stuck
            with pytest.raises(ConflictError):
                await one.put(session("a"), stuck)
        for store in (one, two):
            await store.close()

    asyncio.run(check())


def test_a_server_that_is_away_is_a_typed_error_that_shows_no_password(server):
    async def check(url: str) -> str:
        store = RedisSessions(SecretStr(url))
        with pytest.raises(StateError, match="MATIH_AGENT_SESSIONS_URL") as caught:
            await store.get("a")
        await store.close()
        return str(caught.value) + str(caught.value.context)

    wrong = server.url.replace(CANARY, "wrong-canary")
    closed = server.url.replace(str(server.port), "1")
    for url in (wrong, closed):
        assert "canary" not in asyncio.run(check(url))
    with pytest.raises(ConfigurationError, match="MATIH_AGENT_SESSIONS_URL"):
        RedisSessions(SecretStr("mysql://canary@h/1"))
