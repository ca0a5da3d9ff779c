"""Decide about versions."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import Client, connect
from falaj.entrypoints.cli.commands.look import find_numbered, published, rehearsed
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.kernel.environments import PRODUCTION, STAGING


def approve(
    version: Annotated[str, Parameter(help="MODEL@N.")],
    /,
    *,
    reason: Annotated[str, Parameter(help="Why.")],
    environment: Annotated[str, Parameter(help="Where it shall go.")] = PRODUCTION,
    hold: Annotated[bool, Parameter(negative=(), help="Do not start it: it waits for `falaj rollout start`.")] = False,
    common: Common = DEFAULT,
) -> None:
    """Approve a version on its evidence. The last approval that it needs starts its release, or its rollout in steps.

    For staging, where approvals are asked for there, the last one starts the rehearsal.
    """
    with connect(common.settings()) as client:
        answer = decide(client, version, "approvals", reason, hold=hold, environment=environment)
        if answer["flow"] and not answer["rollout"]:
            with render.progress(quiet=common.json) as show:
                name = "release" if environment == PRODUCTION else "promotion"
                answer[name] = client.follow(answer["flow"], show)
    if common.json:
        render.show_json(answer)
        return
    render.line(f"{version} approved ({answer['approvals']} of {answer['needed']})")
    if answer["rollout"]:
        render.line(f"its rollout has begun: falaj rollout status {version.partition('@')[0]}")
    if "release" in answer:
        render.line(f"{version} takes all traffic: {published(answer['release'])}")
    if "promotion" in answer:
        tell_promotion(answer["promotion"])
    if answer.get("held"):
        render.line(f"its risk tier starts nothing by itself; next: falaj rollout start {version}")
    elif hold and not answer["flow"]:
        render.line(f"nothing is started: falaj rollout start {version}")
    if answer["missing_roles"]:
        render.line(f"next: someone with the role {' and '.join(answer['missing_roles'])} approves it too")


def promote(
    version: Annotated[str, Parameter(help="MODEL@N.")],
    /,
    *,
    to: Annotated[str, Parameter(help="The environment.")] = STAGING,
    common: Common = DEFAULT,
) -> None:
    """Carry a version on to staging: admission, then a rehearsal with real requests. Production is entered by approval."""
    with connect(common.settings()) as client:
        found = find_numbered(client, version)
        path = f"/api/v1/models/{found['model']}/versions/{found['number']}/promotions"
        answer = client.post(path, {"to": to})
        if answer["flow"]:
            with render.progress(quiet=common.json) as show:
                answer["promotion"] = client.follow(answer["flow"], show)
    if common.json:
        render.show_json(answer)
    elif answer["already"]:
        render.line(f"{version} is in {to} and has been rehearsed there: nothing to do")
    else:
        tell_promotion(answer["promotion"])


def tell_promotion(found: dict[str, Any]) -> None:
    """What came of carrying a version on."""
    waits = found["waits_for"]
    if waits:
        told = f"{waits['approvals']} of {waits['needed']} approvals for {waits['environment']}"
        render.line(f"{found['version']} has {told}")
        render.line(
            f"next: falaj approve {found['version']} --environment {waits['environment']} --reason '…' --as NAME"
        )
        return
    render.line(f"{found['version']} is in {found['environments'][-1]}: {rehearsed(found['rehearsal'])}")
    render.line(f"{found['version']} is {found['state']}")


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
        found = find_numbered(client, version)
        path = f"/api/v1/models/{found['model']}/versions/{found['number']}/admissions"
        answer = client.post(path, {"environment": environment})
    if common.json:
        render.show_json(answer)
    else:
        render.line(f"{answer['alias']} is admitted to {environment} until {answer['expires_at']}")


def decide(client: Client, version: str, what: str, reason: str, **more: Any) -> Any:
    """Send a decision about a version; `more` goes with it."""
    found = find_numbered(client, version)
    return client.post(f"/api/v1/models/{found['model']}/versions/{found['number']}/{what}", {"reason": reason, **more})
