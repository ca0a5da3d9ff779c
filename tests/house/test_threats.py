"""The page of threats: every id of the public lists stands on it once, and what it names as shown by is there."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "threats.md").read_text("utf-8")
OWASP = (
    "Input Manipulation Attack", "Data Poisoning Attack", "Model Inversion Attack", "Membership Inference Attack", "Model Theft",
    "AI Supply Chain Attacks", "Transfer Learning Attack", "Model Skewing", "Output Integrity Attack", "Model Poisoning",
)  # fmt: skip
ATLAS = dict(
    line.split(" ", 1)
    for line in (Path(__file__).parent / "atlas-5.6.0.txt").read_text("utf-8").splitlines()
    if line.startswith("AML.")
)
ROWS = [
    tuple(map(str.strip, line.strip("|").split("|"))) for line in PAGE.splitlines() if re.match(r"\| (AML|ML)", line)
]
OUTSIDE = re.findall(r"AML\.T\d{4}(?:\.\d{3})?", PAGE.partition("## Not a matter of this platform")[2])


def test_every_id_stands_once() -> None:
    assert len(ATLAS) == 170
    seen = Counter([row[0] for row in ROWS] + OUTSIDE)
    assert not [i for i, n in seen.items() if n != 1]
    parents = {i for i in ATLAS if i.count(".") == 1}
    owasp = {f"ML{n:02}:2023" for n in range(1, 11)}
    assert parents | owasp <= seen.keys(), sorted((parents | owasp) - seen.keys())
    assert seen.keys() <= ATLAS.keys() | owasp, sorted(seen.keys() - ATLAS.keys() - owasp)


def test_every_id_has_its_public_name() -> None:
    names = ATLAS | {f"ML{n:02}:2023": name for n, name in enumerate(OWASP, 1)}
    assert {row[0]: row[1] for row in ROWS} == {row[0]: names[row[0]] for row in ROWS}


def test_every_control_is_shown_by_something_that_is_there() -> None:
    wrong = []
    for number, _, control, shown in ROWS:
        named = re.findall(r"`([^`]+)`", shown)
        wrong += [f"{number}: nothing shows it"] if not named or len(control) < 20 else []
        for name in named:
            file, _, test = name.partition("::")
            path = ROOT / file
            text = path.read_text("utf-8") if path.is_file() else ""
            if not (file.startswith("proofs/") or re.search(r"^ *(async )?def test_", text, re.M)) or not text:
                wrong.append(f"{number}: there is no {file} with tests")
            if test and f"def {test}(" not in text:
                wrong.append(f"{number}: {file} has no {test}")
    assert not wrong


def test_a_proof_that_is_named_runs_with_make_prove() -> None:
    """A helper of a proof shows nothing by itself."""
    proofs = set(re.findall(r"`proofs/(\w+)\.py`", PAGE))
    assert proofs and not [p for p in proofs if p.startswith("_")]
