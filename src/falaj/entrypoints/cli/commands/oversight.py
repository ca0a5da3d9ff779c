"""The model inventory, the kill switch, and approvals taken back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import App, Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import connect
from falaj.entrypoints.cli.commands.look import find_numbered
from falaj.entrypoints.cli.naming import named
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.kernel.environments import PRODUCTION
from falaj.kernel.errors import Invalid

inventory_app = App(name="inventory", help="What is known of each model: owner, use, risk tier, validation, fallback.")

Model = Annotated[str, Parameter(help="A model.")]
Why = Annotated[str, Parameter(help="Why.")]
_SHOWN = ("owner", "intended_use", "impact")


@Parameter(name="*")
@dataclass(frozen=True)
class Said:
    """What is said of the model; what is left out stays as it is."""

    owner: Annotated[str | None, Parameter(help="Who answers for it.")] = None
    intended_use: Annotated[str | None, Parameter(help="What it is for, and what not.")] = None
    impact: Annotated[str | None, Parameter(help="What its decisions do to whom.")] = None
    tier: Annotated[str | None, Parameter(help="one-person, minimal, limited, high or critical.")] = None
    regulated: Annotated[bool | None, Parameter(negative="--not-regulated", help="Whether its use is regulated.")] = (
        None
    )
    revalidate_by: Annotated[str | None, Parameter(help="The day by which it is to be validated again.")] = None
    fallback: Annotated[
        str | None,
        Parameter(help="What answers when it is killed: previous, version:N, refuse, or answer:OUTPUT=VALUE,…"),
    ] = None

    def body(self) -> dict[str, Any]:
        """As the control plane wants to be told. Raises `Invalid`."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "fallback"}
        return {**found, "fallback": fallback_of(self.fallback) if self.fallback is not None else None}


_NOTHING = Said()


def fallback_of(text: str) -> dict[str, Any]:
    """`version:3` → {"kind": "version", "number": 3}. Raises `Invalid`."""
    kind, _, rest = text.partition(":")
    try:
        if kind == "version":
            return {"kind": kind, "number": int(rest)}
        if kind == "answer":
            pairs = (part.partition("=") for part in rest.split(","))
            return {"kind": kind, "answer": {name.strip(): _value(value) for name, _, value in pairs}}
        if not rest:
            return {"kind": kind}
    except ValueError:
        pass
    raise Invalid(
        f"{text[:60]!r} is no fallback",
        hint="write previous, version:N, refuse, or an answer such as answer:probability=0.5,class=0",
        code="bad_fallback",
    )


def _value(text: str) -> Any:
    """A number, or several with spaces between them."""
    numbers = [float(t) if any(c in t for c in ".eEnN") else int(t) for t in text.split()]
    if not numbers:
        raise ValueError("no number")
    return numbers[0] if len(numbers) == 1 else numbers


@inventory_app.command(name="list")
def inventory_list(*, common: Common = DEFAULT) -> None:
    """List the models: tier, owner, what serves, and what stands in the way of a new version."""
    with connect(common.settings()) as client:
        rows = client.get("/api/v1/inventory")
    if common.json:
        render.show_json(rows)
        return
    render.table(
        ("model", "tier", "owner", "state", "serving", "validate by", "frozen"),
        [
            (
                r["model"],
                r["in_force"]["tier"],
                r["owner"] or "–",
                _state(r),
                ", ".join(v["alias"] for v in r["versions"] if PRODUCTION in v["serving"]) or "–",
                r["in_force"]["validate_by"][:10] or "–",
                "; ".join(f.partition(":")[0] for f in r["in_force"]["frozen"]) or "–",
            )
            for r in rows
        ],
        empty="there is no model yet",
    )


@inventory_app.command(name="show")
def inventory_show(model: Model, /, *, common: Common = DEFAULT) -> None:
    """Show what is known of a model: by its project, by people, and by the platform itself."""
    with connect(common.settings()) as client:
        row = client.get(f"/api/v1/inventory/{named(model)}")
    if common.json:
        render.show_json(row)
        return
    _tell(row)


@inventory_app.command(name="set")
def inventory_set(
    model: Model,
    /,
    *,
    reason: Why,
    said: Said = _NOTHING,
    retire: Annotated[bool, Parameter(negative=(), help="Retire it: no version takes traffic any more.")] = False,
    reinstate: Annotated[bool, Parameter(negative=(), help="Take the retirement back.")] = False,
    common: Common = DEFAULT,
) -> None:
    """Say who owns a model, what it is for, its risk tier, its fallback; or retire it."""
    body = said.body()
    told = any(v is not None for v in body.values())
    if retire + reinstate + told != 1:
        raise Invalid(
            "say something of the model, or retire it, or reinstate it",
            hint="one of the three: `falaj inventory set --help`",
            code="bad_inventory_fact",
        )
    with connect(common.settings()) as client:
        path = f"/api/v1/inventory/{named(model)}"
        if told:
            row = client.post(f"{path}/facts", {**body, "reason": reason})
        else:
            row = client.post(f"{path}/retirement", {"retired": retire, "reason": reason})
    if common.json:
        render.show_json(row)
        return
    if retire:
        out = row["taken_out"]
        where = f"; it takes no traffic any more in {' and '.join(out)}" if out else ""
        render.line(f"{model} is retired{where}")
    elif reinstate:
        render.line(f"{model} is reinstated")
    else:
        _tell(row)


