"""A champion gate holds while the champion serves that it was measured against; and the profile inside a version."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from falaj.kernel.access import SYSTEM
from falaj.kernel.clock import iso
from falaj.kernel.digests import FileEntry, sha256
from falaj.kernel.errors import Denied, Integrity, NotFound
from falaj.lifecycle.evidence.model import BuildFacts, GateSpec, Measurement, Verdict, findings
from falaj.lifecycle.evidence.service import Measured
from falaj.lifecycle.registry.model import MEASURING, STATES, Environment, Facts, ModelVersion, check_admissible
from falaj.lifecycle.rollout.model import Route, TrafficPlan, all_to, withdrawn
from falaj.lifecycle.training.model import DatasetUse, read_profile
from falaj.storage.blobs.local import blob_path
from tests.lifecycle.house import GATES, GOOD, NAMES, House
from tests.lifecycle.serving.plane.fleet import flight_contract

CHAMPION = GateSpec("champion", "roc_auc", at_least=-0.01)
A, B, OWN = sha256(b"a"), sha256(b"b"), sha256(b"own")


# ── The rule ──────────────────────────────────────────────────────────────────────────────────────


def decide(
    champion: str | None, current: str, state: str = "approved", gates: tuple[str, ...] = (CHAMPION.name,)
) -> str:
    """The code of the refusal, or 'admitted'."""
    verdicts = dict.fromkeys((*gates, "scan"), Verdict.SUCCESSFUL)
    version = ModelVersion("m", 2, OWN, state, "engineer", "run", (), "", (*gates, "scan"), 1, "e")
    production = Environment("production", approvals=1, traffic=True)
    try:
        check_admissible(version, production, Facts(None, verdicts, "e", ("apr",), champion, current))
    except Denied as e:
        return e.code
    return "admitted"


@pytest.mark.parametrize(
    ("champion", "current", "code"),
    [
        ("", "", "admitted"),  # there was none, and there is none
        (A, A, "admitted"),
        (A, B, "champion_changed"),
        ("", A, "champion_changed"),  # one came meanwhile: nobody compared the two
        (None, A, "champion_changed"),  # no statement says which, or two disagree
        (A, "", "admitted"),  # it went meanwhile: there is nobody to be worse than
        (None, "", "admitted"),
        (A, OWN, "admitted"),  # it serves itself
    ],
)
def test_the_champion_must_be_the_one_of_the_measurement(champion: str | None, current: str, code: str) -> None:
    assert decide(champion, current) == code
    assert decide(champion, current, gates=("metric roc_auc",)) == "admitted"


@pytest.mark.parametrize("state", STATES)
def test_only_a_challenger_is_asked(state: str) -> None:
    served = state in ("serving", "retired")
    expected = "admitted" if served else "champion_changed" if state == "approved" else "wrong_state"
    assert decide(A, B, state) == expected


def test_measuring_asks_no_champion() -> None:
    version = ModelVersion("m", 2, OWN, "candidate", "engineer", "run", (), "", (CHAMPION.name,))
    check_admissible(version, MEASURING, Facts(None, {}, "", (), A, B))


# ── The registry with rollout's plans and verified statements ─────────────────────────────────────


def measured(home: House, version: ModelVersion, champion: str, second: str | None = None) -> None:
    """Sign good evidence; `second` is what another champion gate says that it was compared with."""
    gates = [*GATES, CHAMPION]
    taken = [Measurement(name, value) for name, value in GOOD.items()]
    taken.append(Measurement(CHAMPION.name, 0.02 if champion else None, {"champion": champion}))
    if second is not None:
        gates.append(GateSpec("champion", "brier", at_least=-0.01))
        taken.append(Measurement(gates[-1].name, 0.02 if second else None, {"champion": second}))
    now = iso(home.plane.clock.now())
    facts = BuildFacts(project=version.digest, datasets=(DatasetUse("flights", 0, version.digest),), run=version.run)
    record = Measured(version.alias, version.digest, findings(tuple(gates), tuple(taken)), facts, now, now)
    home.plane.evidence.record(record, home.author.name, home.operation())


def challenger(home: House, model: str, champion: str, second: str | None = None) -> ModelVersion:
    """A registered version that was compared with `champion`."""
    version = home.packaged((*NAMES, CHAMPION.name), model=model)
    measured(home, version, champion, second)
    home.plane.registry.register(version.digest, home.author.name, home.operation())
    return home.staged(version)


def approved(home: House, version: ModelVersion) -> ModelVersion:
    home.plane.changes.decide(home.risk, home.plane.registry.subject(version), True, "evidence read")
    home.plane.registry.move(version.digest, "approved", "", home.risk.name, home.operation())
    return home.now(version)


@contextmanager
def serving(home: House, plan: TrafficPlan) -> Iterator[None]:
    """While a plan holds; its versions are made up, so no bundle can be published meanwhile."""
    home.plane.rollout.set_plan(plan, "risk", home.operation())
    try:
        yield
    finally:
        home.plane.rollout.set_plan(withdrawn(plan.model), "risk", home.operation())


def test_the_first_version_has_no_champion_and_enters(home: House) -> None:
    version = approved(home, challenger(home, "first", ""))
    assert home.plane.registry.facts(version, "production").champion == ""
    assert home.plane.registry.admit(version.digest, "production", SYSTEM).alias == "first@1"


def test_who_serves_is_what_the_plan_says_beside_a_challenger(home: House) -> None:
    version = approved(home, challenger(home, "beside", A))
    with serving(home, TrafficPlan("beside", (Route(B, 10, "canary"), Route(A, 90)))):
        assert home.plane.registry.facts(version, "production").current == A
        assert home.plane.registry.facts(version, "staging").current == ""
        assert home.plane.registry.facts(version).current == ""
        assert home.plane.registry.admit(version.digest, "production", SYSTEM)


def test_two_gates_must_have_met_the_same_champion(home: House) -> None:
    version = approved(home, challenger(home, "two", A, B))
    with serving(home, all_to("two", A)), pytest.raises(Denied) as refusal:
        home.plane.registry.admit(version.digest, "production", home.risk)
    assert refusal.value.code == "champion_changed"


def test_a_person_s_attempt_changes_nothing(home: House) -> None:
    version = approved(home, challenger(home, "attempt", A))
    with serving(home, all_to("attempt", B)):
        with pytest.raises(Denied) as refusal:
            home.plane.registry.admit(version.digest, "production", home.risk)
        assert refusal.value.code == "champion_changed"
        assert home.now(version) == version
        assert home.plane.registry.admit(version.digest, "staging", home.risk)  # nobody serves there
    assert home.plane.registry.admit(version.digest, "production", home.risk)


def test_an_overtaken_version_is_refused_in_its_release_measured_again_and_released(home: House) -> None:
    """Two were compared with the same champion; the one that is approved later must face the one before."""
    one = challenger(home, "race", "")
    assert home.release(one).state == "done"
    two, three = challenger(home, "race", one.digest), challenger(home, "race", one.digest)
    assert home.release(two).state == "done"
    failed = home.release(three)
    assert failed.error is not None and failed.error["code"] == "champion_changed", failed
    assert one.digest[7:19] in failed.error["error"] and two.digest[7:19] in failed.error["error"]
    assert "train it again" in failed.error["hint"]
    refused = home.now(three)
    assert (refused.state, refused.reason) == ("refused", failed.error["error"])
    assert home.plane.rollout.champion("race", "production") == two.digest
    entry = home.log(action="registry.admit_approved", resource_id=three.alias, outcome="refused")[0].entry
    assert entry.detail["code"] == "champion_changed"

    home.plane.registry.package(refused, home.author.name, home.operation())  # the same bytes, built again
    measured(home, refused, two.digest)
    again = home.plane.registry.register(three.digest, home.author.name, home.operation())
    assert (again["version"], again["state"]) == (three.alias, "registered")
    home.staged(three)
    assert home.release(three).state == "done"
    assert home.plane.rollout.champion("race", "production") == three.digest

    assert home.now(one).state == "retired"
    assert home.plane.registry.admit(one.digest, "production", SYSTEM)  # it served before: that challenges nobody


def test_a_champion_gate_that_failed_or_is_not_there_stops_registration(home: House) -> None:
    version = home.packaged((*NAMES, CHAMPION.name), model="worse")
    home.measured(version)
    with pytest.raises(Denied, match="champion roc_auc: no evidence"):
        home.plane.registry.register(version.digest, "engineer", home.operation())
    finding = findings((CHAMPION,), (Measurement(CHAMPION.name, -0.02, {"champion": A}),))
    assert finding[0].verdict is Verdict.FAILED


# ── The profile ───────────────────────────────────────────────────────────────────────────────────


def test_the_profile_of_a_version_is_read_from_its_files(home: House) -> None:
    version = home.packaged(model="profiled")
    data = home.plane.registry.profile(version)
    assert read_profile(data, flight_contract("profiled")).rows == 60
    (file,) = (f for f in version.files if f.path == "profile.json")
    assert (file.sha256, file.size) == (sha256(data), len(data))
    stored = blob_path(home.plane.blobs.root, file.sha256)
    assert b"features" not in stored.read_bytes()  # at rest it is encrypted, as the other files are
    whole = stored.read_bytes()
    stored.chmod(0o600)
    stored.write_bytes(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:])
    with pytest.raises(Integrity):
        home.plane.registry.profile(version)
    stored.write_bytes(whole)
    assert home.plane.registry.profile(version) == data


def test_a_version_from_before_has_none(home: House) -> None:
    old = msgspec.structs.replace(home.packaged(model="old"), files=(FileEntry("model.onnx", 1, A),))
    with pytest.raises(NotFound) as refusal:
        home.plane.registry.profile(old)
    assert refusal.value.code == "no_profile" and refusal.value.hint
