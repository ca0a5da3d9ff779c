"""What the data plane is told: signed, growing, sealed to it alone, never about what was not admitted."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from falaj.governance.signing.dsse import verify_envelope
from falaj.governance.signing.keys import plane_key, public_pem
from falaj.governance.signing.sealing import unseal
from falaj.kernel import locks
from falaj.kernel.access import SYSTEM, Principal
from falaj.kernel.errors import Integrity
from falaj.lifecycle.rollout.model import all_to, withdrawn
from falaj.lifecycle.serving.model import BLOB_KEY, BUNDLE_TYPE, PEPPER, Bundle, Judged, PlaneStatus
from falaj.lifecycle.serving.service import live_workers
from falaj.storage.blobs.format import open_sealed
from falaj.storage.blobs.local import blob_path
from tests.lifecycle.house import MODEL, House


def published(home: House) -> Bundle:
    """The bundle that lies where the data plane reads it, through its signature."""
    envelope = msgspec.json.decode((home.plane.layout.plane / "bundle.json").read_bytes())
    key = home.plane.keys.of("production").public_key()
    return msgspec.json.decode(verify_envelope(envelope, BUNDLE_TYPE, [key]), type=Bundle)


@pytest.fixture
def routed(home: House) -> object:
    """An admitted version with all traffic; afterwards the model is withdrawn."""
    version = home.approved()
    home.plane.registry.admit(version.digest, "production", SYSTEM)
    home.plane.rollout.set_plan(all_to(MODEL, version.digest), "risk", home.operation())
    yield version
    home.plane.rollout.set_plan(withdrawn(MODEL), "risk", home.operation())


def test_each_bundle_is_one_generation_later_and_is_audited(home: House) -> None:
    first = home.plane.serving.publish("risk")
    assert [home.plane.serving.publish("risk") for _ in range(2)] == [first + 1, first + 2]
    assert published(home).generation == home.plane.serving.generation() == first + 2
    entry = home.log(action="serving.publish")[0].entry
    assert entry.detail["generation"] == first + 2 and entry.detail["on_behalf_of"] == "risk"


def test_a_repeated_step_publishes_nothing_new(home: House) -> None:
    operation = home.operation()
    generation = home.plane.serving.publish("risk", operation)
    newer = home.plane.serving.publish("risk")
    assert home.plane.serving.publish("risk", operation) == generation
    assert published(home).generation == newer


def test_many_at_once_leave_the_newest(home: House) -> None:
    before = home.plane.serving.generation()
    threads = [threading.Thread(target=home.plane.serving.publish, args=("risk",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert published(home).generation == home.plane.serving.generation() == before + 8


def test_what_was_never_admitted_is_not_published(home: House) -> None:
    version, before = home.approved(), home.plane.serving.generation()
    home.plane.rollout.set_plan(all_to(MODEL, version.digest), "risk", home.operation())
    with pytest.raises(Integrity) as refusal:
        home.plane.serving.publish("risk")
    assert refusal.value.code == "not_admitted"
    assert home.plane.serving.generation() == published(home).generation == before
    home.plane.rollout.set_plan(withdrawn(MODEL), "risk", home.operation())
    assert home.plane.serving.publish("risk") == before + 1


@pytest.mark.usefixtures("routed")
def test_sealed_keys_open_with_the_plane_s_key_only(home: House) -> None:
    home.plane.serving.publish("risk")
    bundle, mine = published(home), plane_key(home.plane.layout.plane)
    (release,) = bundle.releases
    for file in release.files:
        key = unseal(mine, file.key, BLOB_KEY + file.blob)
        assert key == home.plane.blobs.data_key(file.blob)
        sealed = blob_path(home.plane.blobs.root, file.blob).read_bytes()
        assert open_sealed(sealed, key) == home.plane.blobs.get(file.blob)
        with pytest.raises(Integrity):
            unseal(X25519PrivateKey.generate(), file.key, BLOB_KEY + file.blob)
        with pytest.raises(Integrity):
            unseal(mine, file.key, PEPPER)
    assert unseal(mine, bundle.access.pepper, PEPPER) == home.plane.keys.pepper


@pytest.mark.usefixtures("routed")
def test_no_secret_stands_in_a_bundle(home: House) -> None:
    token = home.plane.identity.grant(SYSTEM, Principal("secretive", "person", ("viewer",)), 1).token
    home.plane.serving.publish("risk")
    text = msgspec.json.encode(published(home))
    assert token.encode() not in text and home.plane.keys.pepper not in text
    for secret in (home.plane.keys.kek, home.plane.keys.pepper):
        assert secret.hex().encode() not in text


def test_tokens_that_come_and_go_are_published(home: House) -> None:
    before = home.plane.serving.generation()
    new = home.plane.identity.grant(home.owner, Principal("shop", "service", ("service",)), 1)
    assert home.plane.serving.generation() == before + 1
    assert new.id in {t.id for t in published(home).access.tokens}
    home.plane.identity.revoke(home.owner, new.id)
    assert home.plane.serving.generation() == before + 2
    assert new.id not in {t.id for t in published(home).access.tokens}


def test_the_trust_root_names_the_keys_that_sign(home: House) -> None:
    trust = msgspec.json.decode((home.plane.layout.plane / "trust.json").read_bytes())
    assert trust == {
        "environment": "production",
        "keys": [public_pem(home.plane.keys.of("production"))],
        "model": [public_pem(home.plane.keys.model)],
        "journal": base64.b64encode(home.plane.store_keys.reader()).decode(),
    }


def test_only_workers_that_live_count(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "status").mkdir()
    for name, pid in (("1", os.getpid()), ("2", ended.pid)):
        status = PlaneStatus(
            worker=name, pid=pid, generation=1, environment="production", bundle_issued_at="", refused_bundle="", releases=(),
            address="", started_at="", updated_at="",
        )  # fmt: skip
        (tmp_path / "status" / f"{name}.json").write_bytes(msgspec.json.encode(status))
    (tmp_path / "status" / "3.json").write_bytes(b"{half a file")
    assert live_workers(tmp_path) == []  # an id may be a zombie's, or another process's by now: the lock is not held
    descriptor = locks.take(tmp_path / "status" / "1.lock")
    assert descriptor is not None
    assert [w.worker for w in live_workers(tmp_path)] == ["1"]
    os.close(descriptor)
    assert live_workers(tmp_path / "nowhere") == []


def test_waiting_for_a_plane_that_does_not_run_is_over_at_once(home: House) -> None:
    generation = home.plane.serving.publish("risk")
    assert home.plane.serving.settle(generation, 30) == []
    assert home.plane.serving.observe(generation, "sha256:" + "0" * 64, 30) is None


def test_a_refusal_of_what_lay_there_before_says_nothing_of_what_lies_there_now() -> None:
    before, now, later = Judged("t1", "b1"), Judged("t2", "b1"), Judged("t2", "b2")
    status = PlaneStatus(
        worker="1", pid=1, generation=1, environment="production", bundle_issued_at="", refused_bundle="bad_signature: …",
        releases=(), address="", started_at="", updated_at="", judged=before,
    )  # fmt: skip
    assert status.answered(2, before) and not status.answered(2, now), "an earlier trust root refused it"
    assert not status.has(2, before) and status.has(1, before) and not status.has(1, now)
    taken = msgspec.structs.replace(status, generation=2, refused_bundle="", judged=now)
    assert taken.has(2, now) and not taken.has(3, now)
    assert taken.has(2, later) and taken.answered(2, later), "the next bundle may lie there already"
    assert not taken.has(2, before) and not taken.answered(2, before), "by another trust root a number says nothing"
