"""What is handed to an outsider holds without Falaj, says only what is known, and shows every flipped byte."""

from __future__ import annotations

import io
import os
import random
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import msgspec
import pytest

from falaj.bootstrap.runtime import runtime_list
from falaj.kernel.clock import iso
from falaj.kernel.digests import sha256
from falaj.lifecycle.evidence.model import BuildFacts, GateSpec, Measurement, findings
from falaj.lifecycle.evidence.service import Measured
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.training.model import DatasetUse
from tests.lifecycle.house import House

BIN = Path(sys.executable).parent
OUTSIDER = Path(__file__).with_name("outsider.py")
GATES = (
    GateSpec("metric", "roc_auc", at_least=0.6),
    GateSpec("slice", "roc_auc", at_least=0.5, by="carrier"),
    GateSpec("parity", "max_abs_difference", at_most=1e-4),
    GateSpec("scan"),
)
READINGS = (
    Measurement("metric roc_auc", 0.71, {"rows": 900, "interval_95": [0.68, 0.74], "refused_rows": 3}),
    Measurement(
        "slice carrier roc_auc",
        0.66,
        {
            "worst": "AA",
            "slices": {
                "AA": {"rows": 400, "judged": True, "value": 0.66},
                "<b>|x": {"rows": 12, "judged": False, "value": 0.4},
            },
        },
    ),
    Measurement("parity max_abs_difference", 1e-6),
    Measurement("scan", 0.0),
)


def measured(home: House) -> ModelVersion:
    """A version with figures by slice, a runtime and parameters, approved and serving."""
    version = home.packaged(gates=tuple(g.name for g in GATES))
    now = iso(home.plane.clock.now())
    facts = BuildFacts(
        project=version.digest,
        datasets=(DatasetUse("flights", 3, sha256(b"flights")),),
        views={"weather": sha256(b"weather")},
        runtime=home.plane.blobs.put(runtime_list()),
        training_set=sha256(b"set"),
        as_of="2013-04-01T00:00:00.000Z",
        run=version.run,
        params={"learning_rate": 0.1, "objective": "binary"},
    )
    record = Measured(version.alias, version.digest, findings(GATES, READINGS), facts, now, now)
    home.plane.evidence.record(record, home.author.name, home.operation())
    home.plane.registry.register(version.digest, home.author.name, home.operation())
    home.staged(version)
    home.release(version)
    return home.now(version)


@pytest.fixture(scope="module")
def version(home: House) -> ModelVersion:
    home.person("auditor", "auditor")
    return measured(home)


