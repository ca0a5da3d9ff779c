"""Staging that asks for approvals: they are bound to staging, and the last one carries the version on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from falaj.kernel.environments import STAGING
from tests.lifecycle.house import MODEL, House, house


@pytest.fixture(scope="module")
def careful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A home whose staging asks for an approval."""
    with house(tmp_path_factory.mktemp("careful"), staging_approvals=1) as opened:
        opened.person("peer", "ml-engineer")
        yield opened


def test_staging_s_own_approval_is_asked_for_and_starts_it(careful: House) -> None:
    version = careful.packaged()
    careful.measured(version)
    careful.plane.registry.register(version.digest, careful.author.name, careful.operation())
    version = careful.now(version)
    path = f"/api/v1/models/{MODEL}/versions/{version.number}/approvals"
    waits = careful.finished(careful.api("engineer").post(path.replace("approvals", "promotions"), {}).json()["flow"])
    assert waits.result is not None and waits.result["state"] == "registered"
    assert waits.result["waits_for"] == {"environment": STAGING, "approvals": 0, "needed": 1}
    own = careful.api("engineer").post(path, {"reason": "mine", "environment": STAGING})
    assert own.json()["details"]["rules"] == ["four-eyes"]
    given = careful.api("peer").post(path, {"reason": "read it", "environment": STAGING}).json()
    assert (given["approvals"], given["needed"], given["environment"]) == (1, 1, STAGING)
    ended = careful.finished(given["flow"])
    assert ended.error is not None and "nothing to ask" in ended.error["error"]  # it went as far as the rehearsal
    found = careful.plane.registry.admission(version.digest, STAGING)
    assert found is not None and found[0].approvals == (given["approval"],)
    again = careful.api("peer").post(path, {"reason": "again", "environment": STAGING})
    assert again.json()["code"] == "not_awaiting"
    subject = careful.plane.registry.subject(version)
    assert careful.plane.changes.counting(subject) == []  # what was approved for staging is not for production
