from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from falaj.kernel.digests import sha256
from falaj.kernel.errors import FalajError, Integrity, Invalid, NotFound
from falaj.storage.blobs import format as blob_format
from falaj.storage.blobs import local
from falaj.storage.blobs.format import MAGIC, open_sealed, seal, unwrap
from falaj.storage.blobs.local import LocalBlobs, blob_path

KEK, KEY = bytes(range(32)), bytes(range(32, 64))
HEADER = len(MAGIC) + 40
SMALL = 16


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_format, "CHUNK", SMALL)


@pytest.fixture(scope="module")
def always_small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blob_format, "CHUNK", SMALL)
        yield


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs", KEK)


def pieces(sealed: bytes) -> list[bytes]:
    """The chunks of a blob, each with its length."""
    found, at = [], HEADER
    while at < len(sealed):
        end = at + 4 + int.from_bytes(sealed[at : at + 4], "big")
        found.append(sealed[at:end])
        at = end
    return found


def stored(blobs: LocalBlobs) -> list[Path]:
    return sorted(p for p in blobs.root.rglob("*") if p.is_file())


@pytest.mark.usefixtures("always_small")
@given(st.binary(max_size=5 * SMALL))
@example(b"")
@example(b"x" * SMALL)
@example(b"x" * (SMALL - 1))
@example(b"x" * (SMALL + 1))
@example(b"x" * 4 * SMALL)
def test_what_was_sealed_opens(plain: bytes) -> None:
    sealed = seal(plain, KEY, KEK)
    assert unwrap(sealed, KEK) == KEY
    assert open_sealed(sealed, KEY) == plain
    assert len(pieces(sealed)) == max(1, -(-len(plain) // SMALL))


def test_the_real_chunk_size(blobs: LocalBlobs) -> None:
    for size in (blob_format.CHUNK, blob_format.CHUNK + 1):
        plain = os.urandom(size)
        assert blobs.get(blobs.put(plain)) == plain


def refused(sealed: bytes) -> None:
    with pytest.raises(Integrity) as error:
        open_sealed(sealed, unwrap(sealed, KEK))
    assert error.value.code == "blob_broken"
    assert error.value.hint


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("size", [0, SMALL - 1, 2 * SMALL + 3])
def test_every_flipped_byte_is_refused(size: int) -> None:
    sealed = seal(os.urandom(size), KEY, KEK)
    for at in range(len(sealed)):
        for mask in (1, 0x80, 0xFF):
            changed = bytearray(sealed)
            changed[at] ^= mask
            refused(bytes(changed))


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("size", [0, SMALL, 2 * SMALL + 3])
def test_every_shorter_blob_is_refused(size: int) -> None:
    sealed = seal(os.urandom(size), KEY, KEK)
    for end in range(len(sealed)):
        refused(sealed[:end])


@pytest.mark.usefixtures("small_chunks")
def test_every_longer_blob_is_refused() -> None:
    sealed = seal(os.urandom(2 * SMALL), KEY, KEK)
    chunk = pieces(sealed)[-1]
    for more in (b"\0", b"\0" * 4, b"\0\0\0\x10" + b"\0" * 16, chunk, pieces(sealed)[0], sealed, b"\xff" * 4):
        refused(sealed + more)


@pytest.mark.usefixtures("small_chunks")
def test_chunks_cannot_be_moved_dropped_or_doubled() -> None:
    sealed = seal(os.urandom(4 * SMALL), KEY, KEK)
    head, (a, b, c, d) = sealed[:HEADER], pieces(sealed)
    assert open_sealed(head + a + b + c + d, KEY)
    for order in ((b, a, c, d), (a, b, d, c), (a, b, c), (b, c, d), (a, c, d), (a, a, b, c, d), (d,), (d, c, b, a)):
        refused(head + b"".join(order))


@pytest.mark.usefixtures("small_chunks")
def test_chunks_of_another_blob_are_refused() -> None:
    one, two = (seal(b"x" * 2 * SMALL, secrets.token_bytes(32), KEK) for _ in range(2))
    refused(one[:HEADER] + pieces(one)[0] + pieces(two)[1])
    refused(one[:HEADER] + two[HEADER:])


def test_another_homes_key_opens_nothing(blobs: LocalBlobs) -> None:
    digest = blobs.put(b"a model")
    other = LocalBlobs(blobs.root, secrets.token_bytes(32))
    for use in (other.get, other.data_key):
        with pytest.raises(Integrity) as error:
            use(digest)
        assert error.value.code == "blob_broken" and digest in error.value.message


def test_a_data_key_opens_its_own_blob_only(blobs: LocalBlobs) -> None:
    one, two = blobs.put(b"one"), blobs.put(b"two")
    assert open_sealed(blob_path(blobs.root, one).read_bytes(), blobs.data_key(one)) == b"one"
    with pytest.raises(Integrity):
        open_sealed(blob_path(blobs.root, two).read_bytes(), blobs.data_key(one))


def test_putting_the_same_bytes_again_changes_nothing(blobs: LocalBlobs) -> None:
    digest = blobs.put(b"a model")
    assert digest == sha256(b"a model")
    before = [(p, p.read_bytes(), p.stat().st_mtime_ns, p.stat().st_ino) for p in stored(blobs)]
    assert blobs.put(b"a model") == digest
    assert [(p, p.read_bytes(), p.stat().st_mtime_ns, p.stat().st_ino) for p in stored(blobs)] == before
    assert len(before) == 1


def test_the_first_of_two_that_put_the_same_bytes_at_once_stays(
    blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its data key may be with a data plane when the second arrives."""
    both, kept = threading.Barrier(2), []

    def together(plain: bytes, data_key: bytes, kek: bytes) -> bytes:
        sealed = seal(plain, data_key, kek)
        both.wait(20)  # both have seen that the blob is not there
        return sealed

    def put_and_look(_n: int) -> bytes:
        digest = blobs.put(b"a model")
        kept.append(blobs.data_key(digest))
        return blobs.get(digest)

    monkeypatch.setattr(local, "seal", together)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(put_and_look, range(2))) == [b"a model"] * 2
    assert kept[0] == kept[1]
    assert len(stored(blobs)) == 1


def test_nothing_readable_lies_on_the_disk(blobs: LocalBlobs) -> None:
    plain = b"a very recognisable weight " * 1000
    digest = blobs.put(plain)
    (path,) = stored(blobs)
    data = path.read_bytes()
    assert b"recognisable" not in data
    assert KEK not in data
    assert blobs.data_key(digest) not in data
    assert blobs.root.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


def test_equal_bytes_in_two_homes_look_different(tmp_path: Path) -> None:
    one, two = (LocalBlobs(tmp_path / n, KEK) for n in "ab")
    digest = one.put(b"same")
    assert two.put(b"same") == digest
    assert stored(one)[0].read_bytes() != stored(two)[0].read_bytes()
    assert one.data_key(digest) != two.data_key(digest)


def test_a_good_blob_under_another_name_is_refused(blobs: LocalBlobs) -> None:
    one, two = blobs.put(b"one"), blobs.put(b"two")
    blob_path(blobs.root, one).write_bytes(blob_path(blobs.root, two).read_bytes())
    with pytest.raises(Integrity):
        blobs.get(one)


def test_a_missing_blob_is_not_found(blobs: LocalBlobs) -> None:
    assert not blobs.exists(sha256(b"nothing"))
    for use in (blobs.get, blobs.data_key):
        with pytest.raises(NotFound):
            use(sha256(b"nothing"))


HEX = "a" * 64
HOSTILE = [
    "", "..", "/", "sha256:", "sha256:..", HEX, "/etc/passwd", "../../../etc/passwd", f"sha256:../{HEX[3:]}",
    f"sha256:{HEX}/", f"sha256:{HEX}/..", f"sha256:{HEX}\n", f"sha256:{HEX}\0", f"sha256:{HEX.upper()}",
    f"sha256:{HEX[1:]}", f"sha256:{HEX}a", f"sha256:..%2f{HEX[5:]}", f"sha256:%2e%2e{HEX[6:]}", f" sha256:{HEX}",
    f"sha256:sha256:{HEX}", f"SHA256:{HEX}", f"sha256:./{HEX[2:]}", f"sha256:..\\{HEX[3:]}", f"sha256:\u2024\u2024/{HEX[3:]}",
    f"sha256:\uff41{HEX[1:]}", f"sha256:\u0661{HEX[1:]}", f"file://{HEX}", f"sha256:{HEX[:-1]}\u0000", "sha256:" + "/" * 64,
    "sha256:" + "." * 64, "sha256:" + ".." + "/" * 62, f"sha256:~{HEX[1:]}", f"sha256:${HEX[1:]}",
]  # fmt: skip


@pytest.mark.parametrize("digest", HOSTILE)
def test_a_name_that_is_no_digest_reaches_no_file(blobs: LocalBlobs, digest: str) -> None:
    for use in (blobs.get, blobs.data_key, blobs.exists):
        with pytest.raises(Invalid):
            use(digest)


@given(st.text(max_size=80))
def test_no_text_leaves_the_folder(text: str) -> None:
    root = Path("/srv/of/blobs")
    for name in (text, f"sha256:{text}"):
        try:
            path = blob_path(root, name)
        except FalajError:
            continue
        assert path.parent.parent == root
        assert ".." not in path.parts
