"""The prediction journal: every answer is written down before it is sent.

    segment  <journal>/<26 characters>.seg = head record*
    record   = length of the payload (u32, little endian)  CRC-32 of the payload (u32, little endian)  payload
    payload  = a `Prediction` as MessagePack map, encrypted (`ciphers`, which says what a head is)
    prediction id = "p_" <the segment's 26 characters> "_" <offset of the record, hexadecimal>

So a prediction is found with one seek, and the name of a row in it is `<prediction id>/<row>`.

Whoever writes a segment holds a lock on it (`flock`) from before it has its name until its last byte is
flushed, and no longer than the process lives. A segment without that lock is *sealed*: it never changes
again but by erasure. A segment ends when it is full, an hour after its first record, when the platform's
clock shows another day (replayed days pass quickly: a minute at least lies between), when the file
`rotate` in the folder is touched, and when its writer ends.

What is written survives the death of the process at once (it is in the kernel before the answer
leaves) and a power cut after at most one second (a thread calls fdatasync; if that fails the process
ends, because what was not flushed can no longer be told from what was). A cut may tear the last
record: readers stop before it (and cannot tell a length that was damaged from a cut).

Segments of 0.1 begin with "FALAJJ1\\n" and hold their payloads in clear; they are read and never written.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from falaj.kernel import locks
from falaj.kernel.clock import Clock
from falaj.kernel.errors import Integrity, Invalid, NotFound, Unavailable
from falaj.kernel.files import flush
from falaj.kernel.ids import new_id
from falaj.kernel.log import logger
from falaj.lifecycle.serving.plane.ciphers import HEAD, SEALED, Opener, Sealer
from falaj.storage.keychain import keys_of

_CLEAR = b"FALAJJ1\n"
SUFFIX = ".seg"
ROTATE = "rotate"
"""The file in a journal's folder that asks for new segments when it is touched."""
BATCH_ROLE = "batch"
"""The role of answers to the rows of a table that was scored as a whole: nobody asked a data plane."""
_FRAME = struct.Struct("<II")
_ID = re.compile(r"p_(?P<segment>[0-9a-z]{26})_(?P<offset>[0-9a-f]{1,15})\Z")
_MAX_RECORD = 256 << 20
_ROW_DIGITS = 9  # no request has more rows
_NOT_FINITE = ("its output ", " is not a finite number")
_DAY = 86_400_000_000  # µs


