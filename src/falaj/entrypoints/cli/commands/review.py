"""Answers that people look at."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import App, Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import connect
from falaj.entrypoints.cli.commands.follow import reviewed
from falaj.entrypoints.cli.naming import named
from falaj.entrypoints.cli.session import DEFAULT, Common

review_app = App(name="review", help="Answers that people look at: which wait, ask for one, confirm or override it.")

Id = Annotated[str, Parameter(help="The id that `falaj review list` shows.")]


@review_app.command(name="list")
def review_list(
    *,
    model: Annotated[str, Parameter(help="Of one model only.")] = "",
    every: Annotated[bool, Parameter(name="--all", negative=(), help="Those that were decided, too.")] = False,
    limit: Annotated[int, Parameter(help="How many, 1 to 1000.")] = 100,
    common: Common = DEFAULT,
) -> None:
    """List the answers that wait for a person, the one that is due first at the top."""
    with connect(common.settings()) as client:
        rows = client.get("/api/v1/reviews", state="" if every else "pending", model=model, limit=limit)
    if common.json:
        render.show_json(rows)
        return
    render.table(
        ("id", "model", "answer", "because", "due", "prediction", "decision"),
        [
            (r["id"], r["model"], answer(r["answer"]), r["because"], r["due_at"], _place(r), _decision(r))
            for r in rows
        ],
        empty="no answer waits for a person",
    )  # fmt: skip


@review_app.command(name="show")
def review_show(review: Id, /, *, common: Common = DEFAULT) -> None:
    """Show one: the answer, why a person looks at it, what may be said of it, what was said."""
    with connect(common.settings()) as client:
        row = client.get(f"/api/v1/reviews/{named(review)}")
    if common.json:
        render.show_json(row)
        return
    render.line(f"{row['model']} answered {answer(row['answer'])} to {_place(row)}")
    render.line(f"asked by {row['asked_by']} on {row['at']} ({row['because']}), due {row['due_at']}")
    render.line(reviewed(row))
    if row["state"] == "pending":
        instead = " or ".join(row["choices"]) or "NUMBER"
        render.line(f"what it rests on: falaj why {_place(row)}")
        render.line(f"then: falaj review confirm {review}")
        render.line(f"  or: falaj review override {review} --to {instead} --code {'|'.join(row['codes'])}")


@review_app.command(name="ask")
def review_ask(
    prediction: Annotated[str, Parameter(help="A prediction id; with /ROW for a row that is not the first.")],
    /,
    *,
    because: Annotated[
        str, Parameter(help="contested: whom it is about does not agree; doubted: somebody here has a doubt.")
    ],
    common: Common = DEFAULT,
) -> None:
    """Have a person look at an answer. Asked again, it shows how that stands."""
    with connect(common.settings()) as client:
        row = client.post(f"/api/v1/predictions/{named(prediction, slashes=True)}/review", {"because": because})
    if common.json:
        render.show_json(row)
    else:
        render.line(reviewed(row))


@review_app.command(name="confirm")
def review_confirm(review: Id, /, *, common: Common = DEFAULT) -> None:
    """Confirm an answer: a person has looked, and it holds."""
    _decide(review, {"decision": "confirm"}, common)


@review_app.command(name="override")
def review_override(
    review: Id,
    /,
    *,
    to: Annotated[str, Parameter(help="What holds instead: a class by its name, or a number.")],
    code: Annotated[str, Parameter(help="Why, by one of the model's codes; `falaj review show` lists them.")],
    common: Common = DEFAULT,
) -> None:
    """Override an answer: what a person says holds instead of it."""
    _decide(review, {"decision": "override", "to": to, "code": code}, common)


def answer(value: Any) -> str:
    """An answer in a cell: a number, or one for each class."""
    if isinstance(value, list):
        return ", ".join(answer(v) for v in value)
    return f"{value:.4g}" if isinstance(value, int | float) else "unknown"


def _decide(review: str, body: dict[str, str], common: Common) -> None:
    with connect(common.settings()) as client:
        row = client.post(f"/api/v1/reviews/{named(review)}/decision", body)
    if common.json:
        render.show_json(row)
    else:
        render.line(reviewed(row))


def _place(row: dict[str, Any]) -> str:
    return f"{row['prediction']}/{row['row']}"


def _decision(row: dict[str, Any]) -> str:
    instead = f": {row['override']} ({row['code']})" if row["state"] == "overridden" else ""
    return "–" if row["state"] == "pending" else f"{row['state']}{instead}"
