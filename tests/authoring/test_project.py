"""Loading a project: what is found, how it is named, and what is said when it is wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from falaj.authoring.project import code_digest, load_project
from falaj.kernel.digests import digest_of
from falaj.kernel.errors import Invalid, NotFound
from falaj.lifecycle.loop.model import ProjectDefinition

TINY = Path(__file__).parent / "tiny"
Write = Callable[..., Path]

HEAD = """
import falaj as fj

things = fj.Source.csv("things", "data/*.csv", event_time="at", known_at="known")
thing = fj.Entity("thing", key="id")

@fj.feature_view(entity=thing, source=things, ttl="2h", features={"size": "float"})
def sizes(rows):
    return rows
"""

MODEL = """
@fj.model(name="m", task="binary", label="y", spine=things, at="at", features=[sizes, fj.request_features(z="float")]{more})
def train(data, params):
    return None
"""


def test_a_definition_survives_json_and_holds_what_was_declared() -> None:
    project = load_project(TINY)
    definition = project.definition()
    assert msgspec.json.decode(msgspec.json.encode(definition), type=ProjectDefinition) == definition
    late = next(m for m in definition.models if m.name == "tiny-late")
    assert [i.name for i in late.inputs] == ["recent", "size", "rooms", "garden", "colour"]
    assert [i.view for i in late.inputs[:2]] == ["shop_load", ""]
    assert [k.name for k in late.keys] == ["shop"]
    assert late.views[0].ttl_seconds == 2 * 86400
    assert late.approvals == ("risk-officer",)
    assert late.slices == ("shop",)
    assert {"parity", "scan", "provenance"} <= {g.kind for g in late.gates}
    assert late.train == "tiny:late"
    assert definition.sources[0].prepare == "tiny:tidy"
    assert late.training().label == "late"


def test_live_objects_are_the_project_s_own_functions() -> None:
    project = load_project(TINY)
    assert project.model("tiny-late").train.__name__ == "late"
    assert project.view("shop_load").transform.__name__ == "shop_load"
    assert project.source("sales").prepare is not None
    with pytest.raises(NotFound, match="no model 'other'"):
        project.model("other")


def test_loading_twice_gives_the_same_definition() -> None:
    assert load_project(TINY).definition() == load_project(TINY).definition()


def test_a_view_is_named_by_its_code_and_its_source(project: Write) -> None:
    folder = project(HEAD)
    first = load_project(folder).definition()
    project(HEAD + "\nother = 1\n")
    same = load_project(folder).definition()
    assert same.views == first.views
    assert same.code != first.code
    project(HEAD.replace("return rows", "return rows.head()"))
    assert load_project(folder).definition().views[0].digest != first.views[0].digest
    project(HEAD.replace('"2h"', '"3h"'))
    assert load_project(folder).definition().views[0].digest != first.views[0].digest


def test_a_changed_helper_changes_the_project_and_is_what_runs(project: Write) -> None:
    code = "import helper\n" + HEAD.replace('"data/*.csv"', "helper.FILES")
    folder = project(code, helper='FILES = "a/*.csv"')
    first = load_project(folder)
    project(code, helper='FILES = "b/*.csv"')
    second = load_project(folder)
    assert (first.source("things").files, second.source("things").files) == ("a/*.csv", "b/*.csv")
    assert first.code != second.code
    assert not list(folder.rglob("__pycache__"))


def test_modules_of_a_folder_without_init_are_the_project_s_own_too(tmp_path: Path) -> None:
    code = "from shared.places import FILES\n" + HEAD.replace('"data/*.csv"', "FILES")
    for name in ("first", "second"):
        folder = tmp_path / name
        (folder / "shared").mkdir(parents=True)
        (folder / "falaj.toml").write_text('[project]\nname = "some"\nmodule = "some"\n')
        (folder / "some.py").write_text(code)
        (folder / "shared" / "places.py").write_text(f'FILES = "{name}/*.csv"')
    found = [load_project(tmp_path / name).source("things").files for name in ("first", "second")]
    assert found == ["first/*.csv", "second/*.csv"]


def test_the_digest_covers_python_and_settings_only(project: Write) -> None:
    folder = project(HEAD)
    before = code_digest(folder)
    (folder / "notes.txt").write_text("x")
    (folder / ".falaj").mkdir()
    (folder / ".falaj" / "x.py").write_text("x")
    assert code_digest(folder) == before
    (folder / "falaj.toml").write_text('[project]\nname = "some"\nmodule = "some"\n# other\n')
    assert code_digest(folder) != before


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("x = (", r"some.py, line 1: is not Python"),
        ("\n\nraise RuntimeError('no luck')", r"some.py, line 3: RuntimeError: no luck"),
        ("import nowhere_to_be_found", r"some.py, line 1: ModuleNotFoundError"),
        ("raise SystemExit(3)", r"some.py, line 1: SystemExit: 3"),
        ("x = 1", r"declares no source and no model"),
        (HEAD.replace('"float"', '"money"'), r"some.py, line 7: size has the type 'money'"),
        (HEAD + HEAD.replace("things =", "others ="), r"two sources are called things"),
        (HEAD.replace('ttl="2h"', 'ttl="soon"'), r"'soon' is not a duration"),
        (HEAD.replace('ttl="2h"', 'tll="2h"'), r"fj.feature_view is missing ttl"),
        (HEAD.replace('"data/*.csv"', '"../data/*.csv"'), r"outside the project"),
        (HEAD.replace('event_time="at", ', ""), r"fj.Source.csv is missing event_time"),
        (HEAD + "fj.gate.metric('roc_auc')", r"has no limit"),
        (HEAD + "fj.gate.parity(at_most=0.1)", r"the limit for every model is 0.0001"),
        (HEAD + "fj.gate.not_worse_than_champion('roc_auc', margin=-0.1)", r"the margin of roc_auc is -0.1"),
        (HEAD + "fj.gate.not_worse_than_champion('mae', margin=float('nan'))", r"the margin of mae is nan"),
        (HEAD + "fj.nothing", r"falaj has no 'nothing'"),
    ],
)
def test_what_is_wrong_with_the_code_is_said_with_its_place(project: Write, code: str, said: str) -> None:
    with pytest.raises(Invalid, match=said) as error:
        load_project(project(code))
    assert error.value.hint
    assert error.value.code


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('task="binary"', 'task="guess"'), "task 'guess'"),
        (('label="y"', 'label="z"'), "its label z among its features"),
        (('at="at"', 'at="z"'), "the time z among its features"),
        (('z="float"', 'size="float"'), "two features called size"),
        (('name="m"', 'name="M M"'), "cannot name a model"),
        (("{more}", ", holdout=0"), "the shares of m"),
        (("{more}", ", gates=[fj.gate.metric('mae', at_most=1)]"), "mae is not measured for binary"),
        (("{more}", ", gates=[fj.gate.not_worse_than_champion('mae', margin=1)]"), "mae is not measured for binary"),
        (("{more}", ", gates=[fj.gate.scan(), fj.gate.scan()]"), "the gate scan twice"),
        (("{more}", ", params={'x': object()}"), "parameters of m are not JSON"),
        (('features={"size"', 'features={"id"'), "as a feature and as a key or time"),
        (('known_at="known"', 'known_at="known", purposes=("care",)'), "may be used for care"),
    ],
)
def test_what_does_not_fit_together_is_refused(project: Write, change: tuple[str, str], said: str) -> None:
    code = (HEAD + MODEL).replace(*change).replace("{more}", "")
    with pytest.raises(Invalid, match=said):
        load_project(project(code)).definition()


def test_a_stricter_parity_replaces_the_mandatory_one(project: Write) -> None:
    code = HEAD + MODEL.replace("{more}", ", gates=[fj.gate.parity(at_most=1e-6)]")
    gates = load_project(project(code)).definition().models[0].gates
    assert [g.at_most for g in gates if g.kind == "parity"] == [1e-6]


def test_a_champion_gate_allows_a_margin(project: Write) -> None:
    wanted = (
        "[fj.gate.not_worse_than_champion('roc_auc', margin=0.005), fj.gate.not_worse_than_champion('brier', margin=0)]"
    )
    gates = load_project(project(HEAD + MODEL.replace("{more}", f", gates={wanted}"))).definition().models[0].gates
    assert [(g.name, g.limit) for g in gates if g.kind == "champion"] == [
        ("champion roc_auc", ">= -0.005"),
        ("champion brier", ">= 0"),
    ]


def test_a_folder_that_is_no_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"has no falaj.toml"):
        load_project(tmp_path)
    (tmp_path / "falaj.toml").write_text("[project\n")
    with pytest.raises(Invalid, match="is not TOML"):
        load_project(tmp_path)
    (tmp_path / "falaj.toml").write_text("[project]\n")
    with pytest.raises(Invalid, match="does not name the project"):
        load_project(tmp_path)
    (tmp_path / "falaj.toml").write_text('[project]\nname = "gone"\n')
    with pytest.raises(Invalid, match=r"there is no gone.py"):
        load_project(tmp_path)


def test_a_file_that_hides_python_s_own_module_is_refused(project: Write) -> None:
    with pytest.raises(Invalid, match=r"types.py hides Python's own module"):
        load_project(project(HEAD, types="x = 1"))


def test_importing_falaj_imports_nothing_heavy() -> None:
    code = (
        "import sys, falaj as fj; fj.gate; fj.Source; fj.model\n"
        "heavy = {'polars', 'numpy', 'pandas', 'lightgbm', 'sqlalchemy', 'onnx'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert set(fj.__all__) <= set(dir(fj))\n"
        "assert fj.TrainingSet.__name__ == 'TrainingSet'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_definition_has_a_digest() -> None:
    assert digest_of(load_project(TINY).definition()).startswith("sha256:")
