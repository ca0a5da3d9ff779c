"""Build, sign and publish bundles, and see what the data plane made of them.

Publishing is a projection: the SQL head says which generation holds, the file is written after the
commit and written again until the data plane shows it.
"""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from falaj.governance.changes.inventory import REFUSE, VERSION
from falaj.governance.door import Done, Door, Intent
from falaj.governance.identity.verify import KnownToken
from falaj.governance.policy.decide import Layers
from falaj.governance.signing.sealing import seal_to, unseal
from falaj.governance.signing.signer import EnvelopeSigner
from falaj.kernel.access import SYSTEM, Resource
from falaj.kernel.clock import iso
from falaj.kernel.digests import canonical_json, sha256
from falaj.kernel.errors import Conflict, FalajError, Integrity, Unavailable
from falaj.kernel.locks import held
from falaj.kernel.log import logger
from falaj.lifecycle.rollout.model import TrafficPlan, all_to
from falaj.lifecycle.serving.model import (
    BLOB_KEY,
    BUNDLE_PUBLISH,
    BUNDLE_TYPE,
    LOAD_REFUSED,
    ONLINE_KEY,
    PEPPER,
    Access,
    Bundle,
    Judged,
    Killed,
    LoadReport,
    PlaneStatus,
    Release,
    SealedBlob,
    Target,
    TrustFile,
)
from falaj.lifecycle.serving.plane.files import replace_file
from falaj.lifecycle.serving.ports import Admissions, Blobs, BundleStore, Kills, NoKills, Plans, Tokens
from falaj.storage.sql.database import Database, Tx

_log = logger(__name__)


class Ports(msgspec.Struct, frozen=True):
    """What serving works with."""

    database: Database
    store: BundleStore
    plans: Plans
    admissions: Admissions
    blobs: Blobs
    tokens: Tokens
    signer: EnvelopeSigner
    pepper: bytes
    policy: Callable[[], Layers]
    kills: Kills = NoKills()
    online: Callable[[], tuple[bytes, ...]] = tuple
    projects: Callable[[], dict[str, str]] = dict  # model → the project that it belongs to


