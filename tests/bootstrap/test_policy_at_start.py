"""A home whose policy cannot hold opens all the same, says so, and can be mended."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import update

from falaj.bootstrap.control_plane import ControlPlane
from falaj.governance.door import Intent
from falaj.governance.policy.decide import default_policy
from falaj.governance.policy.store import policies
from falaj.kernel.access import SYSTEM, Principal, Resource
from falaj.kernel.settings import Settings
from falaj.lifecycle.data.model import ACTIONS as DATA_ACTIONS
from falaj.lifecycle.monitoring.model import POLICY

READ = next(a for a in DATA_ACTIONS if a.name == "data.read")


def opened(home: Path) -> ControlPlane:
    plane = ControlPlane(Settings(home=home, project=home.parent))
    plane.start()
    return plane


def told(plane: ControlPlane) -> list[str]:
    return [i.state for i in plane.incidents.all() if i.kind == POLICY]


def reads(plane: ControlPlane, role: str) -> bool:
    return plane.door.allows(Intent(Principal("asker", roles=(role,)), READ, Resource(READ.resource, "*")))


def test_a_policy_that_was_changed_beside_the_door(tmp_path: Path) -> None:
    home = tmp_path / "home"
    plane = opened(home)
    owner = plane.identity.principal("owner")
    plane.policy.apply(owner, default_policy() + "// mine\n", "a remark")
    text = '@id("everything") permit (principal, action, resource);'
    plane.database.change(lambda tx: tx.execute(update(policies).values(text=text)).rowcount)
    plane.close()

    plane = opened(home)
    try:
        assert told(plane) == ["open"] and "does not hold here" in plane.policy.trouble
        assert reads(plane, "platform-admin") and not reads(plane, "viewer")
        plane.identity.grant(SYSTEM, Principal("vic", "person", ("viewer",)), 1)  # what is published goes with it
        plane.policy.apply(owner, default_policy() + "// mine\n", "as it was")
        assert reads(plane, "viewer")
    finally:
        plane.close()
    plane = opened(home)
    try:
        assert told(plane) == ["resolved"] and plane.policy.trouble == ""
    finally:
        plane.close()
