from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.kernel.clock import SystemClock
from falaj.kernel.errors import Integrity, Invalid, NotFound, Unavailable
from falaj.lifecycle.serving.plane.ciphers import HEAD
from falaj.lifecycle.serving.plane.journal import Journal, Prediction, is_sealed, iter_records, read_record
from tests.lifecycle.serving.plane.fleet import eventually


def record(journal: Journal, text: str = "JFK") -> Prediction:
    return Prediction(
        id=journal.next_id, at=1, model="m", version="m@1", digest="sha256:" + "0" * 64, principal="p", generation=1, worker="1",
        rows=1, inputs={"origin": [text]}, outputs={"y": [0.25]},
    )  # fmt: skip


def written(folder: Path, count: int, **options: int) -> tuple[list[Prediction], list[Path]]:
    journal = Journal(folder, SystemClock(), **options)
    records = []
    for i in range(count):
        records.append(record(journal, f"key {i}"))
        journal.append(records[-1])
    journal.close()
    return records, sorted(folder.glob("*.seg"))


def test_what_was_appended_is_read_back_by_id_and_in_order(tmp_path: Path) -> None:
    records, (segment,) = written(tmp_path, 20)
    assert list(iter_records(segment)) == records
    assert read_record(tmp_path, records[7].id) == records[7]
    assert read_record(tmp_path, records[7].id + "/3") == records[7]


def test_a_record_is_in_the_file_before_append_returns(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SystemClock())
    first = record(journal)
    journal.append(first)
    assert read_record(tmp_path, first.id) == first
    journal.close()


def test_segments_rotate_and_every_record_stays_readable(tmp_path: Path) -> None:
    records, segments = written(tmp_path, 50, segment_bytes=1000)
    assert len(segments) > 3
    found = {r.id: r for s in segments for r in iter_records(s)}
    assert found == {r.id: r for r in records}
    assert all(read_record(tmp_path, r.id) == r for r in records)


def test_the_place_of_a_record_is_part_of_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SystemClock())
    first = record(journal)
    journal.append(first)
    with pytest.raises(ValueError, match="place"):
        journal.append(first)
    journal.close()


def test_a_torn_tail_is_left_out_wherever_it_is_torn(tmp_path: Path) -> None:
    records, (segment,) = written(tmp_path, 3)
    data = segment.read_bytes()
    last = int(records[2].id.rpartition("_")[2], 16)
    for end in range(last, len(data)):
        segment.write_bytes(data[:end])
        assert list(iter_records(segment)) == records[:2]
    segment.write_bytes(data[:last] + bytes(500))
    assert list(iter_records(segment)) == records[:2]


def test_damage_before_the_end_is_told(tmp_path: Path) -> None:
    records, (segment,) = written(tmp_path, 3)
    data = bytearray(segment.read_bytes())
    second = int(records[1].id.rpartition("_")[2], 16)
    data[second + 20] ^= 1
    segment.write_bytes(data)
    with pytest.raises(Integrity) as caught:
        list(iter_records(segment))
    assert caught.value.code == "journal_damaged"
    with pytest.raises(Integrity):
        read_record(tmp_path, records[1].id)
    assert read_record(tmp_path, records[2].id) == records[2]


@pytest.mark.parametrize(
    ("left", "damaged"),
    [("whole", False), ("half", False), ("nothing", False), ("zeros", False), ("words", True), ("other", True)],
)
def test_a_head_that_is_cut_off_is_nothing_yet_and_what_no_head_begins_with_is_damage(
    tmp_path: Path, left: str, damaged: bool
) -> None:
    _, (path,) = written(tmp_path, 1)
    head = path.read_bytes()[:HEAD]
    path.write_bytes({
        "whole": head, "half": head[: HEAD // 2], "nothing": b"", "zeros": bytes(HEAD - 1), "words": b"no segment at all",
        "other": b"x" + head[1 : HEAD // 2],
    }[left])  # fmt: skip
    if damaged:
        with pytest.raises(Integrity, match="damaged at byte 0"):
            list(iter_records(path))
    else:
        assert list(iter_records(path)) == []


def test_an_id_that_points_into_a_record_finds_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SystemClock())
    inner = record(journal)
    journal.append(inner)
    forged = record(journal, "x" * 40)
    journal.append(forged)
    prefix = inner.id.rpartition("_")[0]
    journal.close()
    for offset in range(HEAD + 1, int(forged.id.rpartition("_")[2], 16)):
        with pytest.raises((Integrity, NotFound)):
            read_record(tmp_path, f"{prefix}_{offset:x}")


@given(st.text(max_size=60))
def test_only_ids_are_looked_up(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    with pytest.raises(Invalid):
        read_record(tmp_path_factory.getbasetemp(), "../" + text)


def test_an_unknown_segment_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_record(tmp_path, "p_" + "0" * 26 + "_8")


def test_a_disk_that_is_full_refuses_and_leaves_the_segment_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, SystemClock())
    first = record(journal)
    journal.append(first)
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:10]))  # the kernel takes a part only
        with pytest.raises(Unavailable) as caught:
            journal.append(record(journal))
    assert caught.value.code == "journal_unavailable"
    second = record(journal)
    journal.append(second)
    journal.close()
    (segment,) = tmp_path.glob("*.seg")
    assert list(iter_records(segment)) == [first, second]


def test_a_segment_is_sealed_when_its_writer_has_moved_on_or_is_gone(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SystemClock())
    journal.append(record(journal))
    (first,) = tmp_path.glob("*.seg")
    assert not is_sealed(first)
    journal.rotate()
    eventually(lambda: is_sealed(first), "its last byte is flushed within a second")
    (second,) = set(tmp_path.glob("*.seg")) - {first}
    assert not is_sealed(second)
    journal.rotate()
    assert set(tmp_path.glob("*.seg")) == {first, second}, "nothing stands in it: it goes on"
    journal.append(record(journal))
    journal.close()
    assert is_sealed(second)


def test_a_segment_ends_with_the_platform_s_day_but_not_faster_than_it_may(tmp_path: Path) -> None:
    day = 86_400_000_000
    slow, fast = Journal(tmp_path / "slow", SystemClock()), Journal(tmp_path / "fast", SystemClock(), day_seconds=0)
    for journal in (slow, fast):
        for moment in (1, day - 1, day, 3 * day):
            journal.append(msgspec.structs.replace(record(journal), at=moment))
        assert not journal.due(9 * day) or journal is fast
        journal.close()
    assert [r.at for p in sorted((tmp_path / "slow").glob("*.seg")) for r in iter_records(p)] == [
        1,
        day - 1,
        day,
        3 * day,
    ]
    assert len(list((tmp_path / "slow").glob("*.seg"))) == 1
    held = [[r.at for r in iter_records(p)] for p in (tmp_path / "fast").glob("*.seg")]
    assert sorted(held) == [[1, day - 1, day], [3 * day]]


def test_a_segment_that_cannot_be_opened_leaves_the_old_one_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, SystemClock(), segment_bytes=1)
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        for _ in range(3):
            journal.append(record(journal))
    assert len(list(tmp_path.glob("*.seg"))) == 1 and not list(tmp_path.glob("*.new"))
    journal.append(record(journal))
    journal.close()
    assert sorted(len(list(iter_records(p))) for p in tmp_path.glob("*.seg")) == [0, 4]


def refuse(*_: object) -> None:
    raise OSError("no locks available")
