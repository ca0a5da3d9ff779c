"""What is missing of an imported version is waived by two people, for a time; what failed never is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import update

from falaj.governance.signing.signer import EnvelopeSigner
from falaj.kernel.access import Principal
from falaj.kernel.clock import iso
from falaj.kernel.digests import canonical_json
from falaj.kernel.errors import FalajError
from falaj.lifecycle.evidence.model import BuildFacts, Measurement, Origin, Verdict, findings
from falaj.lifecycle.evidence.service import Measured
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.registry.store import versions
from falaj.lifecycle.registry.waiver import Signature, Waived, read_waiver, unsigned, waiver_statement
from falaj.lifecycle.registry.waivers import Proposal
from tests.lifecycle.house import GATES, GOOD, House

MISSING = {"metric roc_auc": "there are no labelled data"}
GATE = "metric roc_auc"
NOW = "2026-03-01T00:00:00Z"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("house"))
    yield made
    made.plane.close()


def measured(house: House, version: ModelVersion, **readings: float) -> str:
    """Evidence of an imported version: the metric is missing, the rest was measured."""
    taken = {**{k: v for k, v in GOOD.items() if k != GATE}, **{k.replace("_", " ", 1): v for k, v in readings.items()}}
    now = iso(house.plane.clock.now())
    found = findings(GATES, tuple(Measurement(k, v) for k, v in taken.items()), MISSING)
    origin = Origin(
        version.run, "file:model.onnx", version.digest, "onnx", "taken", {"user": "them"}, ("training run",)
    )
    record = Measured(version.alias, version.digest, found, BuildFacts(), now, now, origin)
    return house.plane.evidence.record(record, house.author.name, house.operation())


def imported(house: House, **readings: float) -> ModelVersion:
    """A registered version that was imported, with its metric missing."""
    version = house.packaged(made_by=f"imp_{house.operation()}")
    measured(house, version, **readings)
    house.plane.registry.register(version.digest, house.author.name, house.operation())
    return house.now(version)


def until(house: House, days: float = 30) -> str:
    return iso(house.plane.clock.now() + timedelta(days=days))


def propose(house: House, version: ModelVersion, by: Principal | None = None, **changed: Any) -> dict[str, Any]:
    asked = {"gates": (GATE,), "reason": "no labels yet", "until": until(house), **changed}
    return house.plane.intake.waiving.propose(by or house.risk, version, Proposal(**asked))


def sign(house: House, version: ModelVersion, by: Principal | None = None) -> dict[str, Any]:
    return house.plane.intake.waiving.sign(by or house.owner, version, "read it")


def in_force(house: House, version: ModelVersion) -> None:
    """Waived by two people; the flow that follows is not waited for."""
    waivers = house.plane.waivers
    waivers.propose(house.risk, version, Proposal((GATE,), "no labels yet", until(house)))
    waivers.sign(house.owner, version, "read it")


def admit(house: House, version: ModelVersion, environment: str = "dev") -> Any:
    return house.plane.registry.admit(version.digest, environment, house.risk)


def refusal(work: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(FalajError) as refused:
        work()
    assert refused.value.hint
    return refused.value.code, refused.value.message


def test_missing_is_no_pass_and_no_failure(house: House) -> None:
    version = imported(house)
    assert version.state == "registered"
    assert house.plane.evidence.proven(version.digest).verdicts[GATE] is Verdict.MISSING
    assert refusal(lambda: admit(house, version))[0] == "waiver_missing"
    made = [s for s in house.plane.evidence.statements(version.digest) if s.gate in ("import", "build")]
    assert [(s.gate, s.predicate_type) for s in made] == [("import", "https://falaj.dev/predicates/import/v1")]


def test_what_failed_keeps_an_import_from_being_registered(house: House) -> None:
    version = house.packaged(made_by="imp_failing")
    measured(house, version, scan=3.0)
    code, message = refusal(lambda: house.plane.registry.register(version.digest, "engineer", house.operation()))
    assert (code, "scan: Failed" in message, GATE in message) == ("gate_failed", True, False)


def test_two_people_let_it_in_until_their_waiver_ends(house: House) -> None:
    version = imported(house)
    told = propose(house, version)
    assert (told["state"], told["waived"]) == ("proposed", (GATE,))
    assert refusal(lambda: admit(house, version))[0] == "waiver_unsigned"
    waiver = house.plane.waivers.sign(house.owner, version, "read it")
    assert "waived until" in waiver.content.words
    admission = admit(house, version)
    assert (admission.expires_at, admission.waived) == (waiver.content.until, (GATE,))
    assert admission.waiver == waiver.statement
    log = house.log(action="registry.sign_waiver", resource_id=version.alias)
    assert (log[0].entry.principal, log[0].entry.detail["in_force"]) == ("owner", True)


@pytest.mark.parametrize(
    ("name", "change", "code"),
    [
        ("a failure", {"gates": ("scan",)}, "waiver_not_missing"),
        ("nothing", {"gates": ()}, "waiver_not_all"),
        ("more than is missing", {"gates": (GATE, "scan")}, "waiver_not_missing"),
        ("for ever", {"until": "2099-01-01"}, "waiver_too_long"),
        ("over already", {"until": "2020-01-01"}, "waiver_past"),
        ("no day", {"until": "soon"}, "bad_moment"),
        ("no reason", {"reason": "  "}, "no_reason"),
    ],
)
def test_what_cannot_be_waived(house: House, name: str, change: dict[str, Any], code: str) -> None:
    version = imported(house)
    assert refusal(lambda: propose(house, version, **change))[0] == code, name
    assert house.plane.waivers.of(version.digest) == []


def test_four_eyes_that_are_not_the_importers(house: House) -> None:
    version = imported(house)
    importer = house.plane.identity.principal("engineer")
    both = Principal(importer.name, "person", ("risk-officer", "platform-admin"))
    assert "nobody-waives-their-own-import" in refusal(lambda: propose(house, version, both))[1]
    propose(house, version)
    assert refusal(lambda: sign(house, version, house.risk))[0] == "waiver_signed_already"
    assert refusal(lambda: sign(house, version, both))[0] == "denied_by_policy"
    viewer = house.person("looker", "viewer")
    assert refusal(lambda: sign(house, version, viewer))[0] == "denied_by_policy"
    second = house.person("risk-too", "risk-officer")
    assert sign(house, version, second)["state"] == "proposed"  # two of one role are not enough
    assert refusal(lambda: admit(house, version))[0] == "waiver_unsigned"
    assert sign(house, version)["state"] == "in force"
    assert refusal(lambda: sign(house, version, house.person("third", "risk-officer")))[0] == "no_such_waiver"


def test_a_trained_version_has_no_waiver(house: House) -> None:
    version = house.packaged()
    house.measured(version, metric_roc_auc=0.5)
    trained = msgspec.structs.replace(house.now(version), number=7)
    assert refusal(lambda: propose(house, trained))[0] == "waiver_not_for_trained"
    # nor does a signed Missing help a trained one
    now = iso(house.plane.clock.now())
    found = findings(GATES, tuple(Measurement(k, v) for k, v in GOOD.items() if k != GATE), MISSING)
    house.plane.evidence.record(
        Measured(version.alias, version.digest, found, BuildFacts(), now, now), "engineer", house.operation()
    )
    assert (
        refusal(lambda: house.plane.registry.register(version.digest, "engineer", house.operation()))[0]
        == "gate_failed"
    )


def test_the_waiver_is_bound_to_the_evidence(house: House) -> None:
    version = imported(house)
    in_force(house, version)
    admit(house, version)
    measured(house, version)  # the same readings, signed anew
    assert refusal(lambda: admit(house, version))[0] == "evidence_changed"
    again = house.plane.registry.register(version.digest, "engineer", house.operation())
    assert again["state"] == "registered"
    assert refusal(lambda: admit(house, version))[0] == "waiver_evidence_changed"


def test_the_waiver_is_bound_to_the_version(house: House) -> None:
    first, second = imported(house), imported(house)
    in_force(house, first)
    assert refusal(lambda: admit(house, second))[0] == "waiver_missing"
    house.sql(update(waivers_table()).where(waivers_table().c.digest == first.digest).values(digest=second.digest))
    assert refusal(lambda: admit(house, second))[0] == "waiver_for_another"


def test_a_row_that_says_otherwise_than_the_statement_counts_for_nothing(house: House) -> None:
    version = imported(house)
    told = propose(house, version)
    other = imported(house)
    in_force(house, other)
    (theirs,) = house.plane.waivers.of(other.digest)
    house.sql(update(waivers_table()).where(waivers_table().c.id == told["id"]).values(statement=theirs.statement))
    assert refusal(lambda: admit(house, version))[0] == "waiver_for_another"


def test_revoked_is_over(house: House) -> None:
    version = imported(house)
    in_force(house, version)
    admit(house, version)
    told = house.plane.intake.waiving.revoke(house.risk, version, "labels came, and it is bad")
    assert (told["state"], told["revoked"]["principal"]) == ("revoked", "risk")
    code, message = refusal(lambda: admit(house, version))
    assert (code, "labels came" in message) == ("waiver_revoked", True)
    assert refusal(lambda: house.plane.intake.waiving.revoke(house.risk, version, "again"))[0] == "no_such_waiver"


def test_a_missing_gate_that_is_waived_never_hides_one_that_fails(house: House) -> None:
    version = imported(house)
    in_force(house, version)
    house.sql(
        update(versions).where(versions.c.digest == version.digest).values(gates='["metric roc_auc","scan","slice x"]')
    )
    code, message = refusal(lambda: admit(house, version))
    assert (code, "slice x: no evidence" in message) == ("evidence_missing", True)


def test_bytes_that_were_trained_here_are_not_imported(house: House) -> None:
    version = house.packaged()
    again = msgspec.structs.replace(version, run="imp_again")
    assert refusal(lambda: house.plane.registry.package(again, "engineer", house.operation()))[0] == "made_otherwise"


CONTENT = Waived("wvr_1", "sha256:" + "a" * 64, "m", "m@1", "me", "e", ("g",), "why", NOW, "2026-04-01T00:00:00Z")
RISK, ADMIN = Signature("r", ("risk-officer",), "y", NOW), Signature("a", ("platform-admin",), "y", NOW)


@pytest.mark.parametrize(
    ("signatures", "lacking"),
    [
        ((RISK, ADMIN), False),
        ((ADMIN, RISK), False),
        ((), True),
        ((RISK,), True),
        ((RISK, RISK), True),
        ((Signature("r", ("risk-officer", "platform-admin"), "y", NOW),), True),
        ((RISK, Signature("b", ("risk-officer",), "y", NOW)), True),
        ((RISK, ADMIN, Signature("me", ("risk-officer",), "y", NOW)), True),
        ((RISK, Signature("v", ("viewer",), "y", NOW)), True),
    ],
)
def test_who_must_sign(signatures: tuple[Signature, ...], lacking: bool) -> None:
    assert bool(unsigned(msgspec.structs.replace(CONTENT, signatures=signatures))) == lacking


def test_a_statement_that_one_person_signed_is_not_read(house: House) -> None:
    key = house.plane.keys.of("production")
    one = msgspec.structs.replace(CONTENT, signatures=(RISK,))
    envelope = EnvelopeSigner(key).sign_statement(waiver_statement(one))
    with pytest.raises(FalajError) as refused:
        read_waiver(envelope, [key.public_key()])
    assert refused.value.code == "waiver_unsigned"
    good = msgspec.structs.replace(CONTENT, signatures=(RISK, ADMIN))
    envelope = EnvelopeSigner(key).sign_statement(waiver_statement(good))
    assert read_waiver(envelope, [key.public_key()]) == good
    assert canonical_json(envelope)


def waivers_table() -> Any:
    return versions.metadata.tables["waivers"]
