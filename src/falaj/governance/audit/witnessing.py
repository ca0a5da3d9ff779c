"""A log asks its witnesses to cosign (c2sp.org/tlog-witness), all at once, each for a moment only.

What a witness answers is believed only as far as it is signed: a line counts once it verifies with the witness's key.
When a witness has seen another history of this log, its own memory is what tells: that is a refusal, never a retry.
"""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from urllib.parse import urlsplit

import msgspec

from falaj.governance.audit import note
from falaj.governance.audit.model import WitnessStanding
from falaj.governance.audit.ports import Prove
from falaj.governance.audit.proof import encode_path
from falaj.governance.audit.quorum import Witness, WitnessPolicy
from falaj.governance.identity.addresses import check_address
from falaj.kernel.clock import iso
from falaj.kernel.errors import FalajError
from falaj.kernel.log import logger

SECONDS = 2.0
"""How long a witness is waited for."""
PAUSE = 30.0
"""Seconds after which a witness that did not answer, or does not know this log, is asked again."""
_ROUNDS = 3  # answers "I am at N" that are followed up, each with a proof from there
_MAX_ANSWER = 65_536
_log = logger(__name__)


class Answer(msgspec.Struct, frozen=True):
    """An answer over HTTP: status, the media type of its body, the body."""

    status: int
    kind: str
    body: bytes


Post = Callable[[str, bytes], Answer]
"""`post(url, body)`. Raises `OSError` or `http.client.HTTPException` when there is no answer."""
Trouble = Callable[[tuple[WitnessStanding, ...]], object]
"""Told which witnesses refuse this log's history; with none, once all that are asked have cosigned it."""


class Witnesses:
    """The `Cosigners` that a policy names.

    Each is asked once a process even if the checkpoint has its line already: a home that was restored from an old backup
    has a checkpoint that was cosigned well, and only the witness knows that it has seen more.
    """

    def __init__(self, policy: WitnessPolicy, post: Post | None = None, trouble: Trouble | None = None) -> None:
        self.policy = policy
        self.trouble = trouble
        self._post = post or post_over_http
        self._asked = [w for w in policy.witnesses if w.url]
        self._told: tuple[str, ...] | None = None  # whose refusal was told last
        self.begin_anew()

    def begin_anew(self) -> None:
        """See `Cosigners.begin_anew`."""
        self._standing = {w.name: WitnessStanding(w.name, w.verifier.vkey, w.url) for w in self.policy.witnesses}
        self._sizes: dict[str, int] = {}  # what each has seen last, by its own word
        self._again: dict[str, float] = {}  # when each may be asked again

    def standing(self) -> tuple[WitnessStanding, ...]:
        """See `Cosigners.standing`."""
        return tuple(self._standing.values())

    def apart(self) -> Witnesses:
        """See `Cosigners.apart`. A refusal is told as any other; that all is well again, only these tell, of the newest shard."""

        def told(refusing: tuple[WitnessStanding, ...]) -> None:
            if refusing and self.trouble is not None:
                self.trouble(refusing)

        return Witnesses(self.policy, self._post, told)

    def cosigned(self, checkpoint: bytes, log: note.Verifier, prove: Prove, *, patient: bool) -> bytes:
        """See `Cosigners.cosigned`."""
        head, opened = note.open_witnessed(checkpoint, log, self.policy.verifiers)
        now = time.monotonic()
        due = [
            w
            for w in self._asked
            if (w.verifier.vkey not in opened.times or self._standing[w.name].state == "asked")
            and not (patient and now < self._again.get(w.name, 0.0))
        ]
        if not due:
            return checkpoint
        with ThreadPoolExecutor(len(due), "witness") as pool:
            lines = list(pool.map(lambda w: self._ask(w, checkpoint, log, head, prove), due))
        self._tell()
        fresh = {(w.verifier.name, w.verifier.key_id) for w, line in zip(due, lines, strict=True) if line}
        kept = [line for name, key_id, line in note.lines_of(checkpoint) if (name, key_id) not in fresh]
        return "".join([head.text, "\n", *kept, *lines]).encode()

    def _ask(self, witness: Witness, raw: bytes, log: note.Verifier, head: note.Checkpoint, prove: Prove) -> str:
        """The witness's line, or nothing; how it stands now is kept."""
        before = self._standing[witness.name]
        try:
            line, after = self._rounds(witness, raw, log, head, prove)
        except (OSError, http.client.HTTPException) as e:
            line, after = "", _state(before, "silent", f"it does not answer: {e}")
        except FalajError as e:
            line, after = "", _state(before, "silent", e.message)
        self._standing[witness.name] = after
        self._again[witness.name] = 0.0 if line else time.monotonic() + PAUSE
        if after.state != before.state:
            _log.info("witness", name=witness.name, state=after.state, why=after.why)
        return line

    def _tell(self) -> None:
        """Tell whose refusal stands, once; a refusal stands until that witness cosigns."""
        states = [self._standing[w.name] for w in self._asked]
        refusing = tuple(s for s in states if s.state == "refused")
        names = tuple(s.name for s in refusing)
        if self.trouble is None or names == self._told or not (names or all(s.state == "cosigned" for s in states)):
            return
        try:
            self.trouble(refusing)
            self._told = names
        except Exception as e:  # whatever the listener does, checkpoints go on; it is told again
            _log.error("witness_trouble_not_told", error=str(e))

    def _rounds(
        self, witness: Witness, raw: bytes, log: note.Verifier, head: note.Checkpoint, prove: Prove
    ) -> tuple[str, WitnessStanding]:
        standing, old = self._standing[witness.name], self._sizes.get(witness.name, 0)
        for _ in range(_ROUNDS):
            if old > head.size:
                return "", _state(standing, "refused", _went_back(old, head.size))
            answer = self._post(f"{witness.url}/add-checkpoint", _request(old, head.size, raw, prove))
            if answer.status == 200:
                line, at = _line(answer.body, raw, log, witness.verifier)
                self._sizes[witness.name] = head.size
                moment = iso(datetime.fromtimestamp(at, UTC))
                return line, msgspec.structs.replace(standing, size=head.size, at=moment, state="cosigned", why="")
            known = _size(answer) if answer.status == 409 else None
            if answer.status == 422 or (answer.status == 409 and known in (None, old) and old == head.size):
                return "", _state(standing, "refused", _forked(old, head.size))
            if known is None or known == old:
                return "", _refusal(standing, answer)
            old = self._sizes[witness.name] = known
        return "", _state(standing, "silent", "it names another size each time")


