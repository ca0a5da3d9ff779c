"""Packaging the bytes of a version again or twice at once, what a refusal says, and what others decide meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from falaj.governance.signing.signer import EnvelopeSigner
from falaj.kernel.environments import STAGING
from falaj.kernel.errors import Conflict, Denied
from falaj.lifecycle.evidence.model import Proven, Verdict
from falaj.lifecycle.registry.model import unpassed
from falaj.lifecycle.registry.service import RegistryService
from falaj.storage.blobs.local import blob_path
from tests.lifecycle.house import NAMES, House, rehearsal_of


def test_a_refusal_by_a_gate_says_why(home: House) -> None:
    version = home.packaged(model="weak")
    home.measured(version, metric_roc_auc=0.58, parity_max_abs_difference=float("nan"))
    with pytest.raises(Denied) as refusal:
        home.plane.registry.register(version.digest, "engineer", home.operation())
    assert refusal.value.message == (
        "weak is not registered: metric roc_auc: Failed (0.58 misses >= 0.6); "
        "parity max_abs_difference: Error (the value is not a number)"
    )
    assert home.now(version).reason in refusal.value.message


def test_a_reason_stays_on_its_line() -> None:
    verdicts = {"scan": Verdict.ERROR}
    assert unpassed(("scan",), verdicts, {"scan": "one\n  two"}) == ["scan: Error (one two)"]
    (long,) = unpassed(("scan",), verdicts, {"scan": "x" * 1000})
    assert len(long) < 220 and long.endswith("…)")
    assert unpassed(("scan", "parity"), verdicts) == ["scan: Error", "parity: no evidence"]


def test_what_holds_of_a_refused_version_is_its_newest_packaging(home: House) -> None:
    """A signature that was lost is made good by training again; so are gates, and whoever trained it is the author."""
    version = home.packaged(gates=(*NAMES, "metric log_loss"), model="again")
    home.measured(version)
    with pytest.raises(Denied):
        home.plane.registry.register(version.digest, "engineer", home.operation())
    kept = home.plane.blobs.get(version.signature)
    lost = home.plane.blobs.put(b"{}")
    newer = msgspec.structs.replace(version, gates=NAMES, author="successor", run="run_newer", signature=lost)
    home.plane.registry.package(newer, "successor", home.operation())
    blob_path(home.plane.blobs.root, lost).unlink()
    found = home.now(version)
    assert (found.state, found.gates, found.author, found.run) == ("candidate", NAMES, "successor", "run_newer")
    assert found.created_at == version.created_at
    with pytest.raises(Denied) as refusal:
        home.plane.registry.admit(version.digest, "measurement", home.owner)
    assert refusal.value.code == "unsigned"
    home.plane.registry.package(
        msgspec.structs.replace(newer, signature=home.plane.blobs.put(kept)), "successor", home.operation()
    )
    home.measured(version)
    done = home.plane.registry.register(version.digest, "successor", home.operation())
    assert done["state"] == "registered"


def test_a_decided_version_keeps_what_it_was_packaged_with(home: House) -> None:
    version = home.approved()
    other = msgspec.structs.replace(version, author="somebody", gates=("scan",), approver_roles=("viewer",))
    home.plane.registry.package(other, "somebody", home.operation())
    assert home.now(version) == version


class Meanwhile:
    """The evidence of a house; `first` happens while it is read."""

    def __init__(self, home: House, first: Callable[[], object]) -> None:
        self._home = home
        self._first = first

    def proven(self, digest: str) -> Proven:
        found = self._home.plane.evidence.proven(digest)
        self._first()
        return found


def registry_of(home: House, **changed: object) -> RegistryService:
    """The house's registry, with some of what it works with replaced."""
    whole = home.plane.registry
    return RegistryService(whole._door, msgspec.structs.replace(whole._p, **changed))


def test_two_builds_of_the_same_bytes_at_once_give_one_number(home: House) -> None:
    version = home.packaged(model="twins")
    home.measured(version)
    registry = home.plane.registry
    late = registry_of(
        home,
        evidence=Meanwhile(home, lambda: registry.register(version.digest, "engineer", home.operation())),
    )
    with pytest.raises(Conflict) as refusal:
        late.register(version.digest, "engineer", home.operation())
    assert refusal.value.code == "changed_meanwhile"
    assert home.now(version).number == 1


class Slow:
    """An environment's signer; `first` happens while it signs."""

    def __init__(self, signer: EnvelopeSigner, first: Callable[[], object]) -> None:
        self._signer = signer
        self._first = first

    def sign_statement(self, statement: dict[str, Any]) -> dict[str, Any]:
        self._first()
        return self._signer.sign_statement(statement)


@pytest.mark.parametrize("passed", [True, False])
def test_what_was_decided_while_a_rehearsal_was_signed_is_kept(home: House, passed: bool) -> None:
    version = home.packaged(model="decided" if passed else "undone")
    home.measured(version)
    home.plane.registry.register(version.digest, "engineer", home.operation())

    def decide() -> None:
        home.plane.registry.move(version.digest, "rejected", "not now", "risk", home.operation())

    signers = {**home.plane.registry._p.signers, STAGING: Slow(home.plane.registry._p.signers[STAGING], decide)}
    found = rehearsal_of(home.plane, version.digest, passed=passed, reason="" if passed else "it was slow")
    late = registry_of(home, signers=signers)
    if passed:
        assert late.rehearsed(found, "engineer", home.operation()) == "rejected"
    else:
        with pytest.raises(Denied):
            late.rehearsed(found, "engineer", home.operation())
    assert (home.now(version).state, home.now(version).reason) == ("rejected", "not now")
