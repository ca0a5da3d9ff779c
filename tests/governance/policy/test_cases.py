"""The policy against the table, and tables of cases as people write them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from falaj.bootstrap.control_plane import actions
from falaj.governance.identity.model import ROLES
from falaj.governance.policy.cases import Case, checked, question_of, read_cases
from falaj.governance.policy.decide import EnvironmentAuthoriser
from falaj.kernel.errors import Invalid
from tests.governance.policy import oracle as table

ROOT = Path(__file__).parents[3]
ACTIONS = actions()
KNOWN = {a.name: a for a in ACTIONS}
POLICY = EnvironmentAuthoriser(ACTIONS)
ORACLE = table.Oracle(table.TABLE.read_text("utf-8"))
CELLS = list(table.cells(ORACLE, ACTIONS))
PARTS = [(file, *part) for file, text in table.Texts().files.items() for part in table.parts(text)]


def test_the_table_has_every_action_and_every_role() -> None:
    assert ORACLE.actions == set(KNOWN)
    assert set(ORACLE.roles) == {*ROLES, table.PLATFORM, table.NOBODY}
    assert len(CELLS) > 20_000
    assert {c.answer.allowed for c in CELLS} == {True, False}


def test_every_cell_is_as_the_table_says() -> None:
    assert [(str(c), POLICY.decide(c.question())) for c in table.differing(CELLS, POLICY)] == []


def test_a_cell_that_differs_is_seen() -> None:
    text = table.TABLE.read_text("utf-8")
    at = text.index("audit.read ")
    line = text[at : text.index("\n", at)]
    changed = table.Oracle(text.replace(line, line.replace("yes", "-", 1)))
    assert len(list(table.differing(table.cells(changed, ACTIONS), POLICY))) >= 1
    with pytest.raises(AssertionError, match="0 lines"):
        list(table.cells(table.Oracle(text.replace(line + "\n", "")), ACTIONS))
    with pytest.raises(AssertionError, match="2 lines"):
        list(table.cells(table.Oracle(text + line), ACTIONS))


def test_the_parts_are_all_of_the_policy() -> None:
    found = {(file, text.count("\npermit (") + text.count("\nforbid (")) for file, text in table.Texts().files.items()}
    assert {(f, sum(1 for p in PARTS if p[0] == f)) for f, _ in found} == found
    assert len(PARTS) == 33


@pytest.mark.parametrize(("file", "rule", "part"), PARTS, ids=[f"{f}-{r}" for f, r, _ in PARTS])
def test_no_statement_can_be_deleted_unnoticed(file: str, rule: str, part: str) -> None:
    text = table.Texts().files[file]
    assert not table.Texts().refused(ACTIONS)  # else this would prove nothing
    assert not table.Texts({file: text.replace(part, "")}).refused(ACTIONS), "so it is a cell that must notice"
    assert table.noticed({file: text.replace(part, "")}, rule, CELLS, ACTIONS)
    assert not table.noticed({file: text + "// no change\n"}, rule, CELLS[:50], ACTIONS)


def test_a_sample_of_the_proof_holds() -> None:
    command = [sys.executable, str(ROOT / "proofs/policy.py"), "--random", "1500", "--mutants", "12"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = done.stdout.splitlines()
    assert "1,500 random cases, 0 answered otherwise" in line and "changes of the policy noticed" in line


# tables as people write them

TOML = """
[[case]]
principal = "ann"
roles = ["risk-officer"]
action = "changes.approve"
resource = "delay@1"
attributes = { author = "bob", environment = "production" }
expected = "permit"
rule = "risk-officers-and-admins-judge"

[[case]]
principal = "bob"
roles = ["platform-admin", "risk-officer"]
action = "changes.approve"
attributes = { author = "bob" }
expected = "deny"
rule = "four-eyes"

[[case]]
roles = ["data-scientist"]
action = "training.start"
attributes = { purpose = "a b", purposes = ["a b", "c"] }
expected = "permit"

