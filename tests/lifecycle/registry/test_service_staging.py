"""Environments: what one says to the next, each with its own key, and that nothing is left out on the way."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, update

from falaj.governance.signing.signer import EnvelopeSigner
from falaj.kernel.access import SYSTEM
from falaj.kernel.clock import iso
from falaj.kernel.digests import canonical_json, sha256
from falaj.kernel.environments import DEV, MEASUREMENT, PRODUCTION, STAGING
from falaj.kernel.errors import Denied, Integrity, Invalid
from falaj.lifecycle.evidence.model import Verdict
from falaj.lifecycle.registry.model import (
    Admission,
    Before,
    Environment,
    Facts,
    ModelVersion,
    Rehearsal,
    check_admissible,
    environments,
)
from falaj.lifecycle.registry.statements import (
    admission_statement,
    read_admission,
    read_rehearsal,
    rehearsal_statement,
)
from falaj.lifecycle.registry.store import admissions, rehearsals
from falaj.storage.blobs.local import blob_path
from tests.lifecycle.house import House, rehearsal_of

OWN, OTHER, SET = sha256(b"own"), sha256(b"other"), sha256(b"set")
NOW, LATER, EARLIER = "2013-04-01T08:00:00.000Z", "2014-04-01T08:00:00.000Z", "2013-04-01T07:59:59.999Z"
STAGED, LIVE = environments()[1:]


# ── The rule ──────────────────────────────────────────────────────────────────────────────────────


def admission(**changed: object) -> Admission:
    good = Admission(OWN, "m", "m@1", STAGING, (), SET, (), NOW, LATER)
    return msgspec.structs.replace(good, **changed)


def rehearsal(**changed: object) -> Rehearsal:
    good = Rehearsal(OWN, "m", "m@1", STAGING, SET, True, 200, 0, NOW)
    return msgspec.structs.replace(good, **changed)


def decide(facts: Facts, state: str = "approved", environment: Environment = LIVE) -> str:
    """The code of the refusal, or 'admitted'."""
    version = ModelVersion("m", 1, OWN, state, "eve", "run", (), "", ("scan",), 1, SET)
    try:
        check_admissible(version, environment, facts)
    except Denied as e:
        return e.code if e.hint else "no hint"
    return "admitted"


def facts(before: Before | None, verdict: Verdict = Verdict.SUCCESSFUL, approvals: tuple[str, ...] = ("apr",)) -> Facts:
    return Facts(None, {"scan": verdict}, SET, approvals, "", "", (), before, NOW)


ITEMS: dict[str, tuple[object, ...]] = {
    "admission": (
        admission(), None, admission(digest=OTHER), admission(environment=DEV), admission(environment=PRODUCTION),
        admission(evidence=OTHER), admission(expires_at=EARLIER), admission(expires_at=NOW),
    ),
    "rehearsal": (
        rehearsal(), None, rehearsal(passed=False), rehearsal(digest=OTHER), rehearsal(environment=PRODUCTION),
        rehearsal(evidence=OTHER),
    ),
    "environment": (STAGED, environments()[0], LIVE),
    "verdict": (Verdict.SUCCESSFUL, Verdict.FAILED, Verdict.INCONCLUSIVE, Verdict.ERROR),
    "approvals": (("apr",), ()),
    "state": ("approved", "candidate", "refused", "registered", "awaiting approval", "rejected", "rolled back"),
}  # fmt: skip
"""The first of each is what it must be."""


@given(st.tuples(*(st.integers(0, len(v) - 1) for v in ITEMS.values())))
def test_of_all_combinations_one_admits_to_production(chosen: tuple[int, ...]) -> None:
    found = {name: values[n] for (name, values), n in zip(ITEMS.items(), chosen, strict=True)}
    before = Before(found["environment"], found["admission"], found["rehearsal"])  # type: ignore[arg-type]
    code = decide(facts(before, found["verdict"], found["approvals"]), str(found["state"]))  # type: ignore[arg-type]
    assert (code == "admitted") == (chosen == (0,) * len(ITEMS))


@pytest.mark.parametrize("item", ["admission", "rehearsal", "environment"])
def test_each_thing_that_staging_does_not_say_keeps_it_out(item: str) -> None:
    for value in ITEMS[item][1:]:
        held = {"environment": STAGED, "admission": admission(), "rehearsal": rehearsal(), item: value}
        assert decide(facts(Before(**held))) == "not_staged", value  # type: ignore[arg-type]
    assert decide(facts(None)) == "not_staged"
    assert decide(facts(Before(STAGED, admission(), rehearsal()))) == "admitted"


def test_staging_comes_after_dev_and_asks_for_its_own_approvals() -> None:
    dev = environments()[0]
    into = Before(dev, admission(environment=DEV))
    for state, approvals in itertools.product(("registered", "approved", "serving"), ((), ("apr",))):
        assert decide(facts(into, approvals=approvals), state, STAGED) == "admitted"
        assert decide(facts(into, approvals=approvals), state, dev) == "admitted"
    assert decide(facts(Before(dev)), "registered", STAGED) == "not_staged"
    assert decide(facts(Before(STAGED, admission(), rehearsal())), "registered", STAGED) == "not_staged"
    asking = environments(staging_approvals=1)[1]
    assert decide(facts(into, approvals=()), "registered", asking) == "not_approved"
    assert decide(facts(into), "registered", asking) == "admitted"
    for state in ("candidate", "refused", "rejected", "rolled back"):
        assert decide(facts(into), state, STAGED) == decide(facts(None), state, dev) == "wrong_state"


# ── The registry, its keys and its statements ─────────────────────────────────────────────────────

Mutation = Callable[[House, ModelVersion], object]


def without(table: object, environment: str) -> Mutation:
    c = table.c  # type: ignore[attr-defined]
    return lambda home, v: home.sql(delete(table).where(c.digest == v.digest, c.environment == environment))  # type: ignore[arg-type]


def resigned(table: object, environment: str, key: str) -> Mutation:
    """The same statement, signed with another environment's key."""

    def mutate(home: House, version: ModelVersion) -> None:
        registry, signer = home.plane.registry, EnvelopeSigner(home.plane.keys.of(key))
        if table is admissions:
            filed = registry.admission(version.digest, environment)
            assert filed is not None
            statement = admission_statement(filed[0])
        else:
            found = registry.rehearsal(version.digest, environment)
            assert found is not None
            statement = rehearsal_statement(found[0])
        envelope = home.plane.blobs.put(canonical_json(signer.sign_statement(statement)))
        c = table.c  # type: ignore[attr-defined]
        here = (c.digest == version.digest) & (c.environment == environment)
        assert home.sql(update(table).where(here).values(envelope=envelope)) == 1  # type: ignore[arg-type]

    return mutate


