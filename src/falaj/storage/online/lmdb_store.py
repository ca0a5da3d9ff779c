"""Feature values by view and entity key, in LMDB.

    key    first 32 hex digits of the view's digest, 0x00, the entity key as a pseudonym (`fillings`)
    value  MessagePack [event time in µs since 1970, [value, …]] in the order of the view's columns, encrypted
    meta   "view" 0x00 and the whole digest → what the view was filled with
    "key" 0x00 and the prefix of the view's keys → the data key of what it was filled with, wrapped

A filling is one transaction: a reader sees all of the old values or all of the new ones. A commit is
flushed, so it survives a power cut. LMDB needs a local file system of one host. Freed pages keep old
values until they are used again. What 0.1 has filled has no data key: entity keys and values stand in clear, and are read
so until the view is filled again.

Readers lock: the lock table is what stops the writer from reusing pages that a reader still looks
at. So a reading process needs write access to `lock.mdb`, and nothing else here is written by it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import lmdb
import msgspec

from falaj.kernel.clock import parse_iso
from falaj.kernel.digests import parse_digest
from falaj.kernel.errors import Conflict, Integrity, Invalid, Unavailable
from falaj.storage import keychain
from falaj.storage.keychain import Keys, keys_of
from falaj.storage.online.fillings import Filling, new_filling, opened_filling, prefix_of

Values = tuple[int, tuple[float | str | None, ...]]
"""Event time in µs since 1970 (UTC), and the values in the order of the view's columns.

Numbers and booleans are floats, categories are strings, what is not known is None.
"""

T = TypeVar("T")
MAX_KEY_BYTES = 478  # LMDB's limit of 511, less the prefix
_MAP_BYTES = 1 << 30  # address space, not disk; grows when it is full
_KEY = b"key\0"
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Values] = msgspec.msgpack.Decoder(Values)


class ViewMeta(msgspec.Struct, frozen=True):
    """What a view was filled with. `as_of` is RFC 3339 in UTC: nothing known later went in."""

    digest: str
    as_of: str
    columns: tuple[str, ...]
    keys: int
    operation_id: str


_meta_decoder = msgspec.msgpack.Decoder(ViewMeta)


class OnlineWriter:
    """Fills views. One process writes at a time; LMDB makes a second one wait."""

    def __init__(self, folder: Path, *, map_bytes: int = _MAP_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._env = _open(folder, map_bytes=map_bytes, readonly=False)
        self._env.reader_check()  # slots of readers that died would keep old pages for ever

    def replace(self, meta: ViewMeta, rows: Iterable[tuple[str, Values]]) -> ViewMeta:
        """Replace everything that a view holds, in one transaction; returns the meta that now stands.

        `meta.keys` is counted here. The same operation again changes nothing. Raises `Conflict` when what
        is there is newer, `Invalid` for a key that is empty, too long or there twice.
        """
        prefix = prefix_of(parse_digest(meta.digest))
        plain = sorted((_checked(key), _encoder.encode(values)) for key, values in rows)
        for (left, _), (right, _) in pairwise(plain):
            if left == right:
                raise Invalid(
                    f"key {left.decode()!r} comes twice",
                    hint="one row for each key: take the latest",
                    code="duplicate_key",
                )
        wrapped, filling = new_filling(meta.digest, keys_of(self._folder).online)
        items = sorted(filling.seal(number, key, values) for number, (key, values) in enumerate(plain))
        meta = msgspec.structs.replace(meta, keys=len(items))
        while True:
            try:
                return self._replace(prefix, meta, [(_KEY + prefix, wrapped), *items])
            except lmdb.MapFullError:
                self._env.set_mapsize(self._env.info()["map_size"] * 2)
            except lmdb.MapResizedError:
                self._env.set_mapsize(0)

    def drop(self, view_digest: str) -> bool:
        """Remove a view that no model reads any more; False when it was not there."""
        with self._env.begin(write=True) as tx:
            prefix = prefix_of(parse_digest(view_digest))
            _clear(tx, prefix)
            tx.delete(_KEY + prefix)
            return bool(tx.delete(_meta_key(view_digest)))

    def close(self) -> None:
        """Let go of the file."""
        self._env.close()

    def _replace(self, prefix: bytes, meta: ViewMeta, items: list[tuple[bytes, bytes]]) -> ViewMeta:
        with self._env.begin(write=True) as tx:
            found = tx.get(_meta_key(meta.digest))
            if found is not None:
                earlier = _believed(found)
                if earlier and (earlier.operation_id, earlier.as_of) == (meta.operation_id, meta.as_of):
                    return earlier
                if earlier and parse_iso(earlier.as_of) > parse_iso(meta.as_of):
                    raise Conflict(
                        f"the online store holds values as of {earlier.as_of}, newer than {meta.as_of}",
                        hint="materialise as of a later moment",
                        code="stale_materialization",
                    )
            _clear(tx, prefix)
            with tx.cursor() as cursor:
                cursor.putmulti(items)
            tx.put(_meta_key(meta.digest), _encoder.encode(meta))
        return meta


class OnlineReader:
    """Reads values. The store is opened at the first read, so build it before a fork and read after it.

    A process that has read must not fork and read again in the child: LMDB's locks do not survive a fork,
    and the child is refused (`Unavailable`). One reader or writer for a folder in a process.
    """

    def __init__(self, folder: Path, *, map_bytes: int = _MAP_BYTES) -> None:
        self._folder = folder
        self._map_bytes = map_bytes
        self._env: lmdb.Environment | None = None
        self._pid = 0
        self._last: dict[str, tuple[bytes, Filling]] = {}  # by view: the filling seen last, with its wrapped data key

    def hold(self, keys: tuple[bytes, ...]) -> None:
        """Open values with these keys from now on, in this process."""
        keychain.hold(self._folder, Keys(online=keys))

    def get_many(self, view_digest: str, keys: Sequence[str]) -> list[Values | None]:
        """The values of some keys of one view; None where there are none. One snapshot for all.

        Raises `Unavailable` before anything was materialised, `Integrity` for bytes that are no values.
        """
        return self.get_each([(view_digest, key) for key in keys])

    def get_each(self, wanted: Sequence[tuple[str, str]]) -> list[Values | None]:
        """The values for pairs of (view digest, key), all from one snapshot; None where there are none."""
        last = self._last
        answers: list[Values | None] = []
        with self._begin() as tx:
            for digest, key in wanted:
                plain = key.encode("utf-8", "surrogatepass")
                known = last.get(digest)
                # A name is of one filling, so a value at the name that it has in the last one is a value of that filling,
                # and the transaction sees no other: nothing else need be read. Each read may wait for another thread.
                if known is not None and (found := tx.get(name := known[1].name(plain))) is not None:
                    answers.append(_decoded(_decoder, known[1].open(name, found)))
                else:
                    answers.append(self._sought(tx, digest, plain, known))
        return answers

    def _sought(
        self, tx: lmdb.Transaction, digest: str, key: bytes, tried: tuple[bytes, Filling] | None
    ) -> Values | None:
        """The values of a key, whatever the view was filled with as the transaction sees it; `tried` has none."""
        if len(key) > MAX_KEY_BYTES:  # LMDB refuses a name over its limit; such a key was never written
            return None
        prefix = prefix_of(parse_digest(digest))
        filling = self._filling(tx, digest, prefix)
        if tried is not None and filling is tried[1]:
            return None
        name = prefix + key if filling is None else filling.name(key)
        found = tx.get(name)
        if found is not None and filling is not None:
            found = filling.open(name, found)
        return None if found is None else _decoded(_decoder, found)

    def meta(self, view_digest: str) -> ViewMeta | None:
        """What a view was filled with; None when it never was.

        Raises `Unavailable` without a store, `Integrity` for bytes that do not say it.
        """
        with self._begin() as tx:
            found = tx.get(_meta_key(view_digest))
            return None if found is None else _decoded(_meta_decoder, found)

    def copy(self, folder: Path) -> None:
        """Write everything, as it is at one moment, into an empty folder. Raises `Unavailable` without a store."""
        with self._begin():
            if self._env is not None:
                self._env.copy(str(folder), compact=True)

    def close(self) -> None:
        """Let go of the file; in a forked process it is the parent's."""
        if self._env is not None and self._pid == os.getpid():
            self._env.close()
        self._env = None

    def _filling(self, tx: lmdb.Transaction, digest: str, prefix: bytes) -> Filling | None:
        """How a view's values are encrypted as the transaction sees them; None for those of 0.1, which are not."""
        found = tx.get(_KEY + prefix)
        if found is None:
            return None
        wrapped, known = bytes(found), self._last.get(digest)
        if known is not None and known[0] == wrapped:
            return known[1]
        filling = opened_filling(digest, wrapped, keys_of(self._folder).online)
        self._last[digest] = wrapped, filling
        return filling

    def _begin(self) -> lmdb.Transaction:
        if self._env is None or self._pid != os.getpid():
            self._env = self._opened()
        try:
            return self._env.begin(buffers=True)
        except lmdb.MapResizedError:
            self._env.set_mapsize(0)  # the writer has grown the file: take its size
            return self._env.begin(buffers=True)

    def _opened(self) -> lmdb.Environment:
        if not (self._folder / "data.mdb").is_file():
            raise Unavailable(
                "the online store is empty: no feature was materialised yet",
                hint="run `falaj features materialize`",
                code="online_store_missing",
            )
        self._pid = os.getpid()
        return _open(self._folder, map_bytes=self._map_bytes, readonly=True)