class Prediction(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One answered request. Every list has one value a row.

    A record with `primary` was not an answer: a shadow's output, or a canary's failure beside the answer that the
    stable version gave. Whoever counts answers, counts records without it.

    `inputs` is what the caller sent (request features and join keys), `features` what was looked up and
    used (None where nothing could be), `statuses` says why, by view: present, expired, missing;
    `event_times` of what was found, by view, in µs since 1970.
    """

    id: str
    at: int  # µs since 1970 by the platform's clock
    model: str
    version: str  # the alias
    digest: str
    principal: str
    generation: int
    worker: str
    rows: int
    inputs: dict[str, list[Any]]
    outputs: dict[str, list[Any]]
    features: dict[str, list[Any]] = {}
    statuses: dict[str, list[str]] = {}
    duration: int = 0  # µs from the request's arrival to the writing of this record; negative where nobody timed it
    request: str = ""  # the caller's own id
    error: str = ""  # why there is no answer; then `outputs` is empty
    role: str = "stable"  # what the version was in the plan: stable | canary | shadow; batch and external: in none
    primary: str = ""  # the id of the answer that the caller got instead: this one is of a shadow, or failed
    event_times: dict[str, list[int | None]] = {}

    @property
    def not_finite(self) -> bool:
        """Whether there is no answer because the version's was no finite number."""
        return self.error.startswith(_NOT_FINITE[0]) and self.error.endswith(_NOT_FINITE[1])


_decoder = msgspec.msgpack.Decoder(Prediction)


class Journal:
    """Appends to one segment at a time. `next_id`, `append` and `rotate` belong to one thread."""

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        *,
        segment_bytes: int = 64 << 20,
        segment_seconds: float = 3600,
        day_seconds: float = 60,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._clock = clock
        self._segment_bytes = segment_bytes
        self._segment_seconds = segment_seconds
        self._day_seconds = day_seconds
        self._encoder = msgspec.msgpack.Encoder()
        self._retired: list[int] = []
        self._next = ""
        self._dirty = False
        self._began: float | None = None  # when the segment's first record came
        self._stop = threading.Event()
        self._open()
        self._syncer = threading.Thread(target=self._sync_every_second, name="journal", daemon=True)
        self._syncer.start()

    @property
    def next_id(self) -> str:
        """The id of the record that is appended next."""
        return self._next

    def append(self, record: Prediction) -> None:
        """Write a record whose id is `next_id`. Raises `Unavailable` when it cannot be written: then no
        answer may be given."""
        if record.id != self._next:
            raise ValueError("a record carries the id of its place")
        buffer = framed(self._sealer.seal(self._encoder.encode(record), self._offset))
        try:
            written = os.write(self._fd, buffer)
            if written != len(buffer):
                raise OSError(f"{written} of {len(buffer)} bytes")
        except OSError as e:
            os.ftruncate(self._fd, self._offset)
            raise Unavailable(
                f"the prediction journal cannot be written: {e}",
                hint="make room on the disk of the data plane's folder; predictions are refused until then",
                code="journal_unavailable",
            ) from e
        self._offset += written
        self._next = f"{self._prefix}{self._offset:x}"
        self._dirty = True
        if self._began is None:
            self._began, self._day = time.monotonic(), record.at // _DAY
        if self._offset >= self._segment_bytes or self.due(record.at):
            with contextlib.suppress(OSError):  # the record is safe; this segment goes on until one can be opened
                self.rotate()

    def due(self, moment: int) -> bool:
        """Whether the segment has had its time at `moment` (µs since 1970 by the platform's clock). Any thread may ask."""
        began = self._began
        if began is None:
            return False
        age = time.monotonic() - began
        return age >= self._segment_seconds or (moment // _DAY != self._day and age >= self._day_seconds)

    def rotate(self) -> None:
        """Begin a new segment, unless nothing stands in this one. Raises OSError: then this one goes on."""
        if self._began is not None:
            before = self._fd
            self._open()
            self._retired.append(before)

    def close(self) -> None:
        """Flush and close."""
        self._stop.set()
        self._syncer.join()
        self._sync()
        os.close(self._fd)

    def _open(self) -> None:
        name = new_id("p", self._clock.now())
        segment = name.removeprefix("p_")
        sealer = Sealer(segment, keys_of(self._folder).reader)
        self._fd = _created(self._folder, segment + SUFFIX, sealer.head)
        self._sealer = sealer
        self._prefix = f"{name}_"
        self._offset = HEAD
        self._next = f"{self._prefix}{HEAD:x}"
        self._began = None
        self._day = 0
        flush(self._folder)

    def _sync_every_second(self) -> None:
        while not self._stop.wait(0.5):
            try:
                self._sync()
            except OSError as e:
                logger(__name__).error("journal cannot be flushed, ending", error=str(e))
                os._exit(4)

    def _sync(self) -> None:
        while self._retired:
            descriptor = self._retired.pop()
            os.fdatasync(descriptor)
            os.close(descriptor)
        if self._dirty:
            self._dirty = False
            os.fdatasync(self._fd)


def _created(folder: Path, name: str, head: bytes) -> int:
    """A new segment, locked before anybody can see it."""
    hidden = folder / f".{name}.new"  # no reader takes it for a segment
    descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.write(descriptor, head) != len(head):
            raise OSError("no room for a segment")
        hidden.rename(folder / name)
    except OSError:
        os.close(descriptor)
        hidden.unlink(missing_ok=True)
        raise
    return descriptor


def not_finite(output: str) -> str:
    """The `error` of a record whose version answered, but with no finite number in `output`."""
    return output.join(_NOT_FINITE)


def framed(payload: bytes) -> bytes:
    """A record's payload as it stands in a segment."""
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def is_sealed(path: Path) -> bool:
    """Whether nobody writes to this segment any more."""
    return not locks.held(path)


def segment_of(prediction_id: str) -> tuple[str, int]:
    """The segment's file name and the offset that an id names. Raises `Invalid`."""
    match = _ID.match(prediction_id.partition("/")[0])
    if match is None:
        raise Invalid(
            f"{prediction_id[:80]!r} is not a prediction id",
            hint="use the prediction_id that an answer carries, such as p_01h…_8",
            code="bad_prediction_id",
        )
    return match["segment"] + SUFFIX, int(match["offset"], 16)


def read_record(folder: Path, prediction_id: str) -> Prediction:
    """The record of a prediction (a row's name is understood too).

    Raises `Invalid` for something that is no id, `NotFound`, and `Integrity` for damaged bytes.
    """
    name, offset = segment_of(prediction_id)
    try:
        with (folder / name).open("rb") as f:
            beginning = _head(f)
            f.seek(offset)
            payload = _read(f.read(_FRAME.size), f.read)
    except (FileNotFoundError, EOFError) as e:
        raise NotFound(
            f"there is no prediction {prediction_id}",
            hint="check the id, and that its journal segment was not archived",
            code="prediction_not_found",
        ) from e
    if payload is None:
        raise _damaged(name, offset)
    record = _Decoder(folder / name, beginning).decode(payload, offset)
    if record.id != prediction_id.partition("/")[0]:
        raise _damaged(name, offset)
    return record


def row_of(prediction_id: str, record: Prediction) -> int:
    """The row of a record that `ID` (the first) or `ID/ROW` names. Raises `Invalid` for one that it does not have."""
    text = prediction_id.partition("/")[2] or "0"
    row = int(text) if text.isascii() and text.isdigit() and len(text) <= _ROW_DIGITS else -1
    if not 0 <= row < max(record.rows, 1):
        raise Invalid(
            f"{record.id} has no row {text[:20]!r}",
            hint=f"it has {record.rows}, the first is 0: write {record.id}/0",
            code="no_such_row",
        )
    return row


def iter_records(path: Path) -> Iterator[Prediction]:
    """The records of a segment, in order; a torn last record is left out.

    Raises `Integrity` when bytes before the end are damaged.
    """
    return (record for record, _ in records_from(path, 0))


def records_from(path: Path, offset: int) -> Iterator[tuple[Prediction, int]]:
    """The records at and after `offset` (0: from the start), each with the offset behind it, to go on from later."""
    decoder: _Decoder | None = None
    for payload, behind in payloads_from(path, offset):
        if decoder is None:  # not before there is a record: a segment without any needs no key
            with path.open("rb") as f:
                decoder = _Decoder(path, _head(f))
        yield decoder.decode(payload, behind - len(payload) - _FRAME.size), behind


def payloads_from(path: Path, offset: int) -> Iterator[tuple[bytes, int]]:
    """As `records_from`, but the bytes of each record as they stand there: no key is needed."""
    size = path.stat().st_size
    with path.open("rb") as f:
        head = _head(f)
        if not head:
            if size < HEAD and _cut_off(f):
                return
            raise _damaged(path.name, 0)
        offset = max(offset, len(head))
        f.seek(offset)
        while offset < size:
            frame = f.read(_FRAME.size)
            try:
                payload = _read(frame, f.read)
            except EOFError:
                return
            if payload is None:
                if not any(frame) or f.tell() >= size:  # zeros that a power cut left, or the last record
                    return
                raise _damaged(path.name, offset)
            offset = f.tell()
            yield payload, offset


def frames_of(path: Path) -> Iterator[tuple[bytes, int]]:
    """The payload of each whole frame, erased ones too, with the offset behind it: only lengths are looked at.

    Raises `Integrity` for a file that is no segment, and for a length that cannot be one.
    """
    with path.open("rb") as f:
        if not _head(f):
            raise _damaged(path.name, 0)
        while len(frame := f.read(_FRAME.size)) == _FRAME.size and any(frame):
            length, _ = _FRAME.unpack(frame)
            if not 0 < length <= _MAX_RECORD:
                raise _damaged(path.name, f.tell() - _FRAME.size)
            payload = f.read(length)
            if len(payload) < length:
                return
            yield payload, f.tell()


def has_records(path: Path) -> bool:
    """Whether anything stands in a segment behind its head."""
    with path.open("rb") as f:
        return path.stat().st_size > max(len(_head(f)), len(_CLEAR))


def _head(f: BinaryIO) -> bytes:
    """What a segment begins with, read up to its first record; empty when it is not whole, or no segment's."""
    head = f.read(len(_CLEAR))
    if head == SEALED:
        head += f.read(HEAD - len(SEALED))
        return head if len(head) == HEAD else b""
    return head if head == _CLEAR else b""


def _cut_off(f: BinaryIO) -> bool:
    """Whether a file that has no whole head may be the beginning of one: a crash or a power cut left it so."""
    f.seek(0)
    begun = f.read(len(_CLEAR))
    return SEALED.startswith(begun) or _CLEAR.startswith(begun) or not any(begun)


def _read(frame: bytes, read: Any) -> bytes | None:
    """The payload behind a frame, None if it is damaged. Raises EOFError when it is cut off."""
    if len(frame) < _FRAME.size:
        raise EOFError
    length, crc = _FRAME.unpack(frame)
    if not 0 < length <= _MAX_RECORD:
        return None
    payload: bytes = read(length)
    if len(payload) < length:
        raise EOFError
    return payload if zlib.crc32(payload) == crc else None


class _Decoder:
    """Reads the payloads of one segment. Raises `Integrity` when no key that is held opens it."""

    def __init__(self, path: Path, head: bytes) -> None:
        self._name = path.name
        self._opener = Opener(path.stem, head, keys_of(path).journal) if head.startswith(SEALED) else None

    def decode(self, payload: bytes, offset: int) -> Prediction:
        """The record whose payload stands at an offset. Raises `Integrity`."""
        plain = payload if self._opener is None else self._opener.open(payload, offset)
        if plain is None:
            raise _damaged(self._name, offset)
        try:
            return _decoder.decode(plain)
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise _damaged(self._name, offset) from e


def _damaged(name: str, offset: int) -> Integrity:
    return Integrity(
        f"the journal segment {name} is damaged at byte {offset}",
        hint="restore the segment from a backup; the records before that place can still be read",
        code="journal_damaged",
    )
