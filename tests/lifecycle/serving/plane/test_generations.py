"""What is loaded and what is refused, on real bundles, without a server."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from falaj.governance.signing.keys import KeyRing
from falaj.governance.signing.signer import EnvelopeSigner
from falaj.kernel.clock import iso
from falaj.kernel.errors import NotFound, Unauthenticated, Unavailable
from falaj.lifecycle.registry.model import Admission, PackageOutcome
from falaj.lifecycle.registry.statements import admission_statement
from falaj.lifecycle.rollout.model import Route, TrafficPlan
from falaj.lifecycle.serving.model import PLANE_ACTIONS, PREDICT, LoadReport, Release
from falaj.lifecycle.serving.plane.app import model_ready
from falaj.lifecycle.serving.plane.generations import Generations
from falaj.lifecycle.serving.plane.loading import Loader
from falaj.lifecycle.serving.plane.verify import read_trust
from falaj.lifecycle.training.model import Output
from falaj.storage.blobs.local import blob_path
from tests.lifecycle.serving.plane.fleet import Home, flight_contract, flight_graph


class Settable:
    """A clock for tests."""

    def __init__(self) -> None:
        self.shift = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.shift


def generations(home: Home, clock: Settable | None = None) -> Generations:
    trust = read_trust(home.plane / "trust.json")
    loader = Loader(trust, home.plane_key, home.root / "blobs")
    started = Generations(home.plane, trust, home.plane_key, loader, clock or Settable(), PLANE_ACTIONS)
    started.start()
    return started


def package(home: Home, bias: float = 0.0) -> PackageOutcome:
    return home.package(flight_contract(), flight_graph(bias))


def only(found: Generations) -> LoadReport:
    (report,) = found.state.reports
    return report


def serving(found: Generations) -> str:
    return found.state.model("flight-delay").pick("anyone").version.alias


def damaged(data: bytes) -> bytes:
    return data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]


def refuse_blob(home: Home, release: Release, package: PackageOutcome) -> Release:
    path = blob_path(home.root / "blobs", next(f.sha256 for f in package.files if f.path == "model.onnx"))
    path.write_bytes(damaged(path.read_bytes()))
    return release


def refuse_missing_blob(home: Home, release: Release, package: PackageOutcome) -> Release:
    blob_path(home.root / "blobs", next(f.sha256 for f in package.files if f.path == "model.onnx")).unlink()
    return release


def refuse_swapped_files(home: Home, release: Release, package: PackageOutcome) -> Release:
    one, profile, two = release.files
    swapped = (msgspec.structs.replace(one, path=two.path), profile, msgspec.structs.replace(two, path=one.path))
    return msgspec.structs.replace(release, files=swapped)


def refuse_profile(home: Home, release: Release, package: PackageOutcome) -> Release:
    """The profile's content is nothing to the data plane; its bytes are."""
    path = blob_path(home.root / "blobs", next(f.sha256 for f in package.files if f.path == "profile.json"))
    path.write_bytes(damaged(path.read_bytes()))
    return release


def refuse_without_profile(home: Home, release: Release, package: PackageOutcome) -> Release:
    return msgspec.structs.replace(release, files=tuple(f for f in release.files if f.path != "profile.json"))


def refuse_missing_file(home: Home, release: Release, package: PackageOutcome) -> Release:
    return msgspec.structs.replace(release, files=release.files[:1])


def refuse_unsigned_model(home: Home, release: Release, package: PackageOutcome) -> Release:
    return msgspec.structs.replace(release, signature={})


def refuse_stranger_signed_model(home: Home, release: Release, package: PackageOutcome) -> Release:
    own, home.ring = home.ring, KeyRing(home.root / "stranger")
    signature = package_again(home, package).signature
    home.ring = own
    return msgspec.structs.replace(release, signature=signature)


def package_again(home: Home, package: PackageOutcome) -> PackageOutcome:
    again = home.package(flight_contract(), flight_graph())
    assert again.digest == package.digest
    return again


