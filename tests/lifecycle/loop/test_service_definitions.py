"""The applied definition: what code is taken, what would change, and what was changed behind its back."""

from __future__ import annotations

import msgspec
import pytest

from falaj.kernel.digests import FileEntry, manifest_digest, sha256
from falaj.kernel.errors import Conflict, Integrity, Invalid, NotFound
from falaj.lifecycle.data.model import SourceSpec
from falaj.lifecycle.features.model import EntitySpec
from falaj.lifecycle.loop.model import Change, ProjectDefinition, changes
from falaj.lifecycle.loop.service import MAX_BYTES, MAX_FILES
from tests.lifecycle import project
from tests.lifecycle.house import House

BAD_PATHS = [
    "../evil.py", "/etc/evil.py", "a/../../evil.py", "a/../b.py", "./a.py", ".hidden.py", "a/.hidden/b.py", "a//b.py", "a.py/", "a.txt",
    "a.py/b.py", "a" * 300 + ".py", "a/" * 2000 + "b.py", "a.pyc", "setup.cfg", "sub/falaj.toml", "a\\b.py", "a\x00.py", "a.py\n", "falaj.toml\n", "", "a b.py", "~/a.py", "-a.py",
]  # fmt: skip


@pytest.mark.parametrize("path", BAD_PATHS, ids=lambda path: repr(path)[:30])
def test_a_path_that_is_not_code_below_the_project_is_refused(home: House, path: str) -> None:
    with pytest.raises(Invalid) as refusal:
        home.plane.definitions.unpack({"falaj.toml": "", "a.py": "", path: "x = 1"})
    assert refusal.value.code == "bad_project"


@pytest.mark.parametrize(
    "files",
    [{}, {f"m{n}.py": "" for n in range(MAX_FILES + 1)}, {"big.py": "#" * (MAX_BYTES + 1)}, {"a.py": "'\ud800'"}],
    ids=["nothing", "too many", "too large", "no text"],
)
def test_too_little_or_too_much_is_refused(home: House, files: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        home.plane.definitions.unpack(files)


def test_code_is_kept_under_its_digest_and_mended_when_it_is_sent_again(home: House) -> None:
    files = {"falaj.toml": "a", "pack/age.py": "b = 'ü'"}
    digest, folder = home.plane.definitions.unpack(files)
    entries = [FileEntry(p, len(t.encode()), sha256(t.encode())) for p, t in files.items()]
    assert digest == manifest_digest(entries) and folder.name == digest.removeprefix("sha256:")
    (folder / "pack" / "age.py").write_text("tampered")
    (folder / "more.py").write_text("tampered")
    assert home.plane.definitions.unpack(files) == (digest, folder)
    assert sorted(p.name for p in folder.rglob("*.py")) == ["age.py"]
    assert (folder / "pack" / "age.py").read_text() == "b = 'ü'"


def source(name: str, **more: object) -> SourceSpec:
    return msgspec.structs.replace(SourceSpec(name, "csv", f"{name}.csv", "at", "at"), **more)


def definition(*sources: SourceSpec, entities: tuple[EntitySpec, ...] = ()) -> ProjectDefinition:
    return ProjectDefinition("p", "sha256:" + "0" * 64, sources, entities, (), ())


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (None, definition(source("a")), (Change("source", "a", "added"),)),
        (definition(source("a")), definition(source("a")), ()),
        (definition(source("a"), source("b")), definition(source("b"), source("a")), ()),
        (definition(source("a")), definition(), (Change("source", "a", "removed"),)),
        (
            definition(source("a")),
            definition(source("a", max_bad=0.5, files="x")),
            (Change("source", "a", "changed", ("files", "max_bad")),),
        ),
        (
            definition(source("b"), entities=(EntitySpec("k", "k"),)),
            definition(source("a"), entities=(EntitySpec("k", "j"),)),
            (
                Change("source", "a", "added"),
                Change("source", "b", "removed"),
                Change("entity", "k", "changed", ("key",)),
            ),
        ),
    ],
)
def test_what_would_change(old: ProjectDefinition | None, new: ProjectDefinition, expected: tuple[Change, ...]) -> None:
    assert changes(old, new) == expected


