"""The model card as Markdown: what is known of a version, for people. Pure, and nothing in it is made up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from falaj.kernel.digests import canonical_json
from falaj.lifecycle.evidence.documents.facts import Facts, Figure, figures, limits

_ACTIVE = re.compile(r"([\\`*_{}\[\]<>#+!|~&])")
"""What Markdown or HTML would take for more than text."""


def card(facts: Facts, verification: Sequence[str]) -> str:
    """The card. `verification` are the commands that check the folder it lies in."""
    parts = [f"# {_plain(facts.alias)}", _identity(facts), _purpose(facts), _made_from(facts)]
    parts += [_figures(facts), _gates(facts), _limits(facts), _decisions(facts), _passages(facts)]
    shown = "\n".join(verification)
    parts.append(
        "## How to verify\n\nIn this folder, with nothing of Falaj installed. Compare the keys' fingerprints with what the "
        f"owner of the platform told you another way.\n\n```sh\n{shown}\n```"
    )
    return "\n\n".join(p for p in parts if p) + "\n"


def _identity(facts: Facts) -> str:
    rows = [("digest", facts.digest), ("state", facts.state), ("author", facts.author), ("made", facts.created_at)]
    rows += [("run", facts.run), ("data as known at", facts.as_of)]
    rows += [(f"import: {k}", v) for k, v in sorted(facts.origin.items())]
    return _table(("", ""), [r for r in rows if r[1]])


def _purpose(facts: Facts) -> str:
    contract = facts.contract
    if contract is None:
        return ""
    said = [f"Task: {_plain(contract.task)}."]
    said += [f"It predicts `{_code(contract.label)}`."] if contract.label else []
    said += [f"Purpose: {_plain(contract.purpose)}."] if contract.purpose else ["No purpose is declared."]
    inputs = [(i.name, i.type, f"view {i.view}" if i.source == "view" else i.source) for i in contract.inputs]
    return "## Purpose\n\n" + " ".join(said) + "\n\n" + _table(("input", "type", "from"), inputs)


def _made_from(facts: Facts) -> str:
    rows = [
        (p.kind, p.name, "" if p.version is None else p.version, "" if p.rows is None else f"{p.rows:,}", p.digest)
        for p in facts.parts
    ]
    tables = [_table(("", "name", "version", "rows", "digest"), rows)] if rows else []
    if facts.params:
        params = [(k, v if isinstance(v, str) else canonical_json(v).decode()) for k, v in sorted(facts.params.items())]
        tables.append(_table(("parameter", "value"), params))
    return "## Data, code and parameters\n\n" + "\n\n".join(tables) if tables else ""


def _figures(facts: Facts) -> str:
    found = figures(facts.findings)
    if not found:
        return ""
    rows = [(f.name, f.slice or "all", f"{f.value:.6g}", _interval(f), f.rows or "", _judged(f)) for f in found]
    note = "Measured on rows that training never saw; latency on the very artifact that serves."
    return f"## Figures\n\n{note}\n\n" + _table(("metric", "slice", "value", "95 % interval", "rows", ""), rows)


def _gates(facts: Facts) -> str:
    rows = [(f.gate.name, f.gate.limit, f.verdict.value, f.reason) for f in facts.findings]
    return "## Gates\n\n" + _table(("gate", "limit", "verdict", "why"), rows) if rows else ""


def _limits(facts: Facts) -> str:
    said = limits(facts)
    return "## Limits\n\n" + "\n".join(f"- {_plain(one)}" for one in said) if said else ""


def _decisions(facts: Facts) -> str:
    rows = [(d.what, d.who, " ".join(d.roles), d.at, d.about, d.reason) for d in facts.decisions]
    head = "## Approvals and waivers\n\n"
    return head + (_table(("what", "who", "roles", "when", "for", "reason"), rows) if rows else "Nobody has decided.")


def _passages(facts: Facts) -> str:
    rows = [(p.environment, p.what, p.at, p.until, p.words) for p in facts.passages]
    return "## Environments\n\n" + _table(("environment", "what", "when", "until", ""), rows) if rows else ""


def _interval(figure: Figure) -> str:
    return f"{figure.interval[0]:.6g} to {figure.interval[1]:.6g}" if figure.interval else ""


def _judged(figure: Figure) -> str:
    return "" if figure.judged else "told, not judged"


def _table(head: Iterable[str], rows: Iterable[Sequence[object]]) -> str:
    names = list(head)
    lines = [names, ["---"] * len(names), *([_plain(str(cell)) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _plain(text: str) -> str:
    """Text that stays text, on one line."""
    return _ACTIVE.sub(r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    return " ".join(text.replace("`", "'").split())
