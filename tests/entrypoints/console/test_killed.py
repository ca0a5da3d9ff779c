"""A killed model's page says what answers: not what the traffic plan would have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from falaj.bootstrap.control_plane import actions
from falaj.entrypoints.console.channel import draw
from falaj.entrypoints.console.home import HomeReader
from falaj.entrypoints.console.logbook import IN_WORDS, in_words
from tests.lifecycle.house import House, house


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("house")) as opened:
        yield opened


def shown(home: House, model: str) -> dict[str, tuple[str, int | None, str]]:
    """Version → its state, its share, and the stage where it is drawn."""
    page = HomeReader(home.plane).model(home.owner, model)
    reaches = draw(page.stages, page.versions)
    return {v.reference: (v.state, v.weight, r.stage) for r in reaches for v in r.versions}


def overview(home: House, model: str) -> tuple[str, str, str, str]:
    """What the overview says of a model: its health, what serves, what answers instead, what happened last."""
    (told,) = [m for m in HomeReader(home.plane).overview(home.owner).models if m.model == model]
    return told.health, told.alias, told.instead, told.change


@pytest.mark.parametrize(
    ("fallback", "first"),
    [({"kind": "refuse"}, ("retired", None, "registry")), ({"kind": "previous"}, ("in its place", 100, "serving"))],
    ids=["nobody answers", "the version before answers"],
)
def test_the_channel_says_what_answers(home: House, fallback: dict[str, Any], first: tuple[str, int, str]) -> None:
    model = f"killed-{fallback['kind']}"
    for _ in range(2):
        assert home.release(home.registered(model=model)).state == "done"
    home.plane.inventory.set(home.owner, model, {"fallback": fallback}, "agreed with the owner")
    one, two = (v.number for v in home.plane.registry.versions(model))
    well = {str(one): ("retired", None, "registry"), str(two): ("serving", 100, "serving")}
    assert shown(home, model) == well
    assert overview(home, model)[1:3] == (f"{model}@{two}", "")
    home.plane.oversight.overseeing.kill(home.risk, model, "it answers nonsense")
    assert shown(home, model) == {str(one): first, str(two): ("killed", 0, "serving")}
    health, serves, instead, change = overview(home, model)
    assert (health, serves, change) == ("down", "", f"{model} was killed") and instead
    home.plane.oversight.overseeing.revive(home.risk, model, "mended")
    home.plane.oversight.overseeing.revive(home.owner, model, "seen")
    assert shown(home, model) == well


def test_what_happened_to_a_model_is_told_in_words(home: House) -> None:
    """Each action on a model or a version that changes something; predictions are no entries of the log."""
    changing = {a.name for a in actions() if a.resource in ("Model", "ModelVersion") and a.group != "read"}
    assert changing - set(IN_WORDS) == {"serving.predict"} and set(IN_WORDS) <= changing
    for name in IN_WORDS:
        assert "{" not in in_words(name, "late@1", {}) and name not in in_words(name, "late@1", {"to": "{x}"})
