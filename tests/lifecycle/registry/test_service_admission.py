"""What admits a version: every item of it, taken away or changed one at a time."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from sqlalchemy import delete, update

from falaj.bootstrap import api
from falaj.governance.changes.model import Approval, Subject
from falaj.governance.changes.store import approvals as approvals_table
from falaj.kernel.access import SYSTEM
from falaj.kernel.digests import sha256
from falaj.kernel.environments import MEASUREMENT
from falaj.kernel.errors import Conflict, Denied, Invalid, NotFound
from falaj.lifecycle.evidence.store import statements_table
from falaj.lifecycle.registry.model import STATES, ModelVersion, parse_reference
from falaj.lifecycle.registry.store import SqlVersionStore, versions
from falaj.storage.blobs.local import blob_path
from tests.lifecycle.house import NAMES, House

PRODUCTION = "production"
Mutation = Callable[[House, ModelVersion], object]


def set_version(**values: object) -> Mutation:
    return lambda home, v: home.sql(update(versions).where(versions.c.digest == v.digest).values(**values))


def without_gate(gate: str) -> Mutation:
    c = statements_table.c
    return lambda home, v: home.sql(delete(statements_table).where(c.digest == v.digest, c.gate == gate))


def without_blob(home: House, digest: str) -> None:
    blob_path(home.plane.blobs.root, digest).unlink()


def without_envelope(home: House, version: ModelVersion) -> None:
    filed = home.plane.evidence.statements(version.digest)
    without_blob(home, next(s.envelope for s in filed if s.gate == NAMES[0]))


def without_signature(home: House, version: ModelVersion) -> None:
    without_blob(home, version.signature)


def another_signature(home: House, version: ModelVersion) -> None:
    set_version(signature=home.packaged().signature)(home, version)


def no_signature_but_a_blob(home: House, version: ModelVersion) -> None:
    set_version(signature=home.plane.blobs.put(b"no JSON"))(home, version)


def another_file(home: House, version: ModelVersion) -> None:
    files = (msgspec.structs.replace(version.files[0], sha256=sha256(b"other")), *version.files[1:])
    set_version(files=msgspec.json.encode(files).decode())(home, version)


def another_model(home: House, version: ModelVersion) -> None:
    """Files and signature of another version, both true, under this version's digest."""
    other = home.packaged()
    set_version(files=msgspec.json.encode(other.files).decode(), signature=other.signature)(home, version)


def more_evidence(home: House, version: ModelVersion) -> None:
    home.measured(version, metric_roc_auc=0.9)


def without_approval(home: House, version: ModelVersion) -> None:
    home.sql(delete(approvals_table).where(approvals_table.c.digest == version.digest))


def set_approval(**values: object) -> Mutation:
    c = approvals_table.c
    return lambda home, v: home.sql(update(approvals_table).where(c.digest == v.digest).values(**values))


def by_its_author(home: House, version: ModelVersion) -> None:
    set_approval(principal=version.author)(home, version)


