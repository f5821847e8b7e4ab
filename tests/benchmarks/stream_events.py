"""Events of the three window jobs: all columns of their sources, 300 to 400 bytes, always the same.

They are up to 20 seconds out of order, for which the jobs' watermarks wait, and one in a hundred is
a minute behind, which is too late where a window has just closed. A job has 2,000 groups, and all
of them come before one comes again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

# A window of each job begins here, so that one closes even in a short run.
START = datetime(2026, 1, 1)  # noqa: DTZ001 - TIMESTAMP has no zone
ROWS_PER_S = 500  # of event time
OUT_OF_ORDER_S = 20
BEHIND_S, BEHIND_SHARE = 60, 0.01
SEED = 7
GROUPS = 2000
STRIDE = 1237  # has no factor in common with GROUPS
PHASES = ("created", "active", "waiting", "active", "completed")
USERS = 40  # of a tenant
MODELS = 20  # of all providers
PROVIDERS = ("anthropic", "openai", "google", None)
Event = Callable[[int, random.Random], dict[str, object]]


def events(event: Event, rows: int) -> Iterator[bytes]:
    """So many events as JSON."""
    chance = random.Random(SEED)
    for row in range(rows):
        behind_s = chance.random() * OUT_OF_ORDER_S
        if chance.random() < BEHIND_SHARE:
            behind_s += BEHIND_S
        at = START + timedelta(seconds=row / ROWS_PER_S - behind_s)
        told = {**event(row, chance), "timestamp": at.isoformat(" ", "milliseconds")}
        yield json.dumps(told).encode()


def state_change(row: int, chance: random.Random) -> dict[str, object]:
    """Of a session, now and then of something else; a group is a tenant."""
    tenant, visit = row * STRIDE % GROUPS, row // GROUPS
    session, phase = divmod(visit, len(PHASES))
    metadata = {
        "duration_ms": chance.randrange(600_000),
        "turn_count": chance.randrange(40),
        "channel": "web",
        "agent_id": f"agent-{chance.randrange(100)}",
    }
    return {
        "event_id": f"e-{row:012d}",
        "event_type": "ai.state-change",
        "tenant_id": f"tenant-{tenant}",
        "entity_type": "agent" if chance.random() < 0.08 else "session_phase",
        "entity_id": f"session-{tenant:06d}-{session:012d}",
        "from_state": PHASES[phase - 1] if phase else None,
        "to_state": PHASES[phase],
        "triggered_by": f"user-{tenant}-{chance.randrange(USERS)}",
        "metadata": None if row % 9 == 0 else json.dumps(metadata),
    }


def agent_trace(row: int, chance: random.Random) -> dict[str, object]:
    """Ended, or now and then just begun; a group is one of 100 agents of one of 20 tenants."""
    agent, tenant = divmod(row * STRIDE % GROUPS, 20)
    action = "failed" if row % 9 == 0 else "completed"
    return {
        "event_id": f"e-{row:012d}",
        "event_type": "agent.trace",
        "tenant_id": f"tenant-{tenant}",
        "trace_id": f"{chance.getrandbits(128):032x}",
        "agent_id": f"agent-{agent}",
        "action": "started" if chance.random() < 0.08 else action,
        "session_id": f"s-{row // 50}",
        "latency_ms": chance.randrange(5000),
        "tokens_input": row % 3000,
        "tokens_output": row % 1000,
        "cost_usd": round(chance.random(), 6),
        "tools_used": ["search", "sql"],
        "error_message": "tool failed" if row % 37 == 0 else None,
    }


def llm_operation(row: int, chance: random.Random) -> dict[str, object]:
    """A call; a group is one of 20 models of one of 100 tenants, some of an unknown provider."""
    tenant, model = divmod(row * STRIDE % GROUPS, MODELS)
    failed = row % 37 == 0
    return {
        "event_id": f"e-{row:012d}-{chance.getrandbits(64):016x}",
        "event_type": "llm.operation",
        "tenant_id": f"tenant-{tenant}",
        "provider": PROVIDERS[model % len(PROVIDERS)],
        "model": f"model-{model}-2026-01-01",
        "cache_hit": chance.random() < 0.3,
        "tokens_input": None if failed else chance.randrange(8000),
        "tokens_output": None if failed else chance.randrange(2000),
        "cost_usd": round(chance.random(), 6),
        "latency_ms": chance.randrange(20_000),
        "success": not failed,
        "error_message": "the provider did not answer in time" if failed else None,
    }