class ServingService:
    """Bundles: what a data plane may load, signed, with who gets which traffic."""

    def __init__(self, door: Door, ports: Ports, target: Target) -> None:
        self._door = door
        self._p = ports
        self.target = target
        self._publishing = threading.Lock()
        self._projecting = threading.Lock()
        self._told: set[tuple[str, int]] = set()

    def publish(self, on_behalf_of: str, operation_id: str = "") -> int:
        """Make the next bundle from the present plans, admissions, tokens and policy; returns its generation.

        The signed bytes are kept before the commit, so a repeated operation projects the very same ones.
        """
        environment = self.target.environment
        with self._publishing:  # from reading on: a later generation must never hold an earlier plan
            plans, releases, killed = self._planned()
            access = self._access(self.target, self._p.tokens.known_tokens())
            now = iso(self._door.clock.now())
            generation = self.generation() + 1
            bundle = Bundle(generation, environment, now, plans, releases, access, killed)
            envelope = self._p.blobs.put(self._signed(bundle))

            def do(tx: Tx) -> Done[dict[str, Any]]:
                if self._p.store.newest(tx, environment) + 1 != generation:
                    raise Conflict("another bundle was published meanwhile", hint="repeat it", code="changed_meanwhile")
                self._p.store.add(tx, environment, generation, envelope, now)
                return Done(
                    {"generation": generation, "envelope": envelope}, {"generation": generation, "bundle": envelope}
                )

            detail = {"releases": [r.alias for r in releases], "tokens": len(access.tokens)}
            if killed:
                detail["killed"] = {k.model: k.kind for k in killed}
            context = {"on_behalf_of": on_behalf_of}
            intent = Intent(SYSTEM, BUNDLE_PUBLISH, Resource("DataPlane", environment), operation_id, context, detail)
            done = self._door.change(intent, do)
            self.project()
        return int(done["generation"])

    def _planned(self) -> tuple[tuple[TrafficPlan, ...], tuple[Release, ...], tuple[Killed, ...]]:
        """The plans with the fallbacks of killed models in them, what those need, and the kills.

        A fallback that cannot be served becomes a refusal: nothing may keep a kill from being published.
        """
        killed = self._p.kills.killed()
        plans = [p for p in self._p.plans.plans() if p.model not in killed]
        releases = [self.release(r.digest, self.target) for plan in plans for r in plan.routes]
        for model, kill in killed.items():
            if kill.kind != VERSION:
                continue
            try:
                releases.append(self.release(kill.digest, self.target))
                plans.append(all_to(model, kill.digest))
            except FalajError as e:
                _log.error("fallback_not_served", model=model, digest=kill.digest, code=e.code, reason=e.message)
                killed[model] = Killed(model, REFUSE)
        return tuple(plans), tuple(releases), tuple(killed.values())

    def project(self) -> None:
        """Write the newest bundle where the data plane reads it, unless it lies there already."""
        path = Path(self.target.folder) / "bundle.json"
        with self._projecting:  # from reading on: what one thread found newest must not come after what another did
            newest = self._p.database.read(lambda tx: self._p.store.envelope(tx, self.target.environment))
            if newest and not (path.exists() and sha256(path.read_bytes()) == newest):
                replace_file(path, self._p.blobs.get(newest), sync=True)

    def newest(self) -> Bundle | None:
        """The newest bundle as it was published; None before the first."""
        newest = self._p.database.read(lambda tx: self._p.store.envelope(tx, self.target.environment))
        if not newest:
            return None
        envelope = msgspec.json.decode(self._p.blobs.get(newest), type=dict[str, Any])
        return msgspec.json.decode(base64.b64decode(envelope["payload"]), type=Bundle)

    def readable_with(self, reader: X25519PrivateKey) -> bool:
        """Whether the newest bundle can be read with this key and opens what is in the online store: a data plane whose
        key is new needs another one, and so does everyone when the store has a new key."""
        bundle = self.newest()
        if bundle is None or len(bundle.access.online) != len(self._p.online()):
            return False
        try:
            unseal(reader, bundle.access.pepper, PEPPER)
        except Integrity:
            return False
        return True

    def publish_private(self, target: Target, digest: str, tokens: list[KnownToken]) -> None:
        """A bundle with one admitted version, for a private data plane that measures it."""
        release = self.release(digest, target)
        plans = (all_to(release.model, digest),)
        access = self._access(target, tokens)
        bundle = Bundle(1, target.environment, iso(self._door.clock.now()), plans, (release,), access)
        replace_file(Path(target.folder) / "bundle.json", self._signed(bundle), sync=True)

    def generation(self) -> int:
        """The newest published generation; 0 before the first."""
        return self._p.database.read(lambda tx: self._p.store.newest(tx, self.target.environment))

    def workers(self, target: Target | None = None) -> list[PlaneStatus]:
        """What the live workers of a data plane say of themselves; empty when none runs."""
        return live_workers(Path((target or self.target).folder))

    def settle(self, generation: int, seconds: float, target: Target | None = None) -> list[PlaneStatus]:
        """Wait until every live worker has taken or refused `generation` by the trust root that lies there now, or the time
        is over; returns the workers."""
        deadline = time.monotonic() + seconds
        folder = Path((target or self.target).folder)
        while True:
            workers = self.workers(target)
            lying = _lying(folder)
            if all(w.answered(generation, lying) for w in workers) or time.monotonic() >= deadline:
                return workers
            time.sleep(0.02)

    def behind(self, generation: int, workers: list[PlaneStatus]) -> dict[str, str]:
        """Of workers that `settle` returned, those that have not taken `generation`, each with why."""
        late = _late(workers, generation, Path(self.target.folder))
        return {w.worker: why or f"it still has generation {w.generation}" for w, why in late}

    def observe(self, generation: int, digest: str, seconds: float, target: Target | None = None) -> LoadReport | None:
        """Wait until every live worker has taken `generation`; returns its report of `digest`.

        None when no data plane runs. Raises `Unavailable` when it does not follow in time.
        """
        workers = self.settle(generation, seconds, target)
        if not workers:
            return None
        late = _late(workers, generation, Path((target or self.target).folder))
        refused = [why for _, why in late if why]
        if refused:
            raise Integrity(
                f"the data plane refused the bundle: {refused[0]}",
                hint="see the data plane's log in the home's run folder",
                code="bundle_refused",
            )
        reports = [r for w in workers for r in w.releases if r.digest == digest]
        if not reports or late:
            raise Unavailable(
                f"the data plane has not taken generation {generation} after {seconds:g} s",
                hint="`falaj status` shows it; it serves what it had before",
                code="plane_behind",
            )
        return next((r for r in reports if r.state != "loaded"), reports[0])

    def record_refusal(self, report: LoadReport, generation: int, on_behalf_of: str) -> None:
        """Audit that a data plane refused to load a version; once for a version in a generation."""
        if (report.digest, generation) in self._told:
            return
        self._told.add((report.digest, generation))
        intent = Intent(
            SYSTEM, LOAD_REFUSED, Resource("ModelVersion", report.alias), context={"on_behalf_of": on_behalf_of}
        )
        self._door.refuse(intent, Integrity(report.reason, hint=report.hint, code=report.code))

    def release(self, digest: str, target: Target) -> Release:
        """A version as it is handed to whoever holds the target's key. Raises `Integrity` unless it was admitted there."""
        found = self._p.admissions.admission(digest, target.environment)
        if found is None:
            raise Integrity(
                f"{digest} is in the traffic plan but was never admitted to {target.environment}",
                hint="admit it: approve the version again",
                code="not_admitted",
            )
        admission, envelope = found
        reader = _reader(target)
        files = tuple(
            SealedBlob(f.path, f.sha256, seal_to(reader, self._p.blobs.data_key(f.sha256), BLOB_KEY + f.sha256))
            for f in admission.files
        )
        signature, signed_at = self._p.admissions.signature_of(digest)
        waiver = self._p.admissions.waiver_of(admission)
        return Release(digest, admission.alias, admission.model, files, signature, envelope, waiver, signed_at)

    def _access(self, target: Target, tokens: list[KnownToken]) -> Access:
        policy, pepper = self._p.policy(), seal_to(_reader(target), self._p.pepper, PEPPER)
        online = tuple(seal_to(_reader(target), key, ONLINE_KEY) for key in self._p.online())
        return Access(tuple(tokens), policy.whole, pepper, policy.platform, online, self._p.projects())

    def _signed(self, bundle: Bundle) -> bytes:
        return canonical_json(self._p.signer.sign(BUNDLE_TYPE, canonical_json(bundle)))


