"""A killed model's page says what answers: not what the traffic plan would have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from falaj.entrypoints.console.channel import draw
from falaj.entrypoints.console.home import HomeReader
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


def overview(home: House, model: str) -> tuple[str, str, str]:
    """What the overview says of a model: its health, what serves, what answers instead."""
    (told,) = [m for m in HomeReader(home.plane).overview(home.owner).models if m.model == model]
    return told.health, told.alias, told.instead


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
    assert overview(home, model)[1:] == (f"{model}@{two}", "")
    home.plane.oversight.overseeing.kill(home.risk, model, "it answers nonsense")
    assert shown(home, model) == {str(one): first, str(two): ("killed", 0, "serving")}
    health, serves, instead = overview(home, model)
    assert (health, serves) == ("down", "") and instead
    home.plane.oversight.overseeing.revive(home.risk, model, "mended")
    home.plane.oversight.overseeing.revive(home.owner, model, "seen")
    assert shown(home, model) == well