def refuse_other_signature(home: Home, release: Release, package: PackageOutcome) -> Release:
    return msgspec.structs.replace(release, signature=home.package(flight_contract(), flight_graph(1.0)).signature)


def refuse_stranger_admission(home: Home, release: Release, package: PackageOutcome) -> Release:
    return home.release(package, release.alias, EnvelopeSigner(Ed25519PrivateKey.generate()))


def refuse_no_admission(home: Home, release: Release, package: PackageOutcome) -> Release:
    return msgspec.structs.replace(release, admission={})


def refuse_other_environment(home: Home, release: Release, package: PackageOutcome) -> Release:
    return home.release(package, release.alias, environment="staging")


def refuse_expired(home: Home, release: Release, package: PackageOutcome) -> Release:
    return home.release(package, release.alias, expires_at=iso(datetime.now(UTC) - timedelta(seconds=1)))


def refuse_other_digest(home: Home, release: Release, package: PackageOutcome) -> Release:
    other = home.package(flight_contract(), flight_graph(1.0))
    return msgspec.structs.replace(release, admission=home.release(other, release.alias).admission)


def refuse_other_alias(home: Home, release: Release, package: PackageOutcome) -> Release:
    return home.release(package, release.alias, alias="flight-delay@9")


def refuse_other_file_list(home: Home, release: Release, package: PackageOutcome) -> Release:
    return home.release(package, release.alias, files=package.files[:1])


def _with_statement(home: Home, release: Release, change: Callable[[dict[str, Any]], object]) -> Release:
    verdict = msgspec.json.decode(base64.b64decode(release.admission["payload"]))
    change(verdict)
    return msgspec.structs.replace(release, admission=home.signer.sign_statement(verdict))


def refuse_failed_verdict(home: Home, release: Release, package: PackageOutcome) -> Release:
    return _with_statement(home, release, lambda s: s["predicate"].update(properties=["FALAJ_REFUSED"]))


