"""Who may do what: the policy that holds, the way to another one, and why it decides as it does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import connect
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.kernel.errors import Invalid

policy_app = App(name="policy", help="Who may do what: the rules, their versions, and why they decide as they do.")
policy_app.command("falaj.entrypoints.cli.commands.policytest:policy_test", name="test")
# In a module of its own: it knows every action that there is, and so imports what the other commands need not.

PolicyFile = Annotated[Path, Parameter(help="A file with the home's policy, as Cedar.")]


@policy_app.command(name="show")
def policy_show(
    *,
    version: Annotated[int | None, Parameter(help="An earlier version's number.")] = None,
    platform: Annotated[
        bool, Parameter(negative="", help="Show the platform's own rules too, which no home can change.")
    ] = False,
    common: Common = DEFAULT,
) -> None:
    """Print the home's policy as Cedar: a file to change and to apply."""
    with connect(common.settings()) as client:
        found = client.get("/api/v1/policy")
        if version is not None:
            found |= client.get(f"/api/v1/policy/versions/{version}")
    if common.json:
        render.show_json(found if platform else {k: v for k, v in found.items() if k != "platform"})
        return
    if found["trouble"]:
        render.err.print(f"[bold red]does not hold[/] {render.plain(found['trouble'])}")
    render.line(found["text"].rstrip("\n"))
    if platform:
        render.line("\n" + found["platform"].rstrip("\n"))


@policy_app.command(name="log")
def policy_log(*, common: Common = DEFAULT) -> None:
    """List the versions of the home's policy, newest first: who applied each, when, why."""
    with connect(common.settings()) as client:
        rows = client.get("/api/v1/policy/versions")
    if common.json:
        render.show_json(rows)
        return
    render.table(
        ("version", "at", "by", "digest", "why"),
        [(r["number"], r["at"] or "–", r["author"], render.digest(r["digest"]), r["reason"]) for r in rows],
    )


@policy_app.command(name="plan")
def policy_plan(file: PolicyFile, /, *, common: Common = DEFAULT) -> None:
    """Validate a policy, and show which rules and which decisions would be others under it. Changes nothing."""
    with connect(common.settings()) as client:
        found = client.post("/api/v1/policy/plan", {"text": read_text(file)})
    if common.json:
        render.show_json(found)
        return
    render.line(f"valid: {render.digest(found['digest'])}, to hold after version {found['after']}")
    for word in ("added", "removed", "changed"):
        if found[word]:
            render.line(f"{word:<8} {', '.join(found[word])}")
    render.table(
        ("role", "action", "in", "now", "then"),
        [
            (s["role"], s["action"], s["environment"] or "everywhere", _may(s["before"]), _may(s["after"]))
            for s in found["shifts"]
        ],
        empty="no role alone may do more or less",
    )


@policy_app.command(name="apply")
def policy_apply(
    file: PolicyFile | None = None,
    /,
    *,
    version: Annotated[int | None, Parameter(help="In place of a file: an earlier version, by its number.")] = None,
    reason: Annotated[str, Parameter(help="Why it shall hold.")],
    common: Common = DEFAULT,
) -> None:
    """Let a policy hold from now on, in both planes. One under which nobody could change it again is refused."""
    if (file is None) == (version is None):
        raise Invalid(
            "name a file or a version",
            hint="`falaj policy apply FILE` or `--version N`, not both",
            code="file_or_version",
        )
    with connect(common.settings()) as client:
        text = read_text(file) if file else client.get(f"/api/v1/policy/versions/{version}")["text"]
        done = client.post("/api/v1/policy", {"text": text, "reason": reason})
    if common.json:
        render.show_json(done)
    else:
        render.line(f"version {done['number']} holds: {render.digest(done['digest'])}")


@policy_app.command(name="explain")
def policy_explain(
    principal: Annotated[str, Parameter(help="Who asks: a principal of this home, or anyone with --role.")],
    action: Annotated[str, Parameter(help="The action, such as changes.approve.")],
    resource: Annotated[str, Parameter(help="What it is done to, such as delay@1.")],
    /,
    *,
    role: Annotated[
        list[str] | None,
        Parameter(negative="", help="A role in place of those that the principal has; may be repeated."),
    ] = None,
    fact: Annotated[
        list[str] | None, Parameter(negative="", help="NAME=VALUE, something known of the resource; may be repeated.")
    ] = None,
    project: Annotated[str, Parameter(help="Ask as with a token that is bound to this project.")] = "",
    common: Common = DEFAULT,
) -> None:
    """Say whether it is allowed, which rule decides, and what would change that. Asks; does nothing."""
    asked: dict[str, Any] = {
        "principal": principal,
        "action": action,
        "resource": resource,
        "roles": role,
        "project": project,
    }
    asked["attributes"] = dict(_pair(f) for f in fact or ())
    with connect(common.settings()) as client:
        found = client.post("/api/v1/policy/explanation", asked)
    if common.json:
        render.show_json(found)
        return
    verdict = "permitted" if found["allowed"] else "denied"
    render.line(
        f"{verdict}: {found['principal']} ({', '.join(found['roles']) or 'no role'}), {found['action']}, {found['resource']}"
    )
    render.line(f"because  {found['reason']}")
    if found["facts"]:
        render.line(f"known    {'; '.join(f'{k}={_told(v)}' for k, v in found['facts'].items())}")
    if found["hint"]:
        render.line(f"next     {found['hint']}")
    for rule in found["rules"]:
        render.line(f"\n{rule['layer']}'s rule:\n{rule['text']}")
    render.line("")
    render.table(
        (f"it would be {'denied' if found['allowed'] else 'permitted'}", "because"),
        [(" and ".join(c["what"]), c["reason"]) for c in found["changes"]],
        empty="neither one nor two other roles or facts would change that",
    )


def read_text(path: Path) -> str:
    """A text file. Raises `Invalid`."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as e:
        why = "it is no UTF-8 text" if isinstance(e, UnicodeDecodeError) else (e.strerror or str(e)).lower()
        raise Invalid(
            f"cannot read {path}: {why}", hint="name a text file that is there", code="unreadable_file"
        ) from e


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise Invalid(f"{text[:80]!r} is no NAME=VALUE", hint="write --fact author=bob", code="bad_fact")
    return name.strip(), value.strip()


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return (value if isinstance(value, str) else " ".join(value)) or "–"


def _may(allowed: bool) -> str:
    return "permitted" if allowed else "denied"