[[case]]
roles = ["platform-admin"]
scope = ["read"]
action = "identity.grant"
expected = "deny"
rule = "within-the-tokens-scope"
"""
CSV = """
# who approves
principal, roles, action, resource, attributes, expected, rule, scope
ann, risk-officer, changes.approve, delay@1, author=bob; environment=production, permit, risk-officers-and-admins-judge,
bob, platform-admin risk-officer, changes.approve, , author=bob, deny, four-eyes,

, data-scientist, training.start, , purpose=a; purposes=a c, permit, ,
, platform-admin, identity.grant, , , deny, within-the-tokens-scope, read
"""


@pytest.mark.parametrize(("text", "kind"), [(TOML, "toml"), (CSV, "csv")])
def test_a_table_is_asked(text: str, kind: str) -> None:
    cases = read_cases(text, kind)
    assert [r.ok for r in checked(POLICY, cases, ACTIONS)] == [True] * 4
    assert cases[0] == Case(
        "changes.approve", "permit", "ann", ("risk-officer",), "delay@1",
        {"author": "bob", "environment": "production"}, "risk-officers-and-admins-judge",
    )  # fmt: skip


@pytest.mark.parametrize(
    "changed",
    [
        {"expected": "deny"},
        {"rule": "admins-administer"},
        {"roles": ("viewer",)},
        {"attributes": {"author": "ann"}},
        {"attributes": {}},
        {"scope": ()},
    ],
    ids=str,
)
def test_a_case_that_comes_out_otherwise_is_told(changed: dict[str, Any]) -> None:
    fields = {"roles": ("risk-officer",), "attributes": {"author": "bob"}, "expected": "permit", "rule": "", **changed}
    (result,) = checked(POLICY, [Case("changes.approve", principal="ann", **fields)], ACTIONS)
    assert not result.ok and result.reason


@pytest.mark.parametrize(
    ("text", "kind", "match"),
    [
        ("", "toml", "no case"),
        ("case = 1", "toml", "nothing else"),
        ("[[case]]\nexpected = 'deny'", "toml", "case 1.*action"),
        ("[[case]]\naction = 'x'\nexpected = 'deny'\nwhen = 1", "toml", "case 1.*when"),
        ("[[case]]\naction = 3\nexpected = 'deny'", "toml", "case 1"),
        ("not = [toml", "toml", "no TOML"),
        ("a\nb", "csv", "case 1"),
        ("action,expected\n", "csv", "no case"),
        ("action,expected\nx", "csv", "fewer"),
        ("action,expected\nx,deny,more", "csv", "more"),
        ('action,expected\n"x,deny', "csv", "no CSV"),
        ("action,expected,attributes\nx,deny,author", "csv", "name=value"),
    ],
)
def test_a_table_that_cannot_be_read(text: str, kind: str, match: str) -> None:
    with pytest.raises(Invalid, match=match) as refusal:
        read_cases(text, kind)
    assert refusal.value.code == "bad_cases"


@pytest.mark.parametrize(
    ("case", "match"),
    [
        (Case("audit.reed", "deny"), "no action"),
        (Case("audit.read", "deny", roles=("auditer",)), "no role"),
        (Case("audit.read", "perhaps"), "cannot be expected"),
        (Case("audit.read", "deny", attributes={"author": "bob"}), "no fact 'author'"),
        (Case("changes.approve", "deny", attributes={"author": ["bob"]}), "is a word"),
        (Case("training.start", "deny", attributes={"purposes": [1]}), "list of words"),
    ],
    ids=str,
)
def test_a_case_that_cannot_be_asked_is_no_case_that_passes(case: Case, match: str) -> None:
    with pytest.raises(Invalid, match=match):
        checked(POLICY, [case], ACTIONS)


def test_what_a_question_is_made_of() -> None:
    asked = question_of(Case("serving.score", "permit", attributes={"purpose": "a", "purposes": "a b"}), KNOWN)
    assert (asked.resource.type, asked.resource.attributes) == (
        "ModelVersion",
        {"purpose": "a", "purposes": ["a", "b"], "quarantined": False, "region": "", "regions": []},
    )
