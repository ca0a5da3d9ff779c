"""The online store: values come back as they went in, and a view is replaced whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.kernel.digests import sha256
from falaj.kernel.errors import Conflict, Integrity, Invalid, Unavailable
from falaj.storage import keychain
from falaj.storage.online.lmdb_store import MAX_KEY_BYTES, OnlineReader, OnlineWriter, Values, ViewMeta

VIEW, OTHER = sha256(b"view"), sha256(b"other")
NOON, ONE = "2013-04-01T12:00:00.000Z", "2013-04-01T13:00:00.000Z"


def meta(digest: str = VIEW, as_of: str = NOON, operation: str = "op1") -> ViewMeta:
    return ViewMeta(digest, as_of, ("a", "b"), 0, operation)


def fill(folder: Path, rows: dict[str, Values], what: ViewMeta) -> ViewMeta:
    writer = OnlineWriter(folder)
    try:
        return writer.replace(what, rows.items())
    finally:
        writer.close()


def get(folder: Path, keys: list[str], digest: str = VIEW) -> list[Values | None]:
    reader = OnlineReader(folder)
    try:
        return reader.get_many(digest, keys)
    finally:
        reader.close()


def test_values_come_back_in_the_order_of_the_keys(tmp_path: Path) -> None:
    rows: dict[str, Values] = {"UA": (5, (1.5, None, "x")), "é\0": (-7, (0.0, 2.0, None))}
    assert fill(tmp_path, rows, meta()).keys == 2
    assert get(tmp_path, ["é\0", "ZZ", "UA", "U", "UAA", ""]) == [rows["é\0"], None, rows["UA"], None, None, None]


VALUES = st.tuples(
    st.integers(-(2**62), 2**62),
    st.lists(st.none() | st.floats(allow_nan=False) | st.text(max_size=20), max_size=6).map(tuple),
)


@given(st.dictionaries(st.text(min_size=1, max_size=40), VALUES, max_size=20))
def test_any_values_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: dict[str, Values]) -> None:
    folder = tmp_path_factory.mktemp("online")
    fill(folder, rows, meta())
    assert get(folder, list(rows)) == list(rows.values())


def test_replacing_a_view_removes_what_it_held_and_touches_no_other(tmp_path: Path) -> None:
    fill(tmp_path, {f"k{i}": (i, (float(i),)) for i in range(500)}, meta())
    fill(tmp_path, {"k1": (1, (9.0,))}, meta(OTHER))
    fill(tmp_path, {"k2": (2, (2.5,))}, meta(as_of=ONE, operation="op2"))
    assert get(tmp_path, ["k1", "k2", "k3"]) == [None, (2, (2.5,)), None]
    assert get(tmp_path, ["k1"], OTHER) == [(1, (9.0,))]


@given(st.lists(st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3), min_size=2, max_size=5))
def test_a_reader_that_stays_open_sees_each_filling(
    tmp_path_factory: pytest.TempPathFactory, fillings: list[dict[str, Values]]
) -> None:
    """It knows a filling's key from before, and must neither take an old value nor miss a new one."""
    folder = tmp_path_factory.mktemp("online")
    fill(folder, {"a": (0, (0.5,))}, meta(OTHER))
    reader = OnlineReader(folder)
    for number, rows in enumerate(fillings):
        reader.close()  # one of them for a folder in a process; what it knows of fillings stays
        fill(folder, rows, meta(operation=f"op{number}"))
        assert reader.get_many(VIEW, ["a", "b", "c"]) == [rows.get(k) for k in "abc"]
        assert reader.get_each([(OTHER, "a"), (VIEW, "b")]) == [(0, (0.5,)), rows.get("b")]
    reader.close()


def test_a_replacement_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    fill(tmp_path, {"a": (1, (1.0,))}, meta())
    for bad in ([("b", (1, ())), ("b", (2, ()))], [("", (1, ()))], [("x" * (MAX_KEY_BYTES + 1), (1, ()))]):
        writer = OnlineWriter(tmp_path)
        with pytest.raises(Invalid):
            writer.replace(meta(as_of=ONE, operation="op2"), bad)
        writer.close()
    assert get(tmp_path, ["a", "b"]) == [(1, (1.0,)), None]
    assert get(tmp_path, ["x" * (MAX_KEY_BYTES + 1)]) == [None]