def refuse_other_predicate(home: Home, release: Release, package: PackageOutcome) -> Release:
    return _with_statement(home, release, lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"))


def refuse_other_subject(home: Home, release: Release, package: PackageOutcome) -> Release:
    return _with_statement(home, release, lambda s: s["subject"].append({"name": "x", "digest": {"sha256": "0" * 64}}))


REFUSALS = [
    (refuse_blob, "blob_broken"),
    (refuse_missing_blob, "blob_missing"),
    (refuse_swapped_files, "files_differ"),
    (refuse_missing_file, "files_differ"),
    (refuse_profile, "blob_broken"),
    (refuse_without_profile, "files_differ"),
    (refuse_unsigned_model, "bad_model_signature"),
    (refuse_stranger_signed_model, "bad_signature"),
    (refuse_other_signature, "not_as_signed"),
    (refuse_stranger_admission, "bad_signature"),
    (refuse_no_admission, "bad_envelope"),
    (refuse_other_environment, "wrong_environment"),
    (refuse_expired, "admission_expired"),
    (refuse_other_digest, "admission_for_another_version"),
    (refuse_other_alias, "admission_for_another_version"),
    (refuse_other_file_list, "files_differ"),
    (refuse_failed_verdict, "not_admitted"),
    (refuse_other_predicate, "not_an_admission"),
    (refuse_other_subject, "admission_for_another_version"),
]


def test_a_good_release_is_loaded(home: Home) -> None:
    home.publish(home.bundle(1, [home.release(package(home), "flight-delay@1")]))
    found = generations(home)
    assert (only(found).state, found.state.ready, serving(found)) == ("loaded", True, "flight-delay@1")


@pytest.mark.parametrize(("spoil", "code"), REFUSALS, ids=[spoil.__name__ for spoil, _ in REFUSALS])
def test_a_release_that_is_not_proven_is_refused_with_its_reason(home: Home, spoil: Any, code: str) -> None:
    packaged = package(home)
    release = spoil(home, home.release(packaged, "flight-delay@1"), packaged)
    home.publish(home.bundle(1, [release]))
    found = generations(home)
    report = only(found)
    assert (report.state, report.code) == ("refused", code)
    named = {"refuse_blob": "model.onnx", "refuse_profile": "profile.json"}.get(spoil.__name__, "")
    assert report.reason and named in report.reason
    assert report.hint
    assert not found.state.ready
    with pytest.raises(Unavailable):
        found.state.model("flight-delay")


@pytest.mark.parametrize(("spoil", "code"), REFUSALS, ids=[spoil.__name__ for spoil, _ in REFUSALS])
def test_a_refused_release_leaves_the_previous_version_in_service(home: Home, spoil: Any, code: str) -> None:
    first = home.release(package(home, bias=-3.0), "flight-delay@1")
    home.publish(home.bundle(1, [first]))
    found = generations(home)
    packaged = package(home)
    second = spoil(home, home.release(packaged, "flight-delay@2"), packaged)
    home.publish(home.bundle(2, [second]))
    found.poll()
    assert serving(found) == "flight-delay@1"
    assert [(r.alias, r.state) for r in found.state.reports] == [
        ("flight-delay@2", "refused"),
        ("flight-delay@1", "loaded"),
    ]
    assert found.state.reports[1].code == "kept"
    assert found.state.generation == 2
    again = generations(home)  # a restart comes to the same
    assert (serving(again), again.state.generation) == ("flight-delay@1", 2)


@pytest.mark.parametrize(
    ("contract", "code"),
    [
        (msgspec.structs.replace(flight_contract(), model="other"), "bad_contract"),
        (msgspec.structs.replace(flight_contract(), inputs=flight_contract().inputs[:4]), "contract_and_graph_differ"),
        (msgspec.structs.replace(flight_contract(), tensor="x"), "contract_and_graph_differ"),
        (
            msgspec.structs.replace(flight_contract(), outputs=(Output("y", "FP32", "nothing"),)),
            "contract_and_graph_differ",
        ),
        (
            msgspec.structs.replace(flight_contract(), outputs=(Output("y", "FP32", "probabilities", 2),)),
            "contract_and_graph_differ",
        ),
        (
            msgspec.structs.replace(flight_contract(), outputs=(Output("y", "INT64", "probabilities", 1),)),
            "contract_and_graph_differ",
        ),
        (msgspec.structs.replace(flight_contract(), views=()), "bad_contract"),
        (msgspec.structs.replace(flight_contract(), keys=()), "bad_contract"),
    ],
)
def test_a_contract_that_does_not_fit_is_refused(home: Home, contract: Any, code: str) -> None:
    packaged = home.package(contract, flight_graph())
    home.publish(home.bundle(1, [home.release(packaged, "flight-delay@1")]))
    assert only(generations(home)).code == code


def test_a_graph_that_is_none_is_refused(home: Home) -> None:
    packaged = home.package(flight_contract(), b"not a graph")
    home.publish(home.bundle(1, [home.release(packaged, "flight-delay@1")]))
    assert only(generations(home)).code == "graph_not_loadable"


def test_bundles_that_are_not_good_change_nothing(home: Home) -> None:
    releases = [home.release(package(home), "flight-delay@1")]
    home.publish(home.bundle(5, releases))
    found = generations(home)
    good = found.state
    other = msgspec.structs.replace(home.bundle(6, releases), environment="staging")
    bad_policy = home.bundle(6, releases)
    bad_policy = msgspec.structs.replace(
        bad_policy, access=msgspec.structs.replace(bad_policy.access, policy="permit (")
    )
    bad_plan = home.bundle(6, releases, [TrafficPlan("flight-delay", (Route(releases[0].digest, 60),))])
    cases: list[tuple[Callable[[], None], str]] = [
        (lambda: home.publish(home.bundle(4, releases)), "older_generation"),
        (lambda: home.publish(home.bundle(5, [])), "generation_reused"),
        (lambda: home.publish(home.bundle(6, releases), EnvelopeSigner(Ed25519PrivateKey.generate())), "bad_signature"),
        (lambda: home.publish(other), "wrong_environment"),
        (lambda: home.publish(bad_policy), "bad_policy"),
        (lambda: home.publish(bad_plan), "bad_plan"),
        (lambda: home.publish_raw(b"{}"), "bad_envelope"),
        (lambda: home.publish_raw(b"\xff"), "bad_envelope"),
        (lambda: home.publish_raw(b"[" * 100_000), "bad_envelope"),
    ]
    for publish, code in cases:
        publish()
        assert found.poll()
        assert found.refused_bundle.startswith(f"{code}: "), found.refused_bundle
        assert found.state is good
    home.publish(home.bundle(6, releases))
    found.poll()
    assert (found.refused_bundle, found.state.generation) == ("", 6)


def test_an_older_bundle_is_refused_after_a_restart_too(home: Home) -> None:
    releases = [home.release(package(home), "flight-delay@1")]
    home.publish(home.bundle(5, releases))
    generations(home)
    home.publish(home.bundle(4, releases))
    again = generations(home)
    assert again.state.generation == 5
    assert again.refused_bundle.startswith("older_generation")


@pytest.mark.parametrize("there", [None, b"garbage"])
def test_it_starts_from_the_last_good_bundle_alone(home: Home, there: bytes | None) -> None:
    home.publish(home.bundle(3, [home.release(package(home), "flight-delay@1")]))
    generations(home)
    if there is None:
        (home.plane / "bundle.json").unlink()
    else:
        home.publish_raw(there)
    again = generations(home)
    assert (again.state.generation, serving(again)) == (3, "flight-delay@1")


def test_a_last_good_bundle_is_verified_like_any_other(home: Home) -> None:
    home.publish(home.bundle(3, [home.release(package(home), "flight-delay@1")]))
    generations(home)
    (home.plane / "bundle.json").unlink()
    last = (home.plane / "last-good.json").read_bytes()
    (home.plane / "last-good.json").write_bytes(last.replace(b'"sig":"', b'"sig":"AAAA', 1))
    assert generations(home).state.generation == 0


def test_without_any_bundle_nobody_is_known(home: Home) -> None:
    token = home.token("shop", ("service",))
    found = generations(home)
    with pytest.raises(Unauthenticated):
        found.state.permits.admit(f"Bearer {token}", PREDICT, "flight-delay", datetime.now(UTC))


def test_a_revoked_token_is_unknown_with_the_next_bundle(home: Home) -> None:
    releases = [home.release(package(home), "flight-delay@1")]
    header = f"Bearer {home.token('shop', ('service',))}"
    home.publish(home.bundle(1, releases))
    found = generations(home)
    assert found.state.permits.admit(header, PREDICT, "flight-delay", datetime.now(UTC)).name == "shop"
    with pytest.raises(Unauthenticated):
        found.state.permits.admit(header, PREDICT, "flight-delay", datetime.now(UTC) + timedelta(days=2))
    home.tokens.clear()
    home.publish(home.bundle(2, releases))
    found.poll()
    with pytest.raises(Unauthenticated):
        found.state.permits.admit(header, PREDICT, "flight-delay", datetime.now(UTC))


def test_an_admission_that_expires_while_serving_ends_the_service(home: Home) -> None:
    clock = Settable()
    home.publish(home.bundle(1, [home.release(package(home), "flight-delay@1")]))
    found = generations(home, clock)
    assert not found.expire()
    clock.shift = timedelta(days=31)
    assert found.expire()
    assert (only(found).state, only(found).code) == ("refused", "admission_expired")
    with pytest.raises(Unavailable):
        found.state.model("flight-delay")


def test_a_blob_that_comes_later_is_taken_by_itself(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = package(home)
    path = blob_path(home.root / "blobs", packaged.files[0].sha256)
    home.publish(home.bundle(1, [home.release(packaged, "flight-delay@1")]))
    data = path.read_bytes()
    path.unlink()
    monkeypatch.setattr("falaj.lifecycle.serving.plane.generations.RETRY_SECONDS", 0.0)
    found = generations(home)
    assert only(found).code == "blob_missing"
    path.write_bytes(data)
    assert found.poll()
    assert found.state.ready


def test_a_version_in_service_keeps_its_session_but_not_its_admission(home: Home) -> None:
    packaged = package(home)
    home.publish(home.bundle(1, [home.release(packaged, "flight-delay@1")]))
    found = generations(home)
    before = found.state.model("flight-delay").pick("anyone").version
    home.publish(home.bundle(2, [home.release(packaged, "flight-delay@1")]))
    found.poll()
    assert found.state.model("flight-delay").pick("anyone").version is before
    home.publish(home.bundle(3, [home.release(packaged, "flight-delay@1", environment="staging")]))
    found.poll()
    assert found.state.reports[0].code == "wrong_environment"


def test_traffic_follows_the_weights_and_a_routing_key_stays(home: Home) -> None:
    one, two = home.release(package(home), "flight-delay@1"), home.release(package(home, 1.0), "flight-delay@2")
    plan = TrafficPlan("flight-delay", (Route(one.digest, 80), Route(two.digest, 20, "canary")))
    home.publish(home.bundle(1, [one, two], [plan]))
    model = generations(home).state.model("flight-delay")
    by_key = [model.pick(f"customer {i}").version.alias for i in range(5000)]
    assert by_key == [model.pick(f"customer {i}").version.alias for i in range(5000)]
    assert 0.166 < by_key.count("flight-delay@2") / 5000 < 0.234  # 20 % ± 6 standard deviations
    assert (model.named("2").version.alias, model.named("2").role) == ("flight-delay@2", "canary")
    with pytest.raises(NotFound):
        model.named("3")


def test_the_statement_is_what_the_coordinator_signs() -> None:
    now = datetime.now(UTC)
    admission = Admission(
        "sha256:" + "1" * 64, "m", "m@1", "production", (), "sha256:" + "2" * 64, (), iso(now), iso(now)
    )
    statement = admission_statement(admission)
    assert statement["subject"] == [{"name": "m@1", "digest": {"sha256": "1" * 64}}]
    assert statement["predicate"]["properties"] == ["FALAJ_ADMITTED"]
    assert msgspec.convert(statement["predicate"]["falaj"], Admission) == admission


def test_several_workers_may_write_the_last_good_bundle(home: Home) -> None:
    home.publish(home.bundle(1, [home.release(package(home), "flight-delay@1")]))
    workers = [threading.Thread(target=generations, args=(home,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    (home.plane / "bundle.json").unlink()
    assert generations(home).state.generation == 1
    assert not list(Path(home.plane).glob(".last-good*"))


def test_what_could_not_be_remembered_for_the_disk_s_sake_is_tried_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("falaj.lifecycle.serving.plane.generations.RETRY_SECONDS", 0.0)
    home.publish(home.bundle(5, [home.release(package(home), "flight-delay@1")]))
    (home.plane / "last-good.json").mkdir()  # nothing can be put in its place
    found = generations(home)
    assert (found.state.generation, found.poll()) == (5, True)
    assert found.refused_bundle
    (home.plane / "last-good.json").rmdir()
    assert found.poll()
    assert found.refused_bundle == ""
    (home.plane / "bundle.json").unlink()
    assert generations(home).state.generation == 5
    assert not found.poll()


def test_a_model_whose_stable_version_has_expired_is_not_ready(home: Home) -> None:
    clock = Settable()
    one = home.release(package(home), "flight-delay@1", expires_at=iso(clock.now() + timedelta(days=1)))
    two = home.release(package(home, 1.0), "flight-delay@2")
    plan = TrafficPlan("flight-delay", (Route(one.digest, 80), Route(two.digest, 20, "canary")))
    home.publish(home.bundle(1, [one, two], [plan]))
    found = generations(home, clock)
    call: Any = SimpleNamespace(app=SimpleNamespace(generations=found), parameters={"model": "flight-delay"})
    assert asyncio.run(model_ready(call))[0] == 200
    clock.shift = timedelta(days=2)
    assert found.expire() and not found.state.ready
    with pytest.raises(Unavailable):
        asyncio.run(model_ready(call))
    call.parameters["version"] = "2"
    assert asyncio.run(model_ready(call))[0] == 200
