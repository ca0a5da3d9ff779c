"""Names of things that are not there, or that no thing can have: the command says which, what there is, and ends with
1 for what the home does not know and 2 for what was typed wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.badinput.machine import FIRST, MODEL, ROW, Typed, copied, project  # noqa: F401 - a fixture

LONG = "x" * 301
CANNOT = ("", " ", "a/b", "..", "../status", LONG, "a\nb")
NOBODY = ("nope", "a b", "نموذج", "x?y", "x#y", "%2e", "%2e%2e%2fstatus", "x" * 300)
MALFORMED = (
    "m@x", "late-flight@x", "late-flight@0", "late-flight@-1", "late-flight@٢", "@1", "", "late-flight", "late-flight@",
    "late-flight@1@2", "late-flight@01", "late-flight@1 ",
)  # fmt: skip
OF_A_VERSION = (
    ("evidence", "show"), ("approve", "--reason", "x"), ("reject", "--reason", "x"), ("promote",), ("admit", "dev"),
    ("rollout", "start"), ("backtest",),
)  # fmt: skip
OF_A_NAME = {
    ("versions",): {"no_such_model", "bad_model_name"},
    ("runs", "list"): {"no_such_model"},
    ("runs", "show"): {"no_such_run"},
    ("train",): {"no_such_model"},
    ("ingest",): {"no_such_source"},
    ("data", "log"): {"no_such_source", "no_such_dataset"},
    ("features", "log"): {"no_such_view"},
    ("drift",): {"no_such_model"},
    ("rollback",): {"no_such_model"},
    ("rollout", "status"): {"no_such_model"},
    ("rollout", "abort"): {"no_such_model"},
    ("rollout", "promote"): {"no_such_model"},
    ("incidents", "resolve"): {"no_such_incident"},
    ("token", "revoke"): {"no_such_token"},
    ("flow", "cancel"): {"no_such_flow"},
}
ELSEWHERE = [
    (("env", "diff", "dev", "nope"), "environment", 1),
    (("promote", FIRST, "--to", "nope"), "environment", 1),
    (("admit", FIRST, "nope"), "environment", 1),
    (("approve", FIRST, "--reason", "x", "--environment", "nope", "--as", "risk"), "environment", 1),
    (("approve", FIRST, "--reason", "x", "--as", "nobody"), "no token for nobody", 1),
    (("approve", FIRST, "--reason", "x", "--as", "../owner"), "principal", 2),
    (("approve", FIRST, "--reason", "x", "--as", ""), "principal", 2),
    (("why", "p_nope_8"), "prediction", 1),
    (("why", "nope"), "prediction", 1),
    (("lineage", "version:nope"), "nothing is known", 1),
    (("lineage", "flights@99"), "nothing is known", 1),
    (("features", "get", "nope", "DL"), "feature view", 1),
    (("features", "get", "carrier_delay", "nope"), "no value", 1),
    (("predict", MODEL, "--data", "/nope.json"), "/nope.json", 2),
    (("predict", "..", "--data", "row.json"), "'..'", 2),
    (("predict", MODEL, "--data", "row.json", "--environment", "nope"), "nope", 2),
    (("train", MODEL, "--param", "x"), "NAME=VALUE", 2),
    (("train", MODEL, "--as-of", "yesterday"), "yesterday", 1),
    (("backtest", FIRST, "--by", "year"), "year", 1),
    (("rollout", "start", FIRST, "--canary", "a,b"), "steps", 2),
    (("token", "create", "a b", "--role", "viewer"), "principal", 1),
    (("token", "create", "x", "--role", "king"), "king", 1),
    (("audit", "verify", "--folder", "/nope"), "/nope", 2),
    (("init", "a/b"), "a/b", 2),
]


@pytest.fixture(scope="module")
def server(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:  # noqa: F811
    """The project with its control plane running."""
    with copied(project, tmp_path_factory.mktemp("names") / "sky") as shell:
        (shell.folder / "row.json").write_text(ROW)
        shell.done("up")
        yield shell.folder
        shell("down")


@pytest.fixture
def typed(server: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    monkeypatch.chdir(server)
    return Typed(capsys)


@pytest.mark.parametrize("command", OF_A_VERSION, ids=" ".join)
def test_a_version_that_is_not_there(typed: Typed, command: tuple[str, ...]) -> None:
    """Which exist is told; what is no reference at all is wrong usage."""
    who = () if command[0] not in ("approve", "reject") else ("--as", "risk")
    for number in ("9", "99999999999999999999"):
        told = typed(*_with(command, f"{MODEL}@{number}"), *who)
        assert (told.code, told.error["code"]) == (1, "no_such_version"), told
        assert f"{MODEL}@{number}" in told.error["error"] and FIRST in told.error["hint"]
    told = typed(*_with(command, "nope@1"), *who)
    assert (told.code, told.error["code"]) == (1, "no_such_model") and MODEL in told.error["hint"]
    for text in MALFORMED:
        told = typed(*_with(command, text), *who)
        assert (told.code, told.error["code"]) == (2, "bad_version_name"), (text, told)
        assert "MODEL@NUMBER" in told.error["hint"]


@pytest.mark.parametrize("command", OF_A_NAME, ids=" ".join)
def test_a_name_that_nothing_has(typed: Typed, command: tuple[str, ...]) -> None:
    for name in NOBODY:
        told = typed(*command, name)
        assert told.code == 1 and told.error["code"] in OF_A_NAME[command] | {"bad_model_name"}, (name, told)
    for name in CANNOT:
        told = typed(*command, name)
        assert (told.code, told.error["code"]) == (2, "bad_name"), (name, told)
        assert len(told.error["error"]) < 200


@pytest.mark.parametrize(
    ("command", "word", "code"), ELSEWHERE, ids=lambda v: " ".join(v) if isinstance(v, tuple) else ""
)
def test_other_things_that_are_not_there(typed: Typed, command: tuple[str, ...], word: str, code: int) -> None:
    told = typed(*command)
    assert told.code == code and word in told.error["error"], told


@pytest.mark.parametrize("command", [("nope",), ("versions",), ("versions", MODEL, "more"), ("--nope",)], ids=" ".join)
def test_what_is_no_command(typed: Typed, command: tuple[str, ...]) -> None:
    assert typed(*command, as_json=False).code == 2


def test_a_person_reads_what_is_wrong_and_what_to_do_next(typed: Typed) -> None:
    told = typed("versions", "nope", as_json=False)
    assert told.out == "" and "not found there is no model 'nope'" in told.err and f"next: there is {MODEL}" in told.err


def test_nothing_of_this_changed_anything(typed: Typed, server: Path) -> None:
    """The log holds, and says of the version what it said before."""
    assert typed("audit", "verify").code == 0
    assert typed("versions", MODEL).out.count('"awaiting approval"') == 1


def _with(command: tuple[str, ...], version: str) -> tuple[str, ...]:
    at = 2 if command[0] in ("evidence", "rollout") else 1
    return (*command[:at], version, *command[at:])
