"""A whole home whose key-encryption key lies elsewhere: opened, replaced, away, lost, backed up, brought back."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from falaj.bootstrap.control_plane import ControlPlane
from falaj.bootstrap.doctor.examining import examine
from falaj.bootstrap.doctor.model import Finding
from falaj.bootstrap.encryption import unlock
from falaj.bootstrap.keeping.restoring import Restoring, check_backup, restore
from falaj.governance.audit.model import Conditions
from falaj.governance.signing import recovery, storekeys
from falaj.governance.signing.kek import FileKeys
from falaj.kernel.access import Principal
from falaj.kernel.errors import Denied, FalajError, Integrity, Unavailable
from falaj.kernel.settings import Settings
from falaj.storage.lake import delta
from tests.governance.signing.hsm import hsm
from tests.governance.signing.keks import Keeper, Variables, keeper
from tests.governance.signing.stores import filled, told
from tests.governance.signing.transit import vault

__all__ = ["hsm", "keeper", "vault"]
ROOT = Path(__file__).parents[3]
ADMIN = Principal("owner", "person", ("platform-admin",))
Opening = Callable[..., ControlPlane]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opening]:
    """Opens the home with these settings."""
    with ExitStack() as undo:

        def plane(kek: str = "") -> ControlPlane:
            made = ControlPlane(Settings(home=tmp_path / "home", project=tmp_path, kek=kek))
            undo.callback(made.close)
            return made

        yield plane


def rotate(plane: ControlPlane, why: str = "it moves") -> storekeys.Rotated:
    return plane.store_keys.rotate(plane.door, ADMIN, why)


def refusal(ask: Callable[[], object]) -> FalajError:
    with pytest.raises(FalajError) as refused:
        ask()
    return refused.value


def findings(home: Path, *, deep: bool = False) -> dict[str, Finding]:
    return {f.name: f for f in examine(Settings(home=home), deep=deep).findings if f.check in ("keys", "blobs")}


def test_a_home_begins_there_and_the_setting_is_not_needed_again(keeper: Keeper, opened: Opening) -> None:
    place = keeper.make()
    plane = opened(kek=place)
    filled(plane, 1)
    row = plane.store_keys.told()
    assert row["at"].startswith(place) and row["asked"] == ""
    keys = plane.layout.keys
    assert (keys / "kek.bin").read_text().startswith(f"elsewhere: {place}")
    plane.close()
    again = opened()
    told(again, 1)
    assert again.store_keys.told()["at"] == row["at"]


def test_it_moves_out_of_the_home_and_back_and_nothing_is_written_again(keeper: Keeper, opened: Opening) -> None:
    one, other = keeper.make(), keeper.make()
    plane = opened()
    before, first = filled(plane, 1), plane.store_keys.told()
    plane.close()
    plane = opened(kek=one)
    assert plane.store_keys.told()["fingerprint"] == first["fingerprint"]  # a setting alone changes nothing
    assert plane.store_keys.told() | {"asked": ""} == first and plane.store_keys.told()["asked"] == one
    moved = rotate(plane)
    assert moved.old == first["fingerprint"] and moved.at.startswith(one) and moved.generations == 2
    filled(plane, 2)
    assert refusal(lambda: rotate(plane)).code == "kek_same_key"
    plane.close()
    plane = opened(kek=other)
    second = rotate(plane)
    assert second.at.startswith(other)
    plane.close()
    plane = opened()
    back = rotate(plane)
    assert back.at == "" and back.generations == 4 and len((plane.layout.keys / "kek.bin").read_bytes()) == 32
    keeper.hide(other)
    plane.close()
    plane = opened()
    for number in (1, 2):
        told(plane, number)
    assert {file: file.read_bytes() for file in before} == before
    entries = plane.audit.search(Conditions(action="keys.rotate"))
    assert [e.entry.detail["at"] for e in entries if "at" in e.entry.detail] == [back.at, second.at, moved.at]
    assert entries[0].entry.detail["reason"] == "it moves" and entries[0].entry.outcome == "done"


def test_while_it_is_away_an_open_home_goes_on_and_a_closed_one_does_not_open(
    keeper: Keeper, opened: Opening, tmp_path: Path
) -> None:
    place = keeper.make()
    plane = opened(kek=place)
    plane.start()
    filled(plane, 1)
    keeper.hide(place)
    told(plane, 1)  # reading and writing
    filled(plane, 2)
    told(plane, 2)
    plane.serving.publish("owner")
    taken = plane.keeping.copier.take(f"bak_{1:026}", tmp_path / "backups", lambda *_: None)
    plane.close()
    away = refusal(opened)
    assert isinstance(away, Unavailable) and away.code == "kek_unavailable" and away.hint
    assert "kek_away" in findings(tmp_path / "home") and "keys" not in findings(tmp_path / "home")
    keys = recovery.read_folder(tmp_path / "home" / "keys")
    for ask in (
        lambda: restore(Restoring(tmp_path / "backups", keys, tmp_path / "new"), lambda *_: None),
        lambda: check_backup(tmp_path / "backups", keys, taken.backup, lambda *_: None),
        lambda: unlock(tmp_path / "home"),
    ):
        assert refusal(ask).code == "kek_unavailable"
    assert sorted(p.name for p in tmp_path.iterdir() if "new" in p.name) == []
    keeper.bring(place)
    again = opened()
    for number in (1, 2):
        told(again, number)


def test_one_that_is_lost_is_replaced_as_long_as_the_home_is_open(keeper: Keeper, opened: Opening) -> None:
    place = keeper.make()
    opened(kek=place).close()
    plane = opened()  # the setting is gone: its successor is made in the home
    filled(plane, 1)
    keeper.exchange(place)
    assert rotate(plane, "the token burned").at == ""
    plane.close()
    told(opened(), 1)


def test_another_key_at_its_place_opens_nothing(keeper: Keeper, opened: Opening, tmp_path: Path) -> None:
    place = keeper.make()
    plane = opened(kek=place)
    filled(plane, 1)
    plane.close()
    keeper.exchange(place)
    broken = refusal(opened)
    assert isinstance(broken, Integrity) and broken.code == "kek_other_key"
    found = findings(tmp_path / "home", deep=True)
    assert found["key_of_another_home"].level == "broken" and "blob_broken" not in found


def test_a_place_that_is_away_makes_no_home_and_no_successor(keeper: Keeper, opened: Opening, tmp_path: Path) -> None:
    place = keeper.make()
    keeper.hide(place)
    assert refusal(lambda: opened(kek=place)).code == "kek_unavailable"
    assert not (tmp_path / "home" / "keys").exists()
    plane = opened()
    before = (plane.layout.keys / "kek.bin").read_bytes()
    plane.close()
    plane = opened(kek=place)
    assert refusal(lambda: rotate(plane)).code == "kek_unavailable"
    assert (plane.layout.keys / "kek.bin").read_bytes() == before
    filled(plane, 1)
    told(plane, 1)


def test_the_recovery_code_brings_back_where_it_lies_and_not_the_key(
    keeper: Keeper, opened: Opening, tmp_path: Path
) -> None:
    place, code = keeper.make(), recovery.new_code()
    plane = opened(kek=place)
    filled(plane, 1)
    keys = plane.layout.keys
    archive = recovery.seal(recovery.read_folder(keys), code, "2026-01-01T00:00:00.000Z")
    plane.close()
    shutil.rmtree(keys)
    brought = recovery.unseal(archive, code)
    assert recovery.elsewhere(brought).keys() == {"kek"} and recovery.elsewhere(brought)["kek"].startswith(place)
    recovery.install(brought, keys)
    plane = opened()
    told(plane, 1)
    plane.close()
    keeper.exchange(place)  # the file and the code alone
    assert refusal(opened).code == "kek_other_key"


def test_backups_of_before_and_after_a_move_open_with_the_keys_of_their_day(
    keeper: Keeper, opened: Opening, tmp_path: Path
) -> None:
    place, folder, kept = keeper.make(), tmp_path / "backups", []
    for number, setting in ((1, place), (2, "")):
        plane = opened(kek=setting)
        plane.start()
        if number == 2:
            rotate(plane)
        filled(plane, number)
        keys = recovery.read_folder(plane.layout.keys)
        kept.append((keys, plane.keeping.copier.take(f"bak_{number:026}", folder, lambda *_: None).backup))
        plane.close()
    for number, (keys, backup) in enumerate(kept):
        home = tmp_path / f"restored-{number}"
        restore(Restoring(folder, keys, home, backup), lambda *_: None)
        unlock(home)
        assert 1 in delta.scan(home / "lake" / "t", 0).collect()["a"].to_list()
        with pytest.raises(Integrity):
            check_backup(folder, kept[1 - number][0], backup, lambda *_: None)
        restored = ControlPlane(Settings(home=home, project=tmp_path))
        told(restored, 1)
        restored.close()
    keeper.exchange(place)  # destroyed after the move: what was taken before it is gone with it
    assert refusal(lambda: check_backup(folder, kept[0][0], kept[0][1], lambda *_: None)).code == "kek_other_key"
    check_backup(folder, kept[1][0], kept[1][1], lambda *_: None)


def test_reading_and_writing_go_on_while_it_moves(
    keeper: Keeper, opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = keeper.make(), keeper.make()
    plane, stop, going = opened(kek=one), threading.Event(), threading.Event()
    wrong: list[Exception] = []
    rounds = [0]
    digests = [plane.blobs.put(b"before")]

    def work() -> None:
        while not stop.is_set():
            try:
                digests.append(plane.blobs.put(b"blob %d" % rounds[0]))
                assert plane.blobs.get(digests[0]) == b"before"
                assert plane.blobs.get(digests[-1]) == b"blob %d" % rounds[0]
                rounds[0] += 1
                going.set()
            except Exception as e:  # any is what must not be
                wrong.append(e)
                return

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for place in (other, "", one):
            going.clear()
            assert going.wait(30)  # something was read and written since the last move
            monkeypatch.setattr(
                plane.store_keys, "_keks", FileKeys(plane.layout.keys, place)
            )  # as another setting would
            assert rotate(plane).at.startswith(place)
        going.clear()
        assert going.wait(30)
    finally:
        stop.set()
        worker.join()
    assert not wrong and rounds[0] >= 4
    plane.close()
    again = opened()
    assert [again.blobs.get(d) for d in digests[1:]] == [b"blob %d" % n for n in range(rounds[0])]


def test_who_may_not_moves_nothing(monkeypatch: pytest.MonkeyPatch, opened: Opening) -> None:
    place = Variables(monkeypatch).make()
    plane = opened()
    plane.close()
    plane = opened(kek=place)
    before = (plane.layout.keys / "kek.bin").read_bytes()
    viewer = Principal("eve", "person", ("viewer",))
    assert isinstance(refusal(lambda: plane.store_keys.rotate(plane.door, viewer, "why not")), Denied)
    assert refusal(lambda: plane.store_keys.rotate(plane.door, ADMIN, " ")).code == "no_reason"
    assert (plane.layout.keys / "kek.bin").read_bytes() == before


@pytest.mark.timeout(600)
@pytest.mark.parametrize("out", [True, False], ids=["into a variable", "into the home"])
def test_a_rotation_that_is_killed_anywhere_ends_before_or_after(
    out: bool, opened: Opening, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """At each ninth line; `killed` with 1 at the end of its command tries all of them, which takes minutes."""
    old, new = (Variables(monkeypatch).make() if there else "" for there in (not out, out))
    plane = opened(kek=old)
    filled(plane, 1)
    plane.close()
    (tmp_path / "copies").mkdir()
    command = [sys.executable, "-m", "tests.governance.signing.killed", str(tmp_path / "home"), str(tmp_path), new,
               str(tmp_path / "copies"), "9"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=580, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    points = [json.loads(line) for line in done.stdout.splitlines()]
    assert [p for p in points if "wrong" in p or p["said"] or p["left"] or not p["log"]] == []
    assert [p["killed"] for p in points] == [True] * (len(points) - 1) + [False]
    ends = [p["at"] for p in points]
    moved = ends.index(new)
    assert ends == [old] * moved + [new] * (len(points) - moved) and moved >= 2 and len(points) - moved >= 2, ends
