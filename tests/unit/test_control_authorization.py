"""Default deny: only a known role, in the token's own tenant, for an action that the role has."""

from __future__ import annotations

import pytest

from matih_ray.control.authorization import Action, Principal, Role, authorize
from matih_ray.errors import ForbiddenError
from matih_ray.model.ids import TenantId

ACME, GLOBEX = TenantId("acme"), TenantId("globex")
READERS = {Role.ADMIN, Role.DATA_ENGINEER, Role.VIEWER}
WRITERS = {Role.ADMIN, Role.DATA_ENGINEER}
ALLOWED = {
    Action.READ: READERS,
    Action.CONNECT: WRITERS,
    Action.RUN: WRITERS,
    Action.RESET: WRITERS,
    Action.MAINTAIN: WRITERS,
}


def principal(*roles: Role, tenant: TenantId = ACME) -> Principal:
    return Principal("ann", tenant, frozenset(roles))


def test_the_table_names_every_action():
    assert set(ALLOWED) == set(Action)


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("role", Role)
def test_a_role_has_its_actions_and_no_others(role: Role, action: Action):
    if role in ALLOWED[action]:
        authorize(principal(role), action, ACME)
    else:
        with pytest.raises(ForbiddenError, match="ROLE_ADMIN, ROLE_DATA_ENGINEER"):
            authorize(principal(role), action, ACME)


@pytest.mark.parametrize("action", Action)
def test_nobody_gets_into_another_tenant_and_without_a_role_nobody_gets_in(action: Action):
    with pytest.raises(ForbiddenError) as other_tenant:
        authorize(principal(*Role), action, GLOBEX)
    assert "globex" not in other_tenant.value.message
    assert other_tenant.value.context == {}
    with pytest.raises(ForbiddenError):
        authorize(principal(), action, ACME)