def post_over_http(url: str, body: bytes) -> Answer:
    """POST; follows no redirect. Raises `OSError` or `http.client.HTTPException` when there is no whole answer, `Denied`
    for plain HTTP beyond loopback: who reads along would know what the log is asked, and could answer for the witness."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    check_address(parts.scheme, host)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        connection = http.client.HTTPSConnection(host, port, timeout=SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
    try:
        connection.request("POST", parts.path, body, {"Content-Type": "text/plain; charset=utf-8"})
        answer = connection.getresponse()
        kind = answer.headers.get_content_type()
        return Answer(answer.status, kind, answer.read(_MAX_ANSWER))
    finally:
        connection.close()


def _request(old: int, new: int, raw: bytes, prove: Prove) -> bytes:
    hashes = prove(old, new) if 0 < old < new else ()
    return "\n".join([f"old {old}", *encode_path(hashes), "", ""]).encode() + raw


def _line(body: bytes, raw: bytes, log: note.Verifier, witness: note.Verifier) -> tuple[str, int]:
    """The witness's line in an answer, verified, and its time. Raises `Integrity`."""
    name, key_id = witness.name, witness.key_id
    ours = [line for n, k, line in note.lines_of(b"\n\n" + body) if (n, k) == (name, key_id)][:1]
    _, opened = note.open_witnessed(raw + "".join(ours).encode(), log, (witness,))
    if witness.vkey not in opened.times:
        raise note.refused("the witness's answer has no line by its own key")
    return ours[0], opened.times[witness.vkey]


def _size(answer: Answer) -> int | None:
    """The size that a witness says it is at, if it says one."""
    text = answer.body.decode("ascii", "replace").removesuffix("\n")
    fits = answer.kind == note.SIZE_TYPE and text.isascii() and text.isdigit() and len(text) < 20
    return int(text) if fits else None


def _refusal(standing: WitnessStanding, answer: Answer) -> WitnessStanding:
    why = {404: "it does not know this log", 403: "it knows another key of this log"}.get(answer.status)
    if why is not None:
        how = "follows its rotation, or adds its vkey" if answer.status == 403 else "adds the log's vkey"
        return _state(standing, "stranger", f"{why}: its operator {how}")
    return _state(standing, "silent", f"it answers with status {answer.status}")


def _state(standing: WitnessStanding, state: str, why: str) -> WitnessStanding:
    return msgspec.structs.replace(standing, state=state, why=why)


def _went_back(seen: int, size: int) -> str:
    return f"it has seen {seen} entries of this log, which has {size} now: it went back, as after an old backup"


def _forked(seen: int, size: int) -> str:
    return f"the {seen} entries that it has seen are no beginning of the {size} that the log has now: it was forked"