def gone(home: House, version: ModelVersion) -> None:
    """The rehearsal's envelope is not there any more."""
    found = home.plane.registry.rehearsal(version.digest, STAGING)
    assert found is not None
    blob_path(home.plane.blobs.root, found[1]).unlink()


def of_another_environment(home: House, version: ModelVersion) -> None:
    """Production's own admission stands where staging's should, truly signed by production."""
    admitted_as(home, version, PRODUCTION, environment=PRODUCTION)


def until_no_time(home: House, version: ModelVersion) -> None:
    """Staging's admission, truly signed, ends at what is no time."""
    admitted_as(home, version, STAGING, expires_at="soon")


def admitted_as(home: House, version: ModelVersion, key: str, **changed: str) -> None:
    """Staging's admission with something changed, truly signed by an environment."""
    filed = home.plane.registry.admission(version.digest, STAGING)
    assert filed is not None
    statement = admission_statement(msgspec.structs.replace(filed[0], **changed))
    signer = EnvelopeSigner(home.plane.keys.of(key))
    envelope = home.plane.blobs.put(canonical_json(signer.sign_statement(statement)))
    here = (admissions.c.digest == version.digest) & (admissions.c.environment == STAGING)
    home.sql(update(admissions).where(here).values(envelope=envelope))


def rehearsed_at_no_time(home: House, version: ModelVersion) -> None:
    found = home.plane.registry.rehearsal(version.digest, STAGING)
    assert found is not None
    statement = rehearsal_statement(msgspec.structs.replace(found[0], at="soon"))
    signer = EnvelopeSigner(home.plane.keys.of(STAGING))
    envelope = home.plane.blobs.put(canonical_json(signer.sign_statement(statement)))
    home.sql(update(rehearsals).where(rehearsals.c.digest == version.digest).values(envelope=envelope))