@pytest.fixture(scope="module")
def folder(home: House, version: ModelVersion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("handed") / "evidence"
    with tarfile.open(fileobj=io.BytesIO(handed(home, version))) as archive:
        archive.extractall(place, filter="data")
    return place


def handed(home: House, version: ModelVersion, principal: str = "owner") -> bytes:
    answer = home.api(principal).get(f"/api/v1/models/{version.model}/versions/{version.number}/dossier")
    assert answer.status_code == 200, answer.text
    return answer.content


def commands(folder: Path) -> list[list[str]]:
    """The commands at the end of the card, and the outsider's own."""
    card = (folder / "MODEL_CARD.md").read_text("utf-8")
    shown = card.partition("```sh\n")[2].partition("```")[0].strip().splitlines()
    return [*(shlex.split(line) for line in shown), [sys.executable, str(OUTSIDER), "."]]


def failing(folder: Path, wanted: list[list[str]]) -> list[str]:
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    done = [
        (c[0], subprocess.run(c, cwd=folder, env=environment, capture_output=True, text=True, check=False))
        for c in wanted
    ]
    return [f"{name}: {d.stdout}{d.stderr}" for name, d in done if d.returncode]


def test_an_outsider_finds_that_everything_holds(folder: Path) -> None:
    wanted = commands(folder)
    assert [c[0].rpartition("/")[2][:6] for c in wanted] == ["openss", "sha256", "model_", "python"]
    assert failing(folder, wanted) == []


def test_the_folder_has_every_kind_of_evidence(folder: Path, version: ModelVersion) -> None:
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    expected = {
        "model.sig", "keys.json", "approvals.json", "bom.cdx.json", "MODEL_CARD.md", "provenance.json", "MANIFEST", "MANIFEST.sig",
        "attestations/evidence/01-metric-roc_auc.json", "attestations/evidence/05-build.json",
        "attestations/dev/admission-01.json", "attestations/staging/admission-01.json", "attestations/staging/rehearsal.json",
        "attestations/production/admission-01.json",
        *(f"keys/{name}.pem" for name in ("attestation", "dev", "staging", "production", "model")),
        *(f"model/{f.path}" for f in version.files),
    }  # fmt: skip
    assert expected <= files
    for f in version.files:
        assert sha256((folder / "model" / f.path).read_bytes()) == f.sha256
    statement = msgspec.json.decode((folder / "provenance.json").read_bytes())
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    decided = msgspec.json.decode((folder / "approvals.json").read_bytes())["approvals"]
    assert [(a["principal"], a["decision"], a["reason"]) for a in decided] == [("risk", "approved", "evidence read")]


def test_one_state_gives_the_same_bytes(home: House, version: ModelVersion) -> None:
    assert handed(home, version) == handed(home, version, "auditor")


def test_the_bom_says_what_is_known_and_nothing_else(folder: Path) -> None:
    bom = msgspec.json.decode((folder / "bom.cdx.json").read_bytes())
    model = bom["metadata"]["component"]
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert metrics[0] == {
        "type": "roc_auc", "value": "0.71", "confidenceInterval": {"lowerBound": "0.68", "upperBound": "0.74"}
    }  # fmt: skip
    assert {"type": "roc_auc", "value": "0.66", "slice": "carrier=AA"} in metrics
    learnt = {p["name"]: p["value"] for p in model["modelCard"]["properties"]}
    assert learnt["falaj:hyperparameter:learning_rate"] == "0.1"
    data = {c["name"]: c for c in bom["components"] if c["type"] == "data"}
    assert data["flights"]["version"] == "3" and data.keys() >= {"flights", "weather"}
    libraries = {c["name"]: c for c in bom["components"] if c["type"] == "library"}
    assert len(libraries) > 50 and libraries["cryptography"]["purl"].startswith("pkg:pypi/cryptography@")
    assert any("licenses" in c for c in libraries.values())
    assert "rows" not in str(data["flights"]["properties"]), "nobody loaded it here, so its rows are not known"
    assert "licenses" not in model, "nobody said under which licence the model is"


def test_what_is_not_known_is_left_out(home: House) -> None:
    version = home.registered()
    with tarfile.open(fileobj=io.BytesIO(handed(home, version))) as archive:
        told = archive.extractfile("bom.cdx.json")
        assert told is not None
        bom = msgspec.json.decode(told.read())
    assert [c["type"] for c in bom["components"]] == ["data"]
    assert bom["compositions"][0]["aggregate"] == "unknown"


def test_the_card_tells_figures_limits_and_decisions_as_text(folder: Path) -> None:
    card = (folder / "MODEL_CARD.md").read_text("utf-8")
    for told in (
        "| roc\\_auc | all | 0.71 | 0.68 to 0.74 | 900 |  |",
        "| roc\\_auc | carrier=AA | 0.66 |  | 400 |  |",
        "told, not judged",
        "| metric roc\\_auc | \\>= 0.6 | Successful |",
        "metric roc\\_auc leaves 3 rows out",
        "| approved | risk |",
        "it was trained on what was known at 2013-04-01T00:00:00.000Z",
    ):
        assert told in card
    assert "<b>" not in card, "a value of the data is no markup"


def test_every_flipped_byte_is_found(folder: Path, tmp_path: Path) -> None:
    """All bytes of the manifest's signature, the ends and a sample of every other file: some command fails each time."""
    chance = random.Random(7)
    openssl, sums, *_ = commands(folder)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        good = path.read_bytes()
        own = path.name in ("MANIFEST", "MANIFEST.sig")
        size = len(good)
        places = (
            range(size)
            if path.name == "MANIFEST.sig"
            else {0, size - 1, *chance.sample(range(size), min(size, 40 if own else 4))}
        )
        for place in places:
            flip = chance.choice((1, 2, 16, 32, 128))
            path.write_bytes(good[:place] + bytes([good[place] ^ flip]) + good[place + 1 :])
            found = failing(folder, [openssl] if own else [sums])
            assert found, f"byte {place} of {path.name} flipped by {flip} was not found"
        path.write_bytes(good)
    assert failing(folder, [openssl, sums]) == []


def test_a_flipped_byte_of_a_signed_file_is_found_by_its_own_verifier_too(folder: Path) -> None:
    *_, model, outsider = commands(folder)
    for name, wanted in (("model/model.onnx", model), ("attestations/evidence/01-metric-roc_auc.json", outsider)):
        path = folder / name
        good = path.read_bytes()
        at = good.index(b'"payload":"') + 15 if name.endswith(".json") else len(good) // 2
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert failing(folder, [wanted])
        path.write_bytes(good)
        assert failing(folder, [wanted]) == []


def test_handing_out_is_audited_and_is_not_for_everyone(home: House, version: ModelVersion) -> None:
    handed(home, version, "auditor")
    entry = home.log(action="evidence.export")[0].entry
    assert (entry.principal, entry.outcome, entry.resource_id) == ("auditor", "done", version.alias)
    assert entry.detail["digest"] == version.digest
    answer = home.api(home.author.name).get(f"/api/v1/models/{version.model}/versions/{version.number}/dossier")
    assert answer.status_code == 403
