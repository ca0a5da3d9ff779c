"""Sealed files and texts: what was put in comes out, under its own name and key only, and nothing that was changed does."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.kernel.clock import SystemClock
from falaj.kernel.errors import Integrity
from falaj.lifecycle.serving.plane.journal import Journal, Prediction, iter_records
from falaj.storage import keychain
from falaj.storage.keychain import Keys
from falaj.storage.lake import delta
from falaj.storage.online.lmdb_store import OnlineWriter, ViewMeta
from falaj.storage.sealed import CHUNK, open_text, opening, plain_size, seal, seal_text, sealing, unseal

KEY, OTHER = b"1" * 32, b"2" * 32


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 7])
def test_what_was_sealed_comes_out_and_its_size_is_known_before(size: int) -> None:
    plain = bytes(range(256)) * (size // 256 + 1)
    plain = plain[:size]
    sealed = seal(plain, KEY, "a")
    assert unseal(sealed, (OTHER, KEY), "a") == plain and plain_size(len(sealed)) == size
    pieces = [plain[n : n + 100_003] for n in range(0, size, 100_003)]
    assert b"".join(opening(io.BytesIO(b"".join(sealing(pieces, KEY, "a"))).read, (KEY,), "a")) == plain


def test_it_opens_with_its_key_and_under_its_name_only() -> None:
    sealed = seal(b"rows", KEY, "a")
    for keys, name in (((OTHER,), "a"), ((), "a"), ((KEY,), "b")):
        with pytest.raises(Integrity):
            unseal(sealed, keys, name)


@given(st.data())
def test_no_changed_cut_or_longer_file_opens(data: st.DataObject) -> None:
    sealed = seal(b"some rows", KEY, "a")
    place = data.draw(st.integers(0, len(sealed) - 1))
    flipped = bytearray(sealed)
    flipped[place] ^= data.draw(st.integers(1, 255))
    for changed in (bytes(flipped), sealed[:place], sealed + b"x" * (place + 1)):
        with pytest.raises(Integrity):
            unseal(changed, (KEY,), "a")


def test_chunks_cannot_be_dropped_or_swapped() -> None:
    sealed = seal(bytes(CHUNK) + b"\1" * CHUNK + b"end", KEY, "a")
    head, one = 64, CHUNK + 20
    first, second, rest = sealed[head : head + one], sealed[head + one : head + 2 * one], sealed[head + 2 * one :]
    assert sealed == sealed[:head] + first + second + rest
    for changed in (first + rest, second + first + rest, first + second):
        with pytest.raises(Integrity):
            unseal(sealed[:head] + changed, (KEY,), "a")


def test_a_text_is_sealed_and_one_of_before_is_read_as_it_is() -> None:
    sealed = seal_text('{"a": 1}', KEY, "flows")
    assert open_text(sealed, (OTHER, KEY), "flows") == '{"a": 1}' == open_text('{"a": 1}', (), "flows")
    for keys, name in (((OTHER,), "flows"), ((KEY,), "events")):
        with pytest.raises(Integrity):
            open_text(sealed, keys, name)


def test_the_nearest_folder_counts_and_another_process_can_take_over(tmp_path: Path) -> None:
    keychain.hold(tmp_path, Keys(lake=(KEY,)))
    keychain.take(keychain.dump(Keys(lake=(OTHER,), journal=(KEY,)), tmp_path / "in"))
    assert keychain.keys_of(tmp_path / "x" / "y").lake == (KEY,)
    assert keychain.keys_of(tmp_path / "in" / "y") == Keys(lake=(OTHER,), journal=(KEY,))


def test_without_a_key_nothing_is_written_in_clear(tmp_path: Path) -> None:
    keychain.hold(tmp_path, Keys())
    with pytest.raises(Integrity, match="no key"):
        delta.append(tmp_path / "t", pl.DataFrame({"a": [1]}), "op")
    with pytest.raises(Integrity, match="no key"):
        Journal(tmp_path / "j", SystemClock())
    writer = OnlineWriter(tmp_path / "o", map_bytes=1 << 20)
    with pytest.raises(Integrity, match="no key"):
        writer.replace(
            ViewMeta("sha256:" + "0" * 64, "2024-01-01T00:00:00.000Z", ("a",), 0, "op"), [("k", (1, (1.0,)))]
        )
    writer.close()
    assert not list((tmp_path / "t").glob("part-*")) and not list((tmp_path / "j").glob("*.seg"))


def test_whoever_has_the_public_half_only_writes_a_journal_and_cannot_read_it(tmp_path: Path) -> None:
    whole = keychain.fresh()
    keychain.hold(tmp_path, Keys(reader=whole.reader))
    journal = Journal(tmp_path, SystemClock())
    record = Prediction(journal.next_id, 1, "m", "m@1", "d", "p", 1, "1", 1, {"name": ["Ada"]}, {"y": [0.5]})
    journal.append(record)
    journal.close()
    (segment,) = tmp_path.glob("*.seg")
    assert b"Ada" not in segment.read_bytes()
    with pytest.raises(Integrity):
        list(iter_records(segment))
    keychain.hold(tmp_path, whole)
    assert list(iter_records(segment)) == [record]


def test_a_record_opens_in_its_own_segment_only(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SystemClock())
    journal.append(Prediction(journal.next_id, 1, "m", "m@1", "d", "p", 1, "1", 1, {"x": [1]}, {"y": [0.5]}))
    journal.close()
    (segment,) = tmp_path.glob("*.seg")
    other = segment.with_name("0" * 26 + ".seg")
    segment.rename(other)
    with pytest.raises(Integrity):
        list(iter_records(other))


def test_a_data_file_under_another_ones_name_does_not_open(tmp_path: Path) -> None:
    for name in ("a", "b"):
        delta.append(tmp_path / name, pl.DataFrame({"text": [f"secret {name}"]}), "op")
    (one,), (two,) = ((tmp_path / name).glob("part-*") for name in ("a", "b"))
    assert b"secret" not in one.read_bytes() and not any(
        b"secret" in p.read_bytes() for p in (tmp_path / "a" / "_delta_log").iterdir()
    )
    one.write_bytes(two.read_bytes())
    with pytest.raises(Integrity):
        delta.scan(tmp_path / "a", 0)


@pytest.mark.parametrize("text", ["fjs1:", "fjs1:QQ==", "fjs1:!", "fjs1:\u00e9"])
def test_a_text_that_was_never_sealed_whole_is_damage(text: str) -> None:
    with pytest.raises(Integrity, match="cannot be used"):
        open_text(text, (KEY,), "flows")