def failed_since(home: House, version: ModelVersion) -> None:
    with pytest.raises(Denied) as refusal:
        home.plane.registry.rehearsed(
            rehearsal_of(home.plane, version.digest, passed=False, failures=3, reason="3 of 200 failed"),
            "engineer",
            home.operation(),
        )
    assert refusal.value.code == "rehearsal_failed"


MISSING: dict[str, Mutation] = {
    "staging never admitted it": without(admissions, STAGING),
    "it was never rehearsed": without(rehearsals, STAGING),
    "dev's key signed staging's admission": resigned(admissions, STAGING, DEV),
    "production's key signed staging's admission": resigned(admissions, STAGING, PRODUCTION),
    "dev's key signed the rehearsal": resigned(rehearsals, STAGING, DEV),
    "production's own admission in its place": of_another_environment,
    "staging's admission ends at no time": until_no_time,
    "the rehearsal's statement is gone": gone,
    "it was rehearsed at no time": rehearsed_at_no_time,
    "a later rehearsal failed": failed_since,
}


@pytest.mark.parametrize("name", MISSING)
def test_production_refuses_what_staging_has_not_let_through(home: House, name: str) -> None:
    version = home.approved()
    MISSING[name](home, version)
    with pytest.raises(Denied) as refusal:
        home.plane.registry.admit(version.digest, PRODUCTION, SYSTEM)
    assert refusal.value.code == "not_staged" and "falaj promote" in refusal.value.hint
    entry = home.log(action="registry.admit_approved", resource_id=version.alias, outcome="refused")[0].entry
    assert entry.detail["code"] == "not_staged" and entry.detail["environment"] == PRODUCTION


