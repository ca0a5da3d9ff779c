"""Who carries a version on to staging when several people approve it at the same moment, and when an approval has expired."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from falaj.kernel.environments import STAGING
from tests.lifecycle.house import house


def test_of_two_who_complete_it_at_once_one_rehearsal_comes(tmp_path: Path) -> None:
    """Both read that it is registered, and both see that there are enough."""
    with house(tmp_path, staging_approvals=2) as home:
        peers = [home.person(name, "ml-engineer") for name in ("peer", "other")]
        version = home.packaged()
        home.measured(version)
        home.plane.registry.register(version.digest, home.author.name, home.operation())
        stale = home.now(version)
        first, last = (
            home.plane.changes.decide(who, home.plane.registry.subject(stale, STAGING), True, "read") for who in peers
        )
        flows = {home.plane.environments.approve(who, stale, "read", STAGING)["flow"] for who in peers}
        assert flows == {f"stg_{last.id.partition('_')[2]}"} and first.id != last.id
        home.finished(*flows)


def test_what_expired_is_given_again(tmp_path: Path) -> None:
    with house(tmp_path, staging_approvals=1) as home:
        peer = home.person("peer", "ml-engineer")
        version = home.packaged()
        home.measured(version)
        home.plane.registry.register(version.digest, home.author.name, home.operation())
        old = home.plane.changes.decide(peer, home.plane.registry.subject(home.now(version), STAGING), True, "read")
        home.plane.clock.set(home.plane.clock.now() + timedelta(days=40), 1)
        given = home.plane.environments.approve(peer, home.now(version), "read again", STAGING)
        assert given["approval"] != old.id and given["flow"]
        home.finished(given["flow"])