def live_workers(folder: Path) -> list[PlaneStatus]:
    """The status files below a data plane's folder whose processes live."""
    found = []
    for path in sorted((folder / "status").glob("*.json")):
        try:
            status = msgspec.json.decode(path.read_bytes(), type=PlaneStatus)
            os.kill(status.pid, 0)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            continue
        if held(folder / "status" / f"{status.worker}.lock"):  # else the id is a dead worker's, or somebody else's now
            found.append(status)
    return found


def _late(workers: list[PlaneStatus], generation: int, folder: Path) -> list[tuple[PlaneStatus, str]]:
    """The workers that have not taken a generation, each with why it refuses what lies there now; empty while it has not looked."""
    lying = _lying(folder)
    late = (w for w in workers if not w.has(generation, lying))
    return [(w, w.refused_bundle if w.judged == lying else "") for w in late]


def _lying(folder: Path) -> Judged:
    """What a data plane's workers are to judge now; nothing where a file of it is missing."""
    try:
        return Judged(sha256((folder / "trust.json").read_bytes()), sha256((folder / "bundle.json").read_bytes()))
    except OSError:
        return Judged()


def prepare_folder(folder: Path, trust: TrustFile) -> None:
    """Give a data plane its trust root: which environment it is, and whose signatures count."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("bundle", "trust"):
        for left in folder.glob(f".{name}.json.*"):  # by a process that was killed while it wrote
            left.unlink(missing_ok=True)
    write_trust(folder, trust)


def write_trust(folder: Path, trust: TrustFile) -> None:
    """Write the trust root of a data plane, which follows while it runs."""
    replace_file(folder / "trust.json", msgspec.json.encode(trust), sync=True)


def _reader(target: Target) -> X25519PublicKey:
    key = load_pem_public_key(target.key.encode())
    if not isinstance(key, X25519PublicKey):
        raise Integrity(
            "the data plane's key has the wrong type",
            hint="remove its folder and start it again",
            code="plane_key_wrong",
        )
    return key