@inventory_app.command(name="validate")
def inventory_validate(
    version: Annotated[str, Parameter(help="MODEL@N, the version that was examined.")],
    /,
    *,
    outcome: Annotated[str, Parameter(help="passed, 'passed with findings' or failed.")],
    until: Annotated[str, Parameter(help="The day by which it is to be validated again.")],
    finding: Annotated[tuple[str, ...], Parameter(help="What was found; may be given several times.")] = (),
    common: Common = DEFAULT,
) -> None:
    """Write down an independent validation of a model; its validator is neither the author nor the owner."""
    with connect(common.settings()) as client:
        found = find_numbered(client, version)
        path = f"/api/v1/inventory/{found['model']}/validations/{found['number']}"
        answer = client.post(path, {"outcome": outcome, "findings": list(finding), "until": until})
    if common.json:
        render.show_json(answer)
    else:
        render.line(f"{found['model']} is validated on {version}: {answer['outcome']}, until {answer['until'][:10]}")


def kill(model: Model, /, *, reason: Why, common: Common = DEFAULT) -> None:
    """Kill a model: within five seconds its declared fallback answers in its place, or nobody."""
    with connect(common.settings()) as client:
        answer = client.post(f"/api/v1/models/{named(model)}/kill", {"reason": reason})
    if common.json:
        render.show_json(answer)
        return
    took = f"in {answer['seconds']:.2f} s" if answer["workers"] else "; no data plane runs"
    render.line(f"{model} is killed {took}: {_instead(answer)}".replace(" ;", ";"))
    if answer["less"]:
        render.line(f"its fallback cannot answer: {answer['less']}")
    render.line(f"next: two people revive it: falaj revive {model} --reason '…' --as NAME")


def revive(model: Model, /, *, reason: Why, common: Common = DEFAULT) -> None:
    """Revive a killed model: one person proposes it, another one agrees by the same command."""
    with connect(common.settings()) as client:
        answer = client.post(f"/api/v1/models/{named(model)}/revival", {"reason": reason})
    if common.json:
        render.show_json(answer)
    elif answer["revived"]:
        render.line(f"{model} is revived by {answer['proposed_by']} and {answer['revived_by']}")
    else:
        render.line(f"{answer['proposed_by']} proposes to revive {model}")
        render.line(f"next: somebody else agrees: falaj revive {model} --reason '…' --as NAME")


def revoke(
    version: Annotated[str, Parameter(help="MODEL@N.")],
    /,
    *,
    reason: Why,
    approval: Annotated[str, Parameter(help="The approval's id; else one's own, or the newest that stands.")] = "",
    environment: Annotated[str, Parameter(help="What it was given for.")] = PRODUCTION,
    common: Common = DEFAULT,
) -> None:
    """Take an approval back, before or after the version was let in. One that has too few then takes no traffic any more."""
    with connect(common.settings()) as client:
        found = find_numbered(client, version)
        path = f"/api/v1/models/{found['model']}/versions/{found['number']}/revocations"
        answer = client.post(path, {"reason": reason, "approval": approval, "environment": environment})
    if common.json:
        render.show_json(answer)
        return
    out = answer["taken_out"]
    rest = f"; {version} takes no traffic any more in {' and '.join(out)}" if out else ""
    render.line(f"the approval of {version} by {answer['given_by']} is revoked{rest}")


def _instead(answer: dict[str, Any]) -> str:
    """What answers in place of a killed model, in words."""
    if answer["fallback"].get("kind", "refuse") == "refuse":
        return "callers are refused (model_killed)"
    return f"{answer['answers']} in its place"


def _state(row: dict[str, Any]) -> str:
    return "retired" if row["retired"] else "killed" if row["killed"] else "in use" if row["versions"] else "defined"


def _tell(row: dict[str, Any]) -> None:
    """A record of the inventory as text."""
    force = row["in_force"]
    people = f"{force['approvals']} approvals" if force["approvals"] != 1 else "1 approval"
    roles = f" with {' and '.join(force['roles'])}" if force["roles"] else ""
    allowed = [w for w, yes in (("trains", force["retrains"]), ("promotes", force["promotes"])) if yes]
    lines = [("model", f"{row['model']} ({_state(row)})"), *((n.replace("_", " "), row[n] or "–") for n in _SHOWN)]
    lines += [
        ("risk tier", f"{force['tier']} ({force['tier_from']}){', regulated' if force['regulated'] else ''}"),
        ("asks for", f"{people}{roles}, each counts for {force['approval_days']} days"),
        (
            "by itself",
            f"the platform {' and '.join(allowed)}" if allowed else "the platform neither trains nor promotes",
        ),
        ("fallback", f"{force['fallback']} (now: {force['fallback_now']})"),
        ("validate by", force["validate_by"][:10] or "–"),
        ("data", "; ".join(_source(s) for s in row["data"]) or "–"),
        ("drift", f"{row['drift']['verdict']}, {row['drift']['rows']:,} rows" if row["drift"] else "–"),
        ("incidents", f"{sum(i['state'] != 'resolved' for i in row['incidents'])} open"),
    ]
    for name, value in lines:
        render.line(f"{name:>13}  {value}")
    for why in force["frozen"]:
        render.line(f"{'frozen':>13}  {why}")
    render.table(
        ("version", "state", "serving in", "author", "marks"),
        [(v["alias"], v["state"], ", ".join(v["serving"]) or "–", v["author"], ", ".join(v["marks"]) or "–") for v in row["versions"]],
        empty="",
    )  # fmt: skip
    render.table(
        ("validated", "on", "by", "outcome", "until", "findings"),
        [(v["at"][:10], v["alias"], v["validator"], v["outcome"], v["until"][:10], "; ".join(v["findings"]) or "–") for v in row["validations"]],
        empty="",
    )  # fmt: skip


def _source(source: dict[str, Any]) -> str:
    purposes = ", ".join(source["purposes"]) or "any purpose"
    return f"{source['name']} for {purposes}{' in ' + source['region'] if source['region'] else ''}"