def test_an_expired_admission_to_staging_lets_nothing_on(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    version = home.approved()
    later = home.plane.clock.now() + timedelta(days=367)
    monkeypatch.setattr(type(home.plane.clock), "now", lambda _self: later)
    with pytest.raises(Denied) as refusal:
        home.plane.registry.admit(version.digest, PRODUCTION, SYSTEM)
    assert refusal.value.code == "not_staged" and "expired" in refusal.value.message


def test_staging_refuses_what_dev_has_not_let_through(home: House) -> None:
    version = home.packaged()
    home.measured(version)
    home.plane.registry.register(version.digest, "engineer", home.operation())
    with pytest.raises(Denied) as refusal:
        home.plane.registry.admit(version.digest, STAGING, SYSTEM)
    assert refusal.value.code == "not_staged" and "dev has not admitted it" in refusal.value.message
    home.plane.registry.admit(version.digest, DEV, SYSTEM)
    assert home.plane.registry.admit(version.digest, STAGING, SYSTEM).environment == STAGING
    assert home.plane.registry.let_in(version.digest) == (DEV, STAGING)


def test_each_environment_signs_with_its_own_key(home: House) -> None:
    version = home.approved()
    home.plane.registry.admit(version.digest, PRODUCTION, SYSTEM)
    home.plane.registry.admit(version.digest, MEASUREMENT, SYSTEM)
    keys = {name: [home.plane.keys.of(name).public_key()] for name in (DEV, STAGING, PRODUCTION)}
    for environment, own in ((DEV, DEV), (STAGING, STAGING), (PRODUCTION, PRODUCTION), (MEASUREMENT, DEV)):
        found = home.plane.registry.admission(version.digest, environment)
        assert found is not None
        for name, key in keys.items():
            if name == own:
                assert read_admission(found[1], key).environment == environment
            else:
                with pytest.raises(Integrity):
                    read_admission(found[1], key)
    signed = home.plane.registry.rehearsal(version.digest, STAGING)
    assert signed is not None
    envelope = msgspec.json.decode(home.plane.blobs.get(signed[1]))
    assert read_rehearsal(envelope, keys[STAGING]) == signed[0]
    for wrong in (keys[DEV], keys[PRODUCTION], [home.plane.keys.attestation.public_key()]):
        with pytest.raises(Integrity):
            read_rehearsal(envelope, wrong)


def test_a_statement_cannot_be_taken_for_another(home: House) -> None:
    """A rehearsal that failed proves nothing, an admission is no rehearsal, and a claim must agree with itself."""
    signer, key = EnvelopeSigner(home.plane.keys.of(STAGING)), [home.plane.keys.of(STAGING).public_key()]
    failed = rehearsal_statement(rehearsal(passed=False, reason="no"))
    assert failed["predicate"]["properties"] == []
    assert not read_rehearsal(signer.sign_statement(failed), key).passed
    failed["predicate"]["properties"] = ["FALAJ_REHEARSED"]
    other = rehearsal_statement(rehearsal())
    other["subject"][0]["digest"]["sha256"] = "0" * 64
    for statement in (failed, other, admission_statement(admission())):
        with pytest.raises(Integrity):
            read_rehearsal(signer.sign_statement(statement), key)
    with pytest.raises(Integrity):
        read_admission(signer.sign_statement(rehearsal_statement(rehearsal())), key)


def test_a_failed_rehearsal_refuses_the_version_and_may_be_tried_again(home: House) -> None:
    registry = home.plane.registry
    version = home.packaged(model="clumsy")
    home.measured(version)
    registry.register(version.digest, "engineer", home.operation())
    for environment in (DEV, STAGING):
        registry.admit(version.digest, environment, SYSTEM)
    failed_since(home, version)
    refused = home.now(version)
    assert (refused.state, refused.reason) == ("refused", "its rehearsal in staging failed: 3 of 200 failed")
    entry = home.log(action="registry.rehearse", resource_id="clumsy@1", outcome="refused")[0].entry
    assert entry.detail["code"] == "rehearsal_failed"
    assert registry.reopen(version.digest, STAGING, "engineer", home.operation()).state == "registered"
    home.staged(version)
    assert home.now(version).state == "awaiting approval"
    registry.move(version.digest, "refused", "the data plane refused it", "risk", home.operation())
    assert (
        registry.reopen(version.digest, STAGING, "engineer", home.operation()).state == "refused"
    )  # for another reason


def test_a_rehearsal_that_fails_later_takes_no_traffic_away(home: House) -> None:
    version = home.approved()
    home.plane.registry.move(version.digest, "serving", "", "risk", home.operation())
    failed_since(home, version)
    assert home.now(version).state == "serving"


def test_new_evidence_asks_for_staging_again(home: House) -> None:
    version = home.registered(model="again-staged")
    home.plane.registry.package(home.now(version), "engineer", home.operation())
    home.measured(version, metric_roc_auc=0.9)
    assert home.plane.registry.register(version.digest, "engineer", home.operation())["state"] == "registered"
    assert "on other evidence" in home.plane.registry.lacks(home.now(version), STAGING)


def test_there_are_three_environments_and_one_for_measuring(home: House) -> None:
    registry = home.plane.registry
    assert [e.name for e in registry.environments] == [DEV, STAGING, PRODUCTION]
    assert registry.environment(MEASUREMENT).approvals == 0
    with pytest.raises(Invalid) as unknown:
        registry.environment("Staging")
    assert unknown.value.code == "no_such_environment" and "dev, staging, production" in unknown.value.hint
    for name in ("nowhere", MEASUREMENT):
        path = f"/api/v1/models/flight-delay/versions/{home.registered().number}/admissions"
        assert home.api().post(path, {"environment": name}).status_code == 422
    assert iso(home.plane.clock.now())
