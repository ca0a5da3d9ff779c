"""Packaging the bytes of a refused version again, and what a refusal by a gate says."""

from __future__ import annotations

import msgspec
import pytest

from falaj.kernel.errors import Denied
from falaj.lifecycle.evidence.model import Verdict
from falaj.lifecycle.registry.model import unpassed
from falaj.storage.blobs.local import blob_path
from tests.lifecycle.house import NAMES, House


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
