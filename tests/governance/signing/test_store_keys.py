"""The key-encryption key rotates: the stores' keys are wrapped anew, nothing else is written again, nothing is lost."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from falaj.bootstrap.control_plane import ControlPlane
from falaj.bootstrap.encryption import unlock
from falaj.bootstrap.keeping.restoring import Restoring, check_backup, restore
from falaj.governance.signing import recovery, storekeys
from falaj.governance.signing.kek import NEXT, FileKey, FileKeys
from falaj.kernel.access import Principal
from falaj.kernel.errors import Denied, Integrity, Invalid
from falaj.kernel.settings import Settings
from falaj.lifecycle.serving.plane.journal import iter_records
from falaj.storage import keychain
from falaj.storage.blobs.local import LocalBlobs
from falaj.storage.lake import delta
from falaj.storage.online.lmdb_store import OnlineReader
from tests.governance.signing.stores import VIEW, filled, told

ADMIN = Principal("owner", "person", ("platform-admin",))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", project=tmp_path)


@pytest.fixture
def plane(settings: Settings) -> Iterator[ControlPlane]:
    opened = ControlPlane(settings)
    yield opened
    opened.close()


def rotate(plane: ControlPlane) -> storekeys.Rotated:
    return plane.store_keys.rotate(plane.door, ADMIN, "it is a year old")


def test_every_store_is_read_after_a_rotation_and_none_was_written_again(
    plane: ControlPlane, settings: Settings
) -> None:
    before, kek = filled(plane, 1), (settings.home / "keys" / "kek.bin").read_bytes()
    done = rotate(plane)
    assert (settings.home / "keys" / "kek.bin").read_bytes() != kek and done.old == FileKey(kek).id != done.new
    assert done.wrapped == len(storekeys.STORES) and done.generations == 2
    assert {file: file.read_bytes() for file in before} == before
    told(plane, 1)
    filled(plane, 2)
    told(plane, 2)
    plane.close()
    again = ControlPlane(settings)
    for number in (1, 2):
        told(again, number)


def test_what_is_written_after_a_rotation_does_not_open_with_the_keys_of_before(plane: ControlPlane) -> None:
    home, earlier = plane.layout.home, plane.store_keys.chain()
    blobs = plane.store_keys.keys(storekeys.BLOBS)
    rotate(plane)
    filled(plane, 2)
    digest = plane.blobs.put(b"blob 2")
    with pytest.raises(Integrity):
        LocalBlobs(plane.layout.blobs, lambda: blobs).get(digest)
    now = keychain.keys_of(home)
    keychain.hold(home, earlier)
    with pytest.raises(Integrity):
        delta.scan(home / "lake" / "t", 0)
    with pytest.raises(Integrity):
        list(iter_records(next((home / "j").glob("*.seg"))))
    reader = OnlineReader(home / "online", map_bytes=1 << 20)
    with pytest.raises(Integrity):
        reader.get_many(VIEW.replace("ab", "a2"), ["k"])
    reader.close()
    keychain.hold(home, now)
    told(plane, 2)


def test_a_crash_after_the_commit_lets_the_successor_take_over_at_the_next_start(
    plane: ControlPlane, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(plane, 1)

    def killed(_keys: FileKeys) -> None:
        raise SystemExit(9)

    with monkeypatch.context() as crash:
        crash.setattr(FileKeys, "take_over", killed)
        with pytest.raises(SystemExit):
            rotate(plane)
    plane.close()
    assert (settings.home / "keys" / NEXT).exists()
    again = ControlPlane(settings)
    told(again, 1)
    assert not (settings.home / "keys" / NEXT).exists()
    again.close()


def test_a_successor_that_was_committed_is_not_lost_to_the_next_rotation(
    plane: ControlPlane, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are under it already: were it made anew, a crash before the next commit would lose everything."""
    filled(plane, 1)
    keys = settings.home / "keys"

    def refused(_keys: FileKeys) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as failing:
        failing.setattr(FileKeys, "take_over", refused)
        with pytest.raises(OSError, match="Input/output"):
            rotate(plane)
        committed = (keys / NEXT).read_bytes()
        with pytest.raises(OSError, match="Input/output"):
            rotate(plane)
        assert (keys / NEXT).read_bytes() == committed
    rotate(plane)
    told(plane, 1)


