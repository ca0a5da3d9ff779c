"""Tables of cases, asked of the policy that holds or of one in a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from falaj.bootstrap.control_plane import actions
from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import connect
from falaj.entrypoints.cli.commands.policy import read_text
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.governance.policy.cases import FORMATS, Case, checked, read_cases
from falaj.governance.policy.decide import EnvironmentAuthoriser
from falaj.governance.policy.statements import check_policy
from falaj.kernel.errors import Invalid


def policy_test(
    file: Annotated[Path, Parameter(help="Cases, as TOML or CSV.")],
    /,
    *,
    policy: Annotated[
        Path | None, Parameter(help="Ask this policy and not the one that holds; then no home is needed.")
    ] = None,
    common: Common = DEFAULT,
) -> None:
    """Ask a table of cases, and list those that come out otherwise than expected. 0 none, 1 some."""
    cases = read_cases(read_text(file), _kind(file))
    if policy is None:
        with connect(common.settings()) as client:
            results = client.post("/api/v1/policy/test", {"cases": msgspec.to_builtins(cases)})
    else:
        results = _alone(cases, read_text(policy))
    differing = [(n, r) for n, r in enumerate(results, start=1) if not r["ok"]]
    if common.json:
        render.show_json({"cases": len(results), "differing": [{"number": n, **r} for n, r in differing]})
    else:
        _tell(len(results), differing)
    if differing:
        sys.exit(1)


def _alone(cases: list[Case], text: str) -> list[dict[str, Any]]:
    declared = actions()
    check_policy(text, declared)
    results: list[dict[str, Any]] = msgspec.to_builtins(checked(EnvironmentAuthoriser(declared, text), cases, declared))
    return results


def _tell(count: int, differing: list[tuple[int, dict[str, Any]]]) -> None:
    if not differing:
        render.line(f"{count} case{'s' * (count != 1)}, all as expected")
        return
    render.line(f"{len(differing)} of {count} cases came out otherwise")
    render.table(
        ("case", "principal", "roles", "action", "resource", "expected", "because"),
        [_row(number, result) for number, result in differing],
    )


def _row(number: int, result: dict[str, Any]) -> tuple[Any, ...]:
    case = result["case"]
    expected = f"{case['expected']}{' by ' + case['rule'] if case['rule'] else ''}"
    roles = " ".join(case["roles"]) or "–"
    return number, case["principal"], roles, case["action"], case["resource"], expected, result["reason"]


def _kind(file: Path) -> str:
    kind = file.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise Invalid(
            f"{file.name} is neither TOML nor CSV by its name",
            hint="call it NAME.toml or NAME.csv",
            code="bad_cases_file",
        )
    return kind
