from __future__ import annotations

import pytest

import falaj as fj
from falaj.governance.identity.model import ROLES
from falaj.kernel.errors import Invalid


@pytest.mark.parametrize("role", ROLES)
def test_an_approval_names_a_role_that_exists(role: str) -> None:
    assert fj.gate.approval(role).role == role


@pytest.mark.parametrize("role", ["risk", "", "Risk-Officer", "system"])
def test_a_role_that_does_not_exist_is_refused_with_those_that_do(role: str) -> None:
    with pytest.raises(Invalid) as refusal:
        fj.gate.approval(role)
    assert refusal.value.code == "wrong_gate" and "risk-officer" in refusal.value.hint