def test_a_successor_that_was_never_committed_goes_at_the_next_start(plane: ControlPlane, settings: Settings) -> None:
    filled(plane, 1)
    plane.close()
    FileKeys(settings.home / "keys").prepare()
    again = ControlPlane(settings)
    told(again, 1)
    assert not (settings.home / "keys" / NEXT).exists()
    again.close()


def test_a_home_with_another_key_encryption_key_is_not_opened(plane: ControlPlane, settings: Settings) -> None:
    plane.close()
    (settings.home / "keys" / "kek.bin").write_bytes(bytes(32))
    with pytest.raises(Integrity) as refused:
        ControlPlane(settings)
    assert refused.value.code == "store_key_broken"


def test_a_wrapped_key_opens_in_its_own_place_only() -> None:
    kek = FileKey(b"k" * 32)
    wrapped = kek.wrap(b"x" * 32, "lake/0")
    assert kek.unwrap(wrapped, "lake/0") == b"x" * 32
    for other, place in ((kek, "lake/1"), (kek, "online/0"), (FileKey(b"l" * 32), "lake/0")):
        with pytest.raises(Integrity):
            other.unwrap(wrapped, place)


def test_who_may_not_rotate_changes_nothing(plane: ControlPlane, settings: Settings) -> None:
    kek = (settings.home / "keys" / "kek.bin").read_bytes()
    with pytest.raises(Denied):
        plane.store_keys.rotate(plane.door, Principal("eve", "person", ("viewer",)), "why not")
    with pytest.raises(Invalid):
        plane.store_keys.rotate(plane.door, ADMIN, " ")
    assert (settings.home / "keys" / "kek.bin").read_bytes() == kek and not (settings.home / "keys" / NEXT).exists()


def test_the_recovery_code_brings_everything_back_and_one_of_before_a_rotation_does_not(
    plane: ControlPlane, settings: Settings
) -> None:
    keys, before, after = settings.home / "keys", recovery.new_code(), recovery.new_code()
    filled(plane, 1)
    earlier = recovery.seal(recovery.read_folder(keys), before, "2026-01-01T00:00:00.000Z")
    rotate(plane)
    filled(plane, 2)
    newest = recovery.seal(recovery.read_folder(keys), after, "2026-01-02T00:00:00.000Z")
    plane.close()
    shutil.rmtree(keys)
    recovery.install(recovery.unseal(earlier, before), keys)
    with pytest.raises(Integrity) as refused:
        ControlPlane(settings)
    assert refused.value.code == "store_key_broken"
    shutil.rmtree(keys)
    recovery.install(recovery.unseal(newest, after), keys)
    again = ControlPlane(settings)
    for number in (1, 2):
        told(again, number)
    again.close()


def test_backups_of_before_and_after_a_rotation_lie_in_one_folder_and_open_with_the_keys_of_their_day(
    plane: ControlPlane, settings: Settings, tmp_path: Path
) -> None:
    plane.start()
    filled(plane, 1)
    copier, folder = plane.keeping.copier, tmp_path / "backups"
    kept = []
    for number in (1, 2):
        keys = recovery.read_folder(settings.home / "keys")
        taken = copier.take(f"bak_{number:026}", folder, lambda *_: None)
        kept.append((keys, taken.backup))
        rotate(plane)
    for number, (keys, backup) in enumerate(kept):
        home = tmp_path / f"restored-{number}"
        restore(Restoring(folder, keys, home, backup), lambda *_: None)
        unlock(home)
        assert delta.scan(home / "lake" / "t", 0).collect()["a"].to_list() == [1]
        with pytest.raises(Integrity):
            check_backup(folder, kept[1 - number][0], backup, lambda *_: None)
    assert not any(b"SQLite" in p.read_bytes() for p in folder.rglob("*") if p.is_file())
