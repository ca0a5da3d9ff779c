"""A sample of `proofs/hostile.py`: it holds, and it sees what would be a fault."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.scripts import loaded

ROOT = Path(__file__).parents[4]
OTHERS = {"?", "(HEAD)", "(no body: not HTTP)"}


@pytest.fixture(scope="module")
def proof() -> Iterator[ModuleType]:
    with loaded(ROOT / "proofs" / "hostile.py") as module:
        yield module


def test_hostile_requests_are_refused_clearly_and_valid_ones_answered(
    proof: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, found, _ = proof.prove(requests=1200, senders=4, seed=11, seconds=60.0, root=tmp_path)
    assert not found, found[:3]
    assert "1200 requests" in text and " 0 × 5xx" in text
    codes = set(json.loads(capsys.readouterr().err.partition("refused: ")[2].replace("'", '"')))
    page = (ROOT / "docs" / "how-to" / "call-a-model.md").read_text("utf-8")
    assert not {c for c in codes - OTHERS if f"`{c}`" not in page}, "the table of refusals lacks some"


class Seen:
    """As much of a scene as judging needs."""

    def __init__(self, proof: ModuleType) -> None:
        self.report = proof.Report()
        self.before = {500.0: [{"name": "probability", "data": [0.5]}]}


@pytest.mark.parametrize(
    ("kind", "refuse", "status", "body"),
    [
        ("x", True, 500, {"error": "e", "code": "c", "hint": "h"}),
        ("x", True, 200, {"parameters": {"prediction_id": "p"}, "outputs": []}),
        ("x", True, 400, {"error": "e", "code": "c"}),
        ("x", True, 400, {"error": "e", "code": "C 5", "hint": "h"}),
        ("valid", False, 400, {"error": "e", "code": "c", "hint": "h"}),
        ("valid", False, 200, {"parameters": {"prediction_id": "p"}, "outputs": [{"name": "probability", "data": [0.6]}]}),
        ("x", False, 200, {"parameters": {"prediction_id": "p"}, "outputs": [{"name": "v", "data": [float("nan")]}]}),
    ],
)  # fmt: skip
def test_the_proof_sees_a_fault(proof: ModuleType, kind: str, refuse: bool, status: int, body: object) -> None:
    scene = Seen(proof)
    scene._refused = proof.Scene._refused.__get__(scene)  # type: ignore[attr-defined]
    scene._answered = proof.Scene._answered.__get__(scene)  # type: ignore[attr-defined]
    asked = proof.Case(kind, proof.http(proof.dumped(proof.good()).encode(), "t"), refuse)
    proof.Scene.judge(scene, asked, status, {"content-type": "application/json"}, json.dumps(body).encode())
    assert scene.report.complaints


def test_the_requests_are_many_and_always_the_same(proof: ModuleType) -> None:
    def made() -> list[tuple[str, bytes]]:
        chance = random.Random("1/2")
        return [(c.kind, c.data) for c in (proof.case(chance, "token") for _ in range(400))]

    assert made() == made()
    assert len({kind for kind, _ in made()}) > 50
