"""Keys are replaced and revoked: what was signed before counts on, what may be forged takes no traffic, planes follow."""

from __future__ import annotations

import io
import os
import signal
import tarfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from falaj.bootstrap.control_plane import ControlPlane
from falaj.governance.signing.keys import fingerprint
from falaj.governance.signing.signer import EnvelopeSigner
from falaj.governance.signing.trust import NEVER, SIGNING, Trusted
from falaj.kernel.access import SYSTEM
from falaj.kernel.clock import iso
from falaj.kernel.digests import canonical_json
from falaj.kernel.environments import PRODUCTION
from falaj.kernel.errors import Conflict, FalajError, Integrity
from falaj.kernel.settings import Settings
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.registry.statements import admission_statement, read_admission
from falaj.lifecycle.serving.plane.verify import open_bundle, read_trust
from falaj.lifecycle.serving.service import live_workers
from tests.lifecycle.house import House, house
from tests.lifecycle.loop.test_dossier import handed
from tests.lifecycle.registry.test_waivers import in_force
from tests.lifecycle.registry.test_waivers_end import serving as waived


@pytest.fixture
def own(tmp_path: Path) -> Any:
    """A house whose keys a test may change."""
    with house(tmp_path) as opened:
        yield opened


def serving(home: House) -> ModelVersion:
    version = home.registered()
    assert home.release(version).state == "done"
    return home.now(version)


def print_of(home: House, name: str) -> str:
    return next(r.fingerprint for r in home.plane.signing.records() if r.name == name and not r.until)


def holds(home: House, version: ModelVersion) -> bool:
    """Whether everything that was signed of a version counts now."""
    registry = home.plane.registry
    try:
        registry.check_signature(version)
    except FalajError:
        return False
    proven = home.plane.evidence.proven(version.digest).verdicts
    admitted = all(registry.proven_admission(version.digest, e) for e in registry.let_in(version.digest))
    return admitted and set(proven) == set(version.gates)


def silent(folder: Path, digest: str) -> bool:
    """Whether no worker serves the digest."""
    workers = live_workers(folder)
    return bool(workers) and not any(v.digest == digest for w in workers for v in w.versions)


def serves(folder: Path, digest: str) -> bool:
    workers = live_workers(folder)
    return bool(workers) and all(any(v.digest == digest for v in w.versions) for w in workers)


@pytest.mark.parametrize("name", SIGNING)
def test_after_a_rotation_the_old_counts_and_the_new_signs(own: House, name: str) -> None:
    before, earlier = serving(own), print_of(own, name)
    ended = own.plane.vouching.revoking.rotate(own.owner, name, "it is a year old")
    assert (ended.old, ended.new) == (earlier, print_of(own, name)) and earlier != ended.new
    assert holds(own, before) and own.now(before).state == "serving"
    after = serving(own)
    assert holds(own, after)
    trust = read_trust(own.plane.layout.plane / "trust.json")
    bundle = msgspec.json.decode((own.plane.layout.plane / "bundle.json").read_bytes())
    assert open_bundle(bundle, trust)[0].generation == own.plane.serving.generation()
    for version in (before, after):
        found = own.api().get(f"/api/v1/models/{version.model}/versions/{version.number}/dossier")
        assert found.status_code == 200, found.text
    entry = own.log(action="keys.rotate")[0].entry
    assert entry.detail["old"] == earlier and entry.detail["new"] == ended.new and entry.principal == "owner"


def test_the_old_private_key_is_gone_and_signs_no_more(own: House) -> None:
    version, stolen = serving(own), own.plane.keys.of(PRODUCTION)
    assert isinstance(stolen, Ed25519PrivateKey)
    own.plane.vouching.revoking.rotate(own.owner, PRODUCTION, "a new year")
    kept = [p.read_bytes() for p in own.plane.layout.keys.iterdir()]
    assert not [k for k in kept if k == _pem(stolen)] and len(kept) == 8
    found = own.plane.registry.admission(version.digest, PRODUCTION)
    assert found is not None
    late = msgspec.structs.replace(found[0], issued_at=iso(own.plane.clock.now() + timedelta(seconds=1)))
    with pytest.raises(Integrity):
        read_admission(
            EnvelopeSigner(stolen).sign_statement(admission_statement(late)), own.plane.signing.keys(PRODUCTION)
        )


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("name", "state", "lost"),
    [
        ("model", "refused", "model signature"),
        ("attestation", "refused", "evidence"),
        ("production", "approved", "admission to production"),
        ("staging", "approved", "admission to staging"),
        ("dev", "approved", "admission to dev"),
    ],
)
def test_what_rests_on_a_leaked_key_takes_no_traffic(own: House, name: str, state: str, lost: str) -> None:
    version = serving(own)
    answer = own.api().post("/api/v1/keys/revocations", {"key": name, "reason": "it lay in a mail"})
    assert answer.status_code == 200, answer.text
    (affected,) = answer.json()["affected"]
    assert (affected["version"], affected["lost"][-1]) == (version.alias, lost)
    assert own.now(version).state == state
    planned = {r.digest for p in own.plane.rollout.plans() for r in p.routes}
    assert version.digest not in planned and affected["taken_out"] == ["production"]
    assert own.log(action="keys.revoke")[0].entry.detail["until"] == NEVER


