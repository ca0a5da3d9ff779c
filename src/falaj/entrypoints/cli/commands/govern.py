"""Decide about versions; read and verify the audit log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import Client, connect
from falaj.entrypoints.cli.commands.look import find_version
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.governance.audit.verify import verify_folder
from falaj.kernel.errors import Integrity

audit_app = App(name="audit", help="The log of everything that anyone did.")


def approve(
    version: Annotated[str, Parameter(help="MODEL@N.")],
    /,
    *,
    reason: Annotated[str, Parameter(help="Why.")],
    common: Common = DEFAULT,
) -> None:
    """Approve a version on its evidence. The last approval that it needs starts its release, or its rollout in steps."""
    with connect(common.settings()) as client:
        answer = decide(client, version, "approvals", reason)
        if answer["flow"] and not answer["rollout"]:
            with render.progress(quiet=common.json) as show:
                answer["release"] = client.follow(answer["flow"], show)
    if common.json:
        render.show_json(answer)
        return
    render.line(f"{version} approved ({answer['approvals']} of {answer['needed']})")
    if answer["rollout"]:
        render.line(f"its rollout has begun: falaj rollout status {version.partition('@')[0]}")
    if "release" in answer:
        where = (
            " and loaded" if answer["release"]["loaded"] else "; the data plane loads it when it starts (`falaj up`)"
        )
        render.line(f"{version} takes all traffic: generation {answer['release']['generation']} is published{where}")
    if answer["missing_roles"]:
        render.line(f"next: someone with the role {' and '.join(answer['missing_roles'])} approves it too")


def reject(
    version: Annotated[str, Parameter(help="MODEL@N.")],
    /,
    *,
    reason: Annotated[str, Parameter(help="Why.")],
    common: Common = DEFAULT,
) -> None:
    """Reject a version for good."""
    with connect(common.settings()) as client:
        answer = decide(client, version, "rejections", reason)
    if common.json:
        render.show_json(answer)
    else:
        render.line(f"{version} rejected")


def admit(
    version: Annotated[str, Parameter(help="MODEL@N.")],
    environment: Annotated[str, Parameter(help="The environment.")],
    /,
    *,
    common: Common = DEFAULT,
) -> None:
    """Sign an admission of a version to an environment, if everything that it needs is there."""
    with connect(common.settings()) as client:
        found = find_version(client, version)
        path = f"/api/v1/models/{found['model']}/versions/{found['number']}/admissions"
        answer = client.post(path, {"environment": environment})
    if common.json:
        render.show_json(answer)
    else:
        render.line(f"{answer['alias']} is admitted to {environment} until {answer['expires_at']}")


@audit_app.command(name="log")
def audit_log(
    *,
    principal: Annotated[str | None, Parameter(help="Who did it.")] = None,
    action: Annotated[str | None, Parameter(help="What was done.")] = None,
    subject: Annotated[str | None, Parameter(help="To which thing.")] = None,
    outcome: Annotated[str | None, Parameter(help="done, denied or refused.")] = None,
    limit: Annotated[int, Parameter(help="How many, newest first.")] = 30,
    common: Common = DEFAULT,
) -> None:
    """List the newest entries; reading them is an entry too."""
    asked = {"principal": principal, "action": action, "subject": subject, "outcome": outcome, "limit": limit}
    with connect(common.settings()) as client:
        rows = client.get("/api/v1/audit", **{k: v for k, v in asked.items() if v is not None})
    if common.json:
        render.show_json(rows)
        return
    columns = ("entry", "at", "principal", "action", "subject", "outcome", "why")
    render.table(columns, [_row(r) for r in rows])


@audit_app.command(name="verify")
def audit_verify(
    *,
    folder: Annotated[Path | None, Parameter(help="A copy of the log's files instead of the home's own log.")] = None,
    vkey: Annotated[str | None, Parameter(help="The key to trust, for a copy; else the one that lies in it.")] = None,
    common: Common = DEFAULT,
) -> None:
    """Check every byte of the log against its signed checkpoint. Exit code 4 if anything differs."""
    if folder is not None:
        found = verify_folder(folder, vkey)
        report: dict[str, Any] = {
            "ok": found.ok,
            "size": found.size,
            "root": found.root,
            "problems": list(found.problems),
        }
    else:
        with connect(common.settings()) as client:
            report = client.post("/api/v1/audit/verification")
    if not report["ok"]:
        raise Integrity(
            f"the log does not hold: {'; '.join(report['problems'][:3])}",
            hint="keep this copy as it is, compare with a witness's or a backup's checkpoint, and find out who could write there",
            code="audit_broken",
            details=report,
        )
    if common.json:
        render.show_json(report)
    else:
        render.line(f"the log holds: {report['size']} entries, root {report['root']}")


def decide(client: Client, version: str, what: str, reason: str) -> Any:
    """Send a decision about a version."""
    found = find_version(client, version)
    return client.post(f"/api/v1/models/{found['model']}/versions/{found['number']}/{what}", {"reason": reason})


def _row(entry: dict[str, Any]) -> tuple[object, ...]:
    why = entry["detail"].get("reason") or ""
    acting = entry["detail"].get("on_behalf_of")
    principal = f"{entry['principal']} for {acting}" if acting and acting != entry["principal"] else entry["principal"]
    return (entry["index"], entry["at"], principal, entry["action"], entry["resource_id"], entry["outcome"], why)
