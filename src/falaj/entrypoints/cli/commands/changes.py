"""Change records: listed, shown, reviewed."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import connect
from falaj.entrypoints.cli.naming import named
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.governance.changes.records import ChangeRecord, markdown

changes_app = App(name="changes", help="What was changed, by whom, on whose authority, and how to take it back.")

Change = Annotated[str, Parameter(help="A change, such as chg_42.")]


@changes_app.command(name="list")
def changes_list(
    *,
    model: Annotated[str, Parameter(help="Of this model only.")] = "",
    only: Annotated[str, Parameter(name="--type", help="Of this type only, such as policy or promotion.")] = "",
    limit: Annotated[int, Parameter(help="How many, newest first.")] = 30,
    common: Common = DEFAULT,
) -> None:
    """List changes, newest first: of what answers callers, and of the policy, of who may act, of keys."""
    with connect(common.settings()) as client:
        rows = client.get("/api/v1/changes", model=named(model) if model else "", limit=limit, type=only)
    if common.json:
        render.show_json(rows)
        return
    render.table(
        ("change", "at", "kind", "state", "initiator", "review", "what"),
        [(r["id"], r["at"], r["kind"], r["state"], r["initiator"], r["review"], r["title"]) for r in rows],
        empty="nothing was changed yet",
    )


@changes_app.command(name="show")
def changes_show(
    change: Change,
    /,
    *,
    page: Annotated[bool, Parameter(name="--markdown", negative=(), help="As a page in Markdown.")] = False,
    common: Common = DEFAULT,
) -> None:
    """Show a change: reason, affected, risk, back-out, authority, schedule, history, review."""
    with connect(common.settings()) as client:
        row = client.get(f"/api/v1/changes/{named(change)}")
    if common.json:
        render.show_json(row)
        return
    if page:
        print(markdown(msgspec.convert(row, ChangeRecord)), end="")  # a page goes out as it is
        return
    _tell(row)


@changes_app.command(name="review")
def changes_review(
    change: Change,
    /,
    *,
    outcome: Annotated[str, Parameter(help="successful, 'successful with issues' or failed.")],
    text: Annotated[str, Parameter(help="What was seen, and what was learnt.")],
    common: Common = DEFAULT,
) -> None:
    """Write the review of a change after it was made."""
    with connect(common.settings()) as client:
        row = client.post(f"/api/v1/changes/{named(change)}/reviews", {"outcome": outcome, "text": text})
    if common.json:
        render.show_json(row)
    else:
        render.line(f"{change} is reviewed: {row['review']['outcome']}")


def _tell(row: dict[str, Any]) -> None:
    """A record as text."""
    back = f"{row['back_out']}{' → ' + row['back_out_to'] if row['back_out_to'] else ''}"
    review = row["review"]
    reviewed = review["outcome"] + (f" ({review['reviewer'] or 'filled from the rollout'}): {review['text']}")
    lines = (
        ("change", f"{row['id']}: {row['title']}"),
        ("type", f"{row['type']}, {row['kind']}"),
        ("state", row["state"]),
        ("initiator", row["initiator"]),
        ("reason", row["reason"] or "–"),
        ("risk", row["risk"]),
        ("where", ", ".join(row["environments"])),
        ("back-out", back or "–"),
        ("requested", row["requested_at"]),
        ("started", row["started_at"] or "–"),
        ("finished", row["finished_at"] or "–"),
        ("review", "open" if review["state"] == "open" else reviewed),
    )
    for name, value in lines:
        render.line(f"{name:>13}  {value}")
    render.table(
        ("affected", "digest", "part"),
        [(a["alias"], render.digest(a["digest"]), a["part"]) for a in row["affected"]],
        empty="",
    )
    render.table(
        ("authority", "roles", "what", "when", "reason"),
        [(a["principal"], ", ".join(a["roles"]) or "–", a["what"], a["at"], a["reason"]) for a in row["authority"]],
        empty="",
    )
    render.table(
        ("entry", "at", "who", "action", "outcome", "told"),
        [(s["index"], s["at"], s["principal"], s["action"], s["outcome"], s["told"]) for s in row["history"]],
        empty="",
    )