def test_after_a_leak_a_version_comes_back_by_being_admitted_again(own: House) -> None:
    version = serving(own)
    own.plane.vouching.revoking.revoke(own.owner, PRODUCTION, "", "it lay in a mail")
    answer = own.api().post(
        f"/api/v1/models/{version.model}/versions/{version.number}/rollouts", {"reason": "re-admitted", "at_once": True}
    )
    assert own.finished(answer.json()["flow"]).state == "done"
    assert own.now(version).state == "serving" and holds(own, own.now(version))
    with tarfile.open(fileobj=io.BytesIO(handed(own, version))) as folder:  # what no longer counts is not handed out
        assert [n for n in folder.getnames() if "production/" in n] == ["attestations/production/admission-01.json"]


def test_a_waiver_is_signed_anew_after_a_leak(own: House) -> None:
    version = waived(own)
    own.plane.vouching.revoking.revoke(own.owner, PRODUCTION, "", "it lay in a mail")
    assert own.now(version).state != "serving"
    start = f"/api/v1/models/{version.model}/versions/{version.number}/rollouts"
    assert own.plane.registry.lacking(own.now(version)).waived is False  # type: ignore[union-attr]
    in_force(own, own.now(version))
    own.plane.registry.move(version.digest, "approved", "", SYSTEM.name, own.operation())
    answer = own.api().post(start, {"reason": "waived anew", "at_once": True})
    assert own.finished(answer.json()["flow"]).state == "done" and own.now(version).state == "serving"
    assert handed(own, version)


def test_what_was_signed_before_the_leak_counts_on(own: House) -> None:
    version = serving(own)
    since = iso(own.plane.clock.now() + timedelta(milliseconds=1))
    time.sleep(0.01)
    later = serving(own)
    done = own.plane.vouching.revoking.revoke(own.owner, "attestation", since, "the laptop was stolen")
    assert [a["version"] for a in done["affected"]] == [later.alias]
    assert holds(own, own.now(version)) and own.now(later).state == "refused"


def test_a_running_data_plane_follows_a_rotation_without_a_pause(own: House) -> None:
    version = serving(own)
    with own.data_plane():
        folder = own.plane.layout.plane
        assert serves(folder, version.digest)
        for name in (PRODUCTION, "model"):
            own.plane.vouching.revoking.rotate(own.owner, name, "a new year")
            generation = own.plane.serving.generation()
            workers = own.plane.serving.settle(generation, 10)
            assert all(w.generation == generation and not w.refused_bundle for w in workers)
            assert serves(folder, version.digest)


@pytest.mark.parametrize("name", [PRODUCTION, "model"])
def test_a_running_data_plane_stops_what_a_leaked_key_signed(own: House, name: str) -> None:
    version = serving(own)
    with own.data_plane():
        folder = own.plane.layout.plane
        assert serves(folder, version.digest)
        done = own.plane.vouching.revoking.revoke(own.owner, name, "", "it lay in a mail")
        assert silent(folder, version.digest), "the command returns once no worker answers with it any more"
        assert done["behind"] == []


def test_a_worker_that_does_not_follow_a_revocation_is_named(own: House) -> None:
    version = serving(own)
    with own.data_plane():
        folder = own.plane.layout.plane
        (worker,) = live_workers(folder)
        os.kill(worker.pid, signal.SIGSTOP)
        try:
            done = own.plane.vouching.revoking.revoke(own.owner, PRODUCTION, "", "it lay in a mail")
        finally:
            os.kill(worker.pid, signal.SIGCONT)
        why = f"it still has generation {worker.generation}"
        assert done["behind"] == [{"environment": PRODUCTION, "worker": worker.worker, "why": why}]
        own.plane.serving.settle(own.plane.serving.generation(), 10)
        assert silent(folder, version.digest)