def _open(folder: Path, *, map_bytes: int, readonly: bool) -> lmdb.Environment:
    try:
        return lmdb.open(
            str(folder),
            map_size=map_bytes,
            readonly=readonly,
            create=not readonly,
            max_readers=512,
            readahead=False,
            mode=0o600,
        )
    except lmdb.Error as e:
        raise Unavailable(
            f"cannot open the online store: {e}",
            hint="it must be a local folder that this user may write; materialise again if it is damaged",
            code="online_store_unreadable",
        ) from e


def _meta_key(digest: str) -> bytes:
    return b"view\0" + digest.encode()


def _checked(key: str) -> bytes:
    encoded = key.encode()
    if not 0 < len(encoded) <= MAX_KEY_BYTES:
        raise Invalid(
            f"{key[:40]!r} cannot be an entity key: it has {len(encoded)} bytes",
            hint=f"keys have 1 to {MAX_KEY_BYTES} bytes; use a shorter identifier",
            code="bad_entity_key",
        )
    return encoded


def _clear(tx: lmdb.Transaction, prefix: bytes) -> None:
    with tx.cursor() as cursor:
        if cursor.set_range(prefix):
            while bytes(cursor.key()).startswith(prefix):
                cursor.delete()


def _believed(found: bytes | memoryview) -> ViewMeta | None:
    """What was said of an earlier filling; None for bytes that say nothing: filling anew mends them."""
    try:
        return _decoded(_meta_decoder, found)
    except Integrity:
        return None


def _decoded(decoder: msgspec.msgpack.Decoder[T], found: bytes | memoryview) -> T:
    try:
        return decoder.decode(found)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise Integrity(
            f"the online store holds something that is not a feature value: {e}",
            hint="materialise the features again",
            code="online_value_damaged",
        ) from e
