"""Commitments: a root that outlives erasure and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from falaj.kernel.clock import SystemClock
from falaj.kernel.errors import Integrity
from falaj.lifecycle.serving import seals
from falaj.lifecycle.serving.plane.ciphers import HEAD
from falaj.lifecycle.serving.plane.journal import Journal, Prediction, payloads_from, segment_of

_HEAD = 8


@pytest.fixture
def segment(tmp_path: Path) -> Path:
    """A sealed segment with five records and their commitments."""
    journal = Journal(tmp_path, SystemClock())
    for number in range(5):
        journal.append(record(journal, f"person {number}"))
    journal.close()
    (path,) = tmp_path.glob("*.seg")
    seals.commit(path, (payload for payload, _ in payloads_from(path, 0)))
    return path


def record(journal: Journal, text: str) -> Prediction:
    return Prediction(
        id=journal.next_id, at=1, model="m", version="m@1", digest="sha256:" + "0" * 64, principal="p", generation=1,
        worker="1", rows=1, inputs={"name": [text]}, outputs={"y": [0.25]},
    )  # fmt: skip


def overwrite(path: Path, start: int, content: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[start : start + len(content)] = content
    path.chmod(0o600)
    path.write_bytes(data)


def erase(segment: Path, number: int) -> bytes:
    """Erase a record as the format says; returns what it was."""
    ends = [(payload, behind) for payload, behind in payloads_from(segment, 0)]
    payload, behind = ends[number]
    overwrite(segment, behind - len(payload), bytes(len(payload)))
    overwrite(segment.with_suffix(".salts"), _HEAD + 64 * number + 32, bytes(32))
    return payload


def test_the_root_stays_when_records_are_erased(segment: Path) -> None:
    whole = seals.check(segment)
    assert (whole.records, whole.erased) == (5, 0)
    payload = erase(segment, 2)
    assert payload not in segment.read_bytes()
    erased = seals.check(segment)
    assert (erased.records, erased.erased, erased.root) == (5, 1, whole.root)


def test_a_record_that_was_changed_is_told(segment: Path) -> None:
    payload, behind = next(payloads_from(segment, 0))
    overwrite(segment, behind - len(payload) + 20, bytes([payload[20] ^ 1]))
    with pytest.raises(Integrity, match="record 0 is not the one that was sealed"):
        seals.check(segment)


def test_zeros_without_an_erased_salt_are_no_erasure(segment: Path) -> None:
    payload, behind = next(payloads_from(segment, 0))
    overwrite(segment, behind - len(payload), bytes(len(payload)))
    with pytest.raises(Integrity) as caught:
        seals.check(segment)
    assert caught.value.code == "journal_seal_broken"


def test_records_cannot_be_added_taken_away_or_swapped(segment: Path) -> None:
    whole = segment.read_bytes()
    payload, behind = next(payloads_from(segment, 0))
    first = whole[HEAD:behind]
    for changed, why in (
        (whole + first, "after the 5"),
        (whole[: -len(first)], "missing"),
        (whole[:HEAD] + whole[behind : behind + len(first)] + first + whole[behind + len(first) :], "not the one"),
    ):
        segment.chmod(0o600)
        segment.write_bytes(changed)
        with pytest.raises(Integrity, match=why):
            seals.check(segment)
    segment.write_bytes(whole)
    assert seals.check(segment).records == 5
    assert payload


def test_commitments_that_are_there_are_never_replaced(segment: Path) -> None:
    salts = segment.with_suffix(".salts").read_bytes()
    seals.commit(segment, (payload for payload, _ in payloads_from(segment, 0)))
    assert segment.with_suffix(".salts").read_bytes() == salts


def test_two_equal_records_have_different_commitments(tmp_path: Path) -> None:
    path = tmp_path / "x.seg"
    seals.commit(path, [b"the same", b"the same"])
    content = path.with_suffix(".salts").read_bytes()
    assert content[_HEAD : _HEAD + 32] != content[_HEAD + 64 : _HEAD + 96]


@pytest.mark.parametrize("content", [b"", b"FALAJS1\n" + bytes(63), b"something"])
def test_salts_that_cannot_be_read(segment: Path, content: bytes) -> None:
    salts = segment.with_suffix(".salts")
    salts.chmod(0o600)
    salts.write_bytes(content)
    with pytest.raises(Integrity, match="salts cannot be read"):
        seals.check(segment)
    salts.unlink()
    with pytest.raises(Integrity, match="salts are missing"):
        seals.check(segment)


def test_a_last_record_that_a_power_cut_tore_is_not_committed_to(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SystemClock())
    journal.append(record(journal, "whole"))
    torn = record(journal, "torn")
    journal.append(torn)
    journal.close()
    (path,) = tmp_path.glob("*.seg")
    offset = segment_of(torn.id)[1]
    length = path.stat().st_size - offset - 8
    overwrite(path, offset + 8, bytes(length))  # its length came to the disk, its bytes did not
    seals.commit(path, (payload for payload, _ in payloads_from(path, 0)))
    assert seals.check(path).records == 1