def test_the_way_of_a_definition(home: House) -> None:
    """Nothing applied, planned, applied, applied again, tampered with."""
    with pytest.raises(Conflict) as nothing:
        home.plane.definitions.definition()
    assert nothing.value.code == "nothing_applied"
    api = home.api()
    planned = api.post("/api/v1/definition/plan", json={"files": project.files()}).json()
    assert [(c["kind"], c["name"]) for c in planned["changes"]] == [
        ("source", "sales"), ("entity", "shop"), ("view", "shop_price"), ("model", "back"), ("model", "broken"), ("model", "endless"),
    ]  # fmt: skip
    assert home.plane.definitions.newest() is None
    first = api.post("/api/v1/definition", json={"files": project.files()}).json()
    assert first["number"] == 1 and first["changes"] == planned["changes"]
    again = api.post("/api/v1/definition", json={"files": project.files()}).json()
    assert again == {"number": 1, "digest": first["digest"], "changes": []}
    entry = home.log(action="loop.apply")[0].entry
    assert (entry.detail["definition"], entry.detail["added"], entry.principal) == (first["digest"], 6, "owner")
    with pytest.raises(NotFound) as unknown:
        home.plane.definitions.model("backk")
    assert "back, broken, endless" in unknown.value.hint
    code = home.plane.layout.projects / home.plane.definitions.definition().code.removeprefix("sha256:")
    (code / "made.py").write_text(project.CODE + "# more\n")
    with pytest.raises(Integrity) as changed:
        home.plane.definitions.code()
    assert changed.value.code == "code_changed"
    assert api.post("/api/v1/definition", json={"files": project.files()}).status_code == 200
    assert home.plane.definitions.code() == str(code)


def test_a_project_that_cannot_be_loaded_changes_nothing(home: House) -> None:
    before = home.plane.definitions.newest()
    answer = home.api().post(
        "/api/v1/definition", json={"files": {**project.files(), "made.py": "import nowhere_at_all"}}
    )
    assert answer.status_code == 422 and "made.py, line 1" in answer.json()["error"]
    assert home.plane.definitions.newest() == before
    assert not list(home.plane.layout.scratch.glob("dsc_*"))


def test_a_viewer_s_code_is_neither_loaded_nor_applied(home: House) -> None:
    home.person("vera", "viewer")
    api, code = home.api("vera"), {**project.files(), "more.py": "raise SystemExit"}
    before = set(home.plane.layout.projects.iterdir())
    for path in ("/api/v1/definition/plan", "/api/v1/definition"):
        answer = api.post(path, json={"files": code})
        assert (answer.status_code, answer.json()["code"]) == (403, "denied_by_policy"), path
    assert set(home.plane.layout.projects.iterdir()) == before


def test_moving_the_clock_is_audited_and_for_administrators(home: House) -> None:
    body = {"shows": "2031-04-01T08:00:00+02:00", "rate": 10.0}
    assert home.api("risk").post("/api/v1/clock", json=body).status_code == 403
    refused = home.api().post("/api/v1/clock", json={"shows": "2031-04-01T08:00:00", "rate": 1.0})
    assert refused.status_code == 422
    answer = home.api().post("/api/v1/clock", json=body)
    assert answer.json() == {"shows": "2031-04-01T06:00:00.000Z", "rate": 10.0}
    assert home.plane.clock.now().isoformat().startswith("2031-04-01T06:0")
    entry = home.log(action="loop.set_clock", outcome="done")[0].entry
    assert entry.detail == {"shows": "2031-04-01T06:00:00.000Z", "rate": 10.0}
    assert entry.at < "2031"
