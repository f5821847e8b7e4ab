"""Who may do what: one function, default deny.

Roles are the platform's names. Reading means what is stored; everything that uses a connector's
credentials (testing, collecting, planning) needs a role that may also change things, since it
costs the source something and shows what is in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from matih_ray.errors import ForbiddenError
from matih_ray.model.ids import TenantId


class Role(str, Enum):
    """What a token may say about its holder."""

    ADMIN = "ROLE_ADMIN"
    DATA_ENGINEER = "ROLE_DATA_ENGINEER"
    VIEWER = "ROLE_VIEWER"


class Action(str, Enum):
    """What somebody wants to do with a tenant's resources."""

    READ = "read"  # show what is stored
    CONNECT = "connect"  # create, change, delete and use connectors
    RUN = "run"  # start, pause, resume and cancel runs
    RESET = "reset"  # forget checkpoints
    MAINTAIN = "maintain"  # rewrite tables without changing their rows


_WRITER = frozenset(Action)
_ALLOWED: dict[Role, frozenset[Action]] = {
    Role.ADMIN: _WRITER,
    Role.DATA_ENGINEER: _WRITER,
    Role.VIEWER: frozenset({Action.READ}),
}


@dataclass(frozen=True)
class Principal:
    """Who is asking. Built from a verified token, or by an operator's own process."""

    subject: str
    tenant_id: TenantId
    roles: frozenset[Role]


def authorize(principal: Principal, action: Action, tenant_id: TenantId) -> None:
    """Do nothing if the principal may do this in the tenant.

    Raises:
        ForbiddenError: Another tenant, or no role that allows it. The answer for another tenant
            is the same whether that tenant exists or not.
    """
    if principal.tenant_id != tenant_id:
        raise ForbiddenError("the token is for another tenant")
    if not any(action in _ALLOWED[role] for role in principal.roles):
        needed = sorted(role.value for role, actions in _ALLOWED.items() if action in actions)
        raise ForbiddenError(
            f"this needs one of the roles {', '.join(needed)}", action=action.value
        )