def test_the_same_operation_changes_nothing_and_an_older_moment_is_refused(tmp_path: Path) -> None:
    first = fill(tmp_path, {"a": (1, (1.0,))}, meta(as_of=ONE))
    assert fill(tmp_path, {"a": (2, (2.0,))}, meta(as_of=ONE)) == first
    with pytest.raises(Conflict) as caught:
        fill(tmp_path, {"a": (3, (3.0,))}, meta(as_of=NOON, operation="op2"))
    assert caught.value.code == "stale_materialization"
    assert get(tmp_path, ["a"]) == [(1, (1.0,))]


def test_meta_says_what_a_view_was_filled_with_and_drop_forgets_it(tmp_path: Path) -> None:
    fill(tmp_path, {"a": (1, (1.0,)), "b": (1, (1.0,))}, meta())
    reader = OnlineReader(tmp_path)
    assert reader.meta(VIEW) == ViewMeta(VIEW, NOON, ("a", "b"), 2, "op1")
    assert reader.meta(OTHER) is None
    reader.close()
    writer = OnlineWriter(tmp_path)
    assert writer.drop(VIEW) and not writer.drop(VIEW)
    writer.close()
    assert get(tmp_path, ["a"]) == [None]


def test_nothing_materialised_is_said_and_not_answered_with_nulls(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        get(tmp_path / "none", ["a"])
    assert caught.value.code == "online_store_missing"


def test_damaged_bytes_are_an_integrity_error(tmp_path: Path) -> None:
    fill(tmp_path, {"a": (1, (1.0,))}, meta())
    env = lmdb.open(str(tmp_path))
    with env.begin(write=True) as tx, tx.cursor() as cursor:
        assert cursor.set_range(VIEW[7:39].encode())
        tx.put(bytes(cursor.key()), b"\xff\xff")
    env.close()
    with pytest.raises(Integrity):
        get(tmp_path, ["a"])


@pytest.mark.parametrize("damage", [b"\xff\xff", b"\xa2\xff\xfe", b""])
def test_what_a_view_was_filled_with_can_be_damaged_too_and_filling_anew_mends_it(
    tmp_path: Path, damage: bytes
) -> None:
    fill(tmp_path, {"a": (1, (1.0,))}, meta())
    env = lmdb.open(str(tmp_path))
    with env.begin(write=True) as tx:
        tx.put(b"view\0" + VIEW.encode(), damage)
    env.close()
    reader = OnlineReader(tmp_path)
    with pytest.raises(Integrity) as refused:
        reader.meta(VIEW)
    reader.close()
    assert refused.value.code == "online_value_damaged"
    assert fill(tmp_path, {"a": (2, (2.0,))}, meta()).keys == 1
    assert get(tmp_path, ["a"]) == [(2, (2.0,))]


WRITER = """
import sys
from pathlib import Path
from falaj.storage import keychain
from falaj.storage.online.lmdb_store import OnlineWriter, ViewMeta
folder, digest = Path(sys.argv[1]), sys.argv[2]
keychain.take(sys.stdin.readline())
writer = OnlineWriter(folder, map_bytes=1 << 16)
for generation in range(1, 40):
    rows = [(f"k{i}", (generation, (float(generation), "x" * 50))) for i in range(200 * generation)]
    writer.replace(ViewMeta(digest, f"2013-04-01T12:00:{generation:02d}.000Z", ("a", "b"), 0, f"op{generation}"), rows)
writer.close()
"""


def test_a_reader_sees_one_filling_at_a_time_while_the_file_grows(tmp_path: Path) -> None:
    fill(tmp_path, {f"k{i}": (0, (0.0, "")) for i in range(200)}, meta())
    reader = OnlineReader(tmp_path, map_bytes=1 << 16)
    path = os.pathsep.join(p for p in sys.path if p)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path), VIEW], env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert writer.stdin is not None
    with writer.stdin:
        writer.stdin.write(keychain.dump(keychain.keys_of(tmp_path), tmp_path))
    seen: set[float] = set()
    running = True
    while running:
        running = writer.poll() is None
        found = reader.get_many(VIEW, [f"k{i}" for i in range(200)])
        generations = {values[1][0] for values in found if values is not None}
        assert None not in found and len(generations) == 1
        seen |= generations  # type: ignore[arg-type]
    assert writer.returncode == 0
    assert max(seen) == 39.0
    reader.close()


def test_reading_imports_nothing_heavy() -> None:
    code = (
        "import sys; import falaj.storage.online.lmdb_store;"
        "print([m for m in ('polars','deltalake','sqlalchemy','pandas','numpy','pandera') if m in sys.modules])"
    )
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.stdout.strip() == "[]"