REFUSED: dict[str, tuple[Mutation, str]] = {
    **{f"no {gate}": (without_gate(gate), "evidence_missing") for gate in NAMES},
    "an envelope is gone": (without_envelope, "evidence_missing"),
    "no gate was declared": (set_version(gates="[]"), "evidence_missing"),
    "one gate more was declared": (set_version(gates=msgspec.json.encode([*NAMES, "latency p99_ms"]).decode()), "evidence_missing"),
    "no signature": (without_signature, "unsigned"),
    "no signature is named": (set_version(signature=""), "unsigned"),
    "another version's signature": (another_signature, "bad_signature"),
    "something else as a signature": (no_signature_but_a_blob, "bad_signature"),
    "another file": (another_file, "bad_signature"),
    "another model's files and signature": (another_model, "bad_signature"),
    "evidence was measured again": (more_evidence, "evidence_changed"),
    "it was registered with other evidence": (set_version(evidence=sha256(b"")), "evidence_changed"),
    "no approval": (without_approval, "not_approved"),
    "two approvals are needed": (set_version(approvals=2), "not_approved"),
    "the approval saw other evidence": (set_approval(evidence=sha256(b"")), "not_approved"),
    "the decision was no": (set_approval(decision="rejected"), "not_approved"),
    "the author's own approval": (by_its_author, "not_approved"),
    **{f"it is {s}": (set_version(state=s), "wrong_state") for s in ("candidate", "refused", "registered", "rejected", "awaiting approval")},
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_one_thing_amiss_and_it_does_not_enter_production(home: House, name: str) -> None:
    version = home.approved()
    mutate, code = REFUSED[name]
    mutate(home, version)
    with pytest.raises(Denied) as refusal:
        home.plane.registry.admit(version.digest, PRODUCTION, SYSTEM)
    assert refusal.value.code == code and refusal.value.hint
    entry = home.log(action="registry.admit_approved", resource_id=home.now(version).alias, outcome="refused")[0].entry
    assert entry.detail["code"] == code
    assert home.plane.registry.admission(version.digest, PRODUCTION) is None


def test_the_one_combination_that_enters(home: House) -> None:
    version = home.approved()
    admission = home.plane.registry.admit(version.digest, PRODUCTION, SYSTEM)
    assert (admission.files, admission.evidence, len(admission.approvals)) == (version.files, version.evidence, 1)
    found = home.plane.registry.admission(version.digest, PRODUCTION)
    assert found is not None and found[0] == admission


@pytest.mark.parametrize("state", [s for s in STATES if s in ("approved", "serving", "retired")])
def test_a_version_that_was_approved_once_may_enter_again(home: House, state: str) -> None:
    version = home.approved()
    set_version(state=state)(home, version)
    assert home.plane.registry.admit(version.digest, PRODUCTION, home.risk).alias == version.alias


def test_measuring_needs_a_signature_and_nothing_else(home: House) -> None:
    version = home.packaged()
    assert home.plane.registry.admit(version.digest, MEASUREMENT, SYSTEM).approvals == ()
    without_signature(home, version)
    with pytest.raises(Denied) as refusal:
        home.plane.registry.admit(version.digest, MEASUREMENT, SYSTEM)
    assert refusal.value.code == "unsigned"


def test_an_engineer_admits_nothing(home: House) -> None:
    with pytest.raises(Denied) as refusal:
        home.plane.registry.admit(home.approved().digest, PRODUCTION, home.author)
    assert refusal.value.code in ("denied_by_policy",)


@pytest.mark.parametrize("gate", NAMES)
@pytest.mark.parametrize("value", [None, 5.0e9, float("nan")], ids=["missing", "failing", "not a number"])
def test_a_gate_that_is_not_passed_stops_registration(home: House, gate: str, value: float | None) -> None:
    version = home.packaged()
    reading = -1.0 if gate == "metric roc_auc" and value == 5.0e9 else value
    home.measured(version, **{gate.replace(" ", "_", 1): reading})
    with pytest.raises(Denied) as refusal:
        home.plane.registry.register(version.digest, "engineer", home.operation())
    assert refusal.value.code == "gate_failed" and gate in refusal.value.message
    now = home.now(version)
    assert (now.state, now.number) == ("refused", 0) and gate in now.reason


def test_without_any_evidence_nothing_is_registered(home: House) -> None:
    with pytest.raises(Denied, match="no evidence"):
        home.plane.registry.register(home.packaged().digest, "engineer", home.operation())


def test_a_refused_version_may_be_measured_again_and_pass(home: House) -> None:
    version = home.packaged()
    home.measured(version, metric_roc_auc=0.5)
    with pytest.raises(Denied):
        home.plane.registry.register(version.digest, "engineer", home.operation())
    home.plane.registry.package(version, "engineer", home.operation())
    home.measured(version)
    assert home.plane.registry.register(version.digest, "engineer", home.operation())["state"] == "registered"


def test_the_same_bytes_keep_their_number(home: House) -> None:
    version = home.registered()
    home.plane.registry.package(
        msgspec.structs.replace(version, number=0, run="run_again"), "engineer", home.operation()
    )
    again = home.plane.registry.register(version.digest, "engineer", home.operation())
    assert again == {"version": version.alias, "digest": version.digest, "state": "awaiting approval", "already": True}
    assert home.now(version) == version
    assert home.registered().number == version.number + 1


def test_numbers_are_counted_for_each_model(home: House) -> None:
    assert [home.registered(model="other").number for _ in range(2)] == [1, 2]


def test_a_repeated_step_gets_the_first_answer(home: House) -> None:
    version, operation = home.packaged(), home.operation()
    home.measured(version)
    first = home.plane.registry.register(version.digest, "engineer", operation)
    assert first["already"] is False
    assert home.plane.registry.register(version.digest, "engineer", operation)["version"] == first["version"]


def test_a_version_that_changed_meanwhile_is_not_admitted(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    version = home.approved()
    true_put = home.plane.blobs.put

    def put_while_someone_moves_it(plain: bytes) -> str:
        set_version(reason="changed")(home, version)
        return true_put(plain)

    monkeypatch.setattr(home.plane.blobs, "put", put_while_someone_moves_it)
    with pytest.raises(Conflict) as refusal:
        home.plane.registry.admit(version.digest, PRODUCTION, SYSTEM)
    assert refusal.value.code == "changed_meanwhile"
    assert home.plane.registry.admission(version.digest, PRODUCTION) is None


@pytest.mark.parametrize("field", ["files", "author", "signature", "gates", "model", "run", "approvals", "created_at"])
def test_what_a_version_is_never_changes(home: House, field: str) -> None:
    version = home.registered()
    with pytest.raises(ValueError, match="cannot change"):
        home.plane.database.change(lambda tx: SqlVersionStore().move(tx, version.digest, **{field: ""}))
    assert home.now(version) == version


def test_no_route_deletes_or_overwrites_a_version(home: House) -> None:
    api.build(home.plane)
    touching = {(method, path) for method, path in home.plane.guard.declared if "version" in path or "models" in path}
    assert {m for m, _ in touching} <= {"GET", "POST"}
    assert {p for m, p in touching if m == "POST"} == {
        "/api/v1/models/{model}/builds",
        "/api/v1/models/{model}/imports",
        "/api/v1/models/{model}/kill",
        "/api/v1/models/{model}/labels",
        "/api/v1/models/{model}/revival",
        "/api/v1/models/{model}/rollback",
        "/api/v1/models/{model}/rollouts/orders",
        "/api/v1/models/{model}/scores",
        "/api/v1/models/{model}/versions/{number}/admissions",
        "/api/v1/models/{model}/versions/{number}/approvals",
        "/api/v1/models/{model}/versions/{number}/backtests",
        "/api/v1/models/{model}/versions/{number}/promotions",
        "/api/v1/models/{model}/versions/{number}/rejections",
        "/api/v1/models/{model}/versions/{number}/revocations",
        "/api/v1/models/{model}/versions/{number}/rollouts",
        "/api/v1/models/{model}/versions/{number}/waivers",
        "/api/v1/models/{model}/versions/{number}/waivers/revocations",
        "/api/v1/models/{model}/versions/{number}/waivers/signatures",
    }
    assert {p for m, p in home.plane.guard.declared if m == "DELETE"} == {
        "/api/v1/sign-in",  # signing out
        "/api/v1/tables/{name}",  # a table that was sent to be scored
        "/api/v1/tokens/{token_id}",
    }


@pytest.mark.parametrize(
    "text", ["flight", "flight@0", "flight@-1", "flight@1.0", "Flight@1", "@1", "flight@1 ", "f@9999999999"]
)
def test_what_does_not_name_a_version(text: str) -> None:
    with pytest.raises(Invalid):
        parse_reference(text)


def test_a_version_that_is_not_there(home: House) -> None:
    with pytest.raises(NotFound):
        home.plane.registry.version("flight-delay", 999)
    with pytest.raises(NotFound):
        home.plane.registry.by_digest(sha256(b"nothing"))


def test_an_approval_counts_once_a_person(home: House) -> None:
    version = home.registered(approvals=2)
    subject = home.plane.registry.subject(version)
    home.plane.changes.decide(home.risk, subject, True, "once")
    with pytest.raises(Conflict) as refusal:
        home.plane.changes.decide(home.risk, subject, True, "twice")
    assert refusal.value.code == "already_decided"
    assert len(home.plane.changes.counting(subject)) == 1
    found: list[Approval] = home.plane.changes.counting(
        Subject(subject.alias, subject.digest, subject.evidence, "risk")
    )
    assert found == []
