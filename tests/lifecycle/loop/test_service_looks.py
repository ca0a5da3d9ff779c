"""What the API says of things that nobody knows, and of the log."""

from __future__ import annotations

import pytest

from falaj.governance.audit.publisher import Publisher
from falaj.governance.lineage.model import Node
from falaj.kernel.errors import Unavailable
from tests.lifecycle.house import House


@pytest.mark.parametrize("look", ["versions", "runs", "drift", "rollouts"])
def test_a_model_that_nobody_knows_is_not_an_empty_list(home: House, look: str) -> None:
    api = home.api()
    answer = api.get(f"/api/v1/models/nosuch/{look}")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_such_model"), answer.json()
    home.packaged(model="known")
    assert api.get(f"/api/v1/models/known/{look}").status_code == 200


@pytest.mark.parametrize("name", ["flights@0", "flights@7", "nosuch@1", "run:run_0", "nosuch:a"])
def test_lineage_of_what_nobody_knows(home: House, name: str) -> None:
    answer = home.api().get(f"/api/v1/lineage/{name}")
    assert (answer.status_code, answer.json()["code"]) == (404, "nothing_known")


@pytest.mark.parametrize("kind", ["import", "source", "waiver", "external", "run"])
def test_lineage_of_a_node_as_an_answer_names_it(home: House, kind: str) -> None:
    made, of = Node(kind, f"{kind}_1 file:model.onnx"), Node("version", "sha256:" + "0" * 64)
    home.plane.database.change(lambda tx: home.plane.lineage.record(tx, made, [of]))
    answer = home.api().get(f"/api/v1/lineage/{kind}:{made.id}")
    assert answer.status_code == 200, answer.json()
    assert answer.json()["edges"] == [{"child": f"{kind}:{made.id}", "parent": f"version:{of.id}"}]


def test_the_status_says_how_the_log_is(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    api = home.api()
    home.plane.publisher.publish()
    audit = api.get("/api/v1/status").json()["audit"]
    assert audit["failure"] == "" and 0 < audit["signed"] <= audit["size"] == home.plane.audit.size()
    failure = Unavailable(
        "the audit folder cannot be written: no space left", hint="make room", code="audit_not_written"
    )
    monkeypatch.setattr(Publisher, "failure", property(lambda _: failure))
    assert "cannot be written" in api.get("/api/v1/status").json()["audit"]["failure"]


def test_who_one_is_has_an_action_of_its_own(home: House) -> None:
    answer = home.api("risk").get("/api/v1/whoami").json()
    assert (answer["name"], answer["roles"]) == ("risk", ["risk-officer"])