def test_a_forged_bundle_of_a_leaked_key_does_not_outlive_it(own: House) -> None:
    """Its generation is higher than ours: that number is the forger's too."""
    version, stolen = serving(own), own.plane.keys.of(PRODUCTION)
    folder = own.plane.layout.plane
    with own.data_plane():
        real = msgspec.json.decode((folder / "bundle.json").read_bytes())
        bundle, _ = open_bundle(real, read_trust(folder / "trust.json"))
        forged = msgspec.structs.replace(bundle, generation=bundle.generation + 1000)
        payload = EnvelopeSigner(stolen).sign(real["payloadType"], canonical_json(forged))
        (folder / "bundle.json").write_bytes(msgspec.json.encode(payload))
        assert all(w.generation == forged.generation for w in own.plane.serving.settle(forged.generation, 10))
        own.plane.vouching.revoking.revoke(own.owner, PRODUCTION, "", "it was stolen")
        generation = own.plane.serving.generation()
        assert [w.generation for w in live_workers(folder)] == [generation] * len(live_workers(folder))
    with own.data_plane():  # and none of it comes back with a restart
        assert all(w.generation == generation for w in own.plane.serving.settle(generation, 10))
        assert silent(folder, version.digest)


def test_a_forger_who_writes_an_earlier_time_is_believed_by_no_bundle(own: House) -> None:
    serving(own)
    stolen = own.plane.keys.of(PRODUCTION)
    trust_before = read_trust(own.plane.layout.plane / "trust.json")
    bundle = msgspec.json.decode((own.plane.layout.plane / "bundle.json").read_bytes())
    real, _ = open_bundle(bundle, trust_before)
    early = msgspec.structs.replace(real, issued_at="2000-01-01T00:00:00.000Z")
    forged = EnvelopeSigner(stolen).sign(bundle["payloadType"], canonical_json(early))
    own.plane.vouching.revoking.revoke(own.owner, PRODUCTION, iso(own.plane.clock.now()), "it was stolen")
    with pytest.raises(Integrity):
        open_bundle(forged, read_trust(own.plane.layout.plane / "trust.json"))


def test_a_key_that_was_replaced_can_still_be_revoked_and_only_ever_earlier(own: House) -> None:
    version, old = serving(own), print_of(own, "model")
    revoking = own.plane.vouching.revoking
    ended = revoking.rotate(own.owner, "model", "a new year")
    done = revoking.revoke(own.owner, old, "", "it was in a backup")
    assert done["new"] == "" and print_of(own, "model") == ended.new
    assert [a["version"] for a in done["affected"]] == [version.alias]
    with pytest.raises(Conflict):
        revoking.revoke(own.owner, old, iso(own.plane.clock.now()), "again")


@pytest.mark.parametrize("committed", [False, True], ids=["before the commit", "after the commit"])
def test_a_crash_leaves_one_key_or_the_other(tmp_path: Path, committed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path / "home", project=tmp_path)
    plane = ControlPlane(settings)
    plane.start()
    old, owner = plane.keys.of(PRODUCTION), plane.identity.principal("owner")

    def crash(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(plane.keys, "take_over", crash)
    if not committed:
        monkeypatch.setattr(plane.door, "change", crash)
    with pytest.raises(KeyboardInterrupt):
        plane.signing.rotate(owner, PRODUCTION, "a new year")
    monkeypatch.undo()
    plane.close()
    again = ControlPlane(settings)
    try:
        again.start()
        assert (fingerprint(again.keys.of(PRODUCTION)) == fingerprint(old)) is not committed
        assert len(again.signing.trusted(PRODUCTION)) == (2 if committed else 1)
        assert not list(again.layout.keys.glob(".*.next"))
        trust = read_trust(again.layout.plane / "trust.json")
        again.serving.publish(SYSTEM.name)
        bundle = msgspec.json.decode((again.layout.plane / "bundle.json").read_bytes())
        assert open_bundle(bundle, trust)
        assert all(isinstance(k, Trusted) for k in trust.keys)
    finally:
        again.close()
