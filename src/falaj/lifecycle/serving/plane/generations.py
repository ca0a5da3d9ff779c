"""Keeps the newest good bundle in service.

A new bundle is read from `bundle.json`, verified, its releases loaded and warmed up, and only then put
in service, all at once. What is refused is reported and never served: a refused bundle leaves
everything as it was; a refused release leaves its model on the version that it had.

`last-good.json` holds the highest generation that was taken and the envelopes that what is served was
taken from. They are verified like new ones at the next start, so a data plane starts without a control
plane, and an older bundle is refused even after a restart.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from falaj.governance.signing.model_signature import verify_model_signature
from falaj.kernel.access import Action
from falaj.kernel.clock import Clock
from falaj.kernel.digests import sha256
from falaj.kernel.errors import Conflict, FalajError, Integrity, Invalid
from falaj.kernel.log import logger
from falaj.lifecycle.registry.model import Admission
from falaj.lifecycle.rollout.model import Route, TrafficPlan, check_plan, split
from falaj.lifecycle.serving.model import Bundle, Judged, LoadReport, Release
from falaj.lifecycle.serving.plane.files import replace_file
from falaj.lifecycle.serving.plane.loading import Loader, Version
from falaj.lifecycle.serving.plane.state import Model, Served, State, empty, online_keys, permits_of
from falaj.lifecycle.serving.plane.trips import Trips
from falaj.lifecycle.serving.plane.verify import Trust, check_admission, expiry, open_bundle, read_trust
from falaj.lifecycle.serving.plane.watching import Challenger, Latest, Watch

BUNDLE, LAST_GOOD, TRUST = "bundle.json", "last-good.json", "trust.json"
RETRY_SECONDS = 5.0
_KEPT = "kept"


class LastGood(msgspec.Struct, frozen=True):
    """`last-good.json`. `digest` is that of the payload of `generation`; `bundles` are DSSE envelopes, oldest first."""

    generation: int
    digest: str
    bundles: tuple[dict[str, Any], ...]


class Generations:
    """Owner of the current `State`. `state` may be read from any thread; the rest belongs to one."""

    def __init__(
        self,
        folder: Path,
        trust: Trust,
        key: X25519PrivateKey,
        loader: Loader,
        clock: Clock,
        actions: tuple[Action, ...],
    ) -> None:
        self._folder = folder
        self.trust = trust
        self._key = key
        self._loader = loader
        self._clock = clock
        self._actions = actions
        self._seen: tuple[int, int, int] | None = None
        self._trusted: tuple[int, int, int] | None = None
        self._retry_at = 0.0
        self._floor = (0, "")
        self._unsaved = False  # what is in service is not in last-good.json yet
        self._log = logger(__name__)
        self.trips = Trips(folder, clock)
        self.state: State = empty()
        self.refused_bundle = ""
        self.judged = Judged()
        self.on_online_keys: Callable[[tuple[bytes, ...]], None] = lambda _keys: None

    def start(self) -> None:
        """Take the last good bundles, then the one that lies there. Never raises: what is wrong is reported."""
        last = self._read_last_good()
        trusted = True
        for envelope in last.bundles if last else ():
            try:
                bundle, digest = open_bundle(envelope, self.trust)
                self.state = self._build(bundle, digest, envelope)
            except FalajError as e:
                trusted = e.code != "bad_signature"  # of the newest, which comes last
                self._log.error("last good bundle refused", code=e.code, reason=e.message)
        if last and trusted:
            self._floor = (last.generation, last.digest)
        self.poll()

    def poll(self) -> bool:
        """Look at `bundle.json` and `trust.json`; True when there was something to do. What failed for the disk's sake is
        tried again every few seconds: the bundle itself, releases whose blobs could not be read, `last-good.json`."""
        follows = self._follow_trust()
        seen = _seen(self._folder / BUNDLE)
        if seen is None:
            return follows
        retry = 0 < self._retry_at <= time.monotonic()
        if seen == self._seen and not retry and not follows:
            return False
        self._seen = seen
        self._retry_at, failed, lying = 0.0, False, Judged()
        try:
            raw = (self._folder / BUNDLE).read_bytes()
            lying = Judged(self.trust.digest, sha256(raw))
            self._take(raw)
            self.refused_bundle = ""
        except (FalajError, OSError) as e:
            self.refused_bundle = f"{e.code}: {e.message}" if isinstance(e, FalajError) else str(e)
            self._log.error("bundle refused", reason=self.refused_bundle)
            failed = isinstance(e, OSError)
        self.judged = lying  # last: who reads it meanwhile must not find an earlier answer beside it
        if failed or any(r.code == "blob_missing" for r in self.state.reports):
            self._retry_at = time.monotonic() + RETRY_SECONDS
        return True

    def _follow_trust(self) -> bool:
        """Look at `trust.json`; True when it changed. What it does not bear out any more is taken out of service at once.

        A trust root that cannot be read changes nothing, and is reported.
        """
        seen = _seen(self._folder / TRUST)
        if seen == self._trusted or seen is None:
            return False
        self._trusted = seen
        try:
            trust = read_trust(self._folder / TRUST)
        except FalajError as e:
            self._log.error("trust root refused", code=e.code, reason=e.message)
            return False
        if trust.environment != self.trust.environment:
            self._log.error("trust root refused", reason=f"it is {trust.environment}'s")
            return False
        self.trust = self._loader.trust = trust
        state = self.state
        models = {name: m for name, m in state.models.items() if self._borne_out(m)}
        gone = sorted(state.models.keys() - models.keys())
        last = self._read_last_good()
        if last is not None and not self._signed(last.bundles[-1]):
            self._floor = (0, "")  # who signed that generation is not trusted: neither is its number
        if gone:
            self.state = msgspec.structs.replace(state, models=models, digest="")
        self._log.info("trust root in force", environment=trust.environment, taken_out=gone)
        return True

    def _signed(self, envelope: dict[str, Any]) -> bool:
        """Whether a key that counts signed a bundle, whatever else is wrong with it."""
        try:
            open_bundle(envelope, self.trust)
        except FalajError as e:
            return e.code != "bad_signature"
        return True

    def _borne_out(self, model: Model) -> bool:
        """Whether the bundle that a model was taken from, and each version of it that serves, hold by the present trust."""
        served = {r.version.digest for r in (*model.routes, *model.shadows)}
        try:
            bundle, _ = open_bundle(model.envelope, self.trust)
            for release in (r for r in bundle.releases if r.digest in served):
                admission = check_admission(release, self.trust, self._clock.now())
                verify_model_signature(release.signature, admission.files, self.trust.model, release.signed_at)
        except FalajError as e:
            self._log.error("taken out of service", model=model.name, code=e.code, reason=e.message)
            return False
        return True

    def expire(self) -> bool:
        """Take versions out whose admission has expired; True when there were some."""
        now = self._clock.now()
        state = self.state
        gone = {r.version.digest for r in state.served() if now >= r.expires_at}
        if not gone:
            return False
        models = {name: m.without(gone) for name, m in state.models.items()}
        reports = tuple(_expired(r) if r.digest in gone else r for r in state.reports)
        self.state = msgspec.structs.replace(state, models=models, reports=reports)
        self._log.error("admission expired", digests=sorted(gone))
        return True

    def _take(self, raw: bytes) -> None:
        """Verify, compare generations, build, put in service, remember.

        Raises `FalajError` without any change, and `OSError` when what is in service now could not be remembered.
        """
        try:
            envelope = msgspec.json.decode(raw, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            raise Integrity(
                "the bundle is not JSON", hint="publish it again with `falaj up`", code="bad_envelope"
            ) from e
        bundle, digest = open_bundle(envelope, self.trust)
        floor, taken = self._floor
        if bundle.generation < max(floor, 1):
            raise Conflict(
                f"generation {bundle.generation} is older than {floor}, which was taken before",
                hint="publish a new generation; an old bundle is never taken again",
                code="older_generation",
            )
        if bundle.generation == floor and digest != taken:
            raise Conflict(
                f"another bundle of generation {floor} was taken before",
                hint="publish a new generation with every change",
                code="generation_reused",
            )
        if bundle.killed:  # at once: loading what comes in their place may take a while
            self.state = self.state.killing(bundle.killed)
        if digest == self.state.digest and not any(r.state == "refused" for r in self.state.reports):
            if self._unsaved:
                self._write_last_good(envelope)
            return
        self.state = self._build(bundle, digest, envelope)
        self._floor = (bundle.generation, digest)
        self._unsaved = True
        self._write_last_good(envelope)
        self._log.info("bundle in service", generation=bundle.generation, models=sorted(self.state.models))

    def _build(self, bundle: Bundle, digest: str, envelope: dict[str, Any]) -> State:
        """The state that a bundle asks for, as far as its releases hold."""
        permits = permits_of(bundle.access, self._key, self._actions, bundle.environment)
        online = online_keys(bundle.access, self._key)
        for plan in bundle.plans:
            check_plan(plan)
        if len({p.model for p in bundle.plans}) != len(bundle.plans):
            raise Invalid("a model has two traffic plans", hint="publish one plan for each model", code="bad_plan")
        self.on_online_keys(online)
        now = self._clock.now()
        loaded: dict[str, tuple[Version, Admission]] = {}
        reports = [self._load(release, loaded, now) for release in bundle.releases]
        models: dict[str, Model] = {}
        killed = {k.model: k for k in bundle.killed}
        for plan in bundle.plans:
            if plan.model in killed and [r.digest for r in plan.routes] != [killed[plan.model].digest]:
                continue  # of a killed model nothing else than its fallback answers, whatever else is planned
            model = self._planned(plan, loaded, bundle.generation, envelope)
            if model is not None:
                models[plan.model] = model
                continue
            kept = self.state.models.get(plan.model)
            if kept is not None and plan.model not in killed:
                models[plan.model] = kept
                reports += [_kept(r.version, kept.generation, bundle.generation) for r in (*kept.routes, *kept.shadows)]
        planned = tuple(p.model for p in bundle.plans)
        return State(bundle.generation, digest, bundle.issued_at, permits, models, tuple(reports), planned, killed)

    def _load(self, release: Release, loaded: dict[str, tuple[Version, Admission]], now: datetime) -> LoadReport:
        started = time.perf_counter()
        try:
            admission = check_admission(release, self.trust, now)
            version = self._in_service(release) or self._loader.load(release, admission)
        except FalajError as e:
            self._log.error(
                "release refused", version=release.alias, digest=release.digest, code=e.code, reason=e.message
            )
            return LoadReport(release.digest, release.alias, "refused", e.code, e.message, e.hint)
        loaded[release.digest] = (version, admission)
        return LoadReport(release.digest, release.alias, "loaded", seconds=round(time.perf_counter() - started, 3))

    def _in_service(self, release: Release) -> Version | None:
        for route in self.state.served():
            if route.version.digest == release.digest and route.version.alias == release.alias:
                return route.version
        return None

    def _planned(
        self, plan: TrafficPlan, loaded: dict[str, tuple[Version, Admission]], generation: int, envelope: dict[str, Any]
    ) -> Model | None:
        """The model as planned; None when a version with a share of the traffic was refused or is another model's.
        A shadow that was refused is left out."""
        usable = {
            digest: (version, expiry(admission))
            for digest, (version, admission) in loaded.items()
            if version.contract.model == plan.model
        }
        planned = split(plan.routes)
        if any(r.weight and r.digest not in usable for r in planned):
            return None
        challenged = any(r.role != "stable" for r in plan.routes)
        latest = Latest() if challenged and plan.guard and plan.guard.max_score_shift is not None else None

        def served(route: Route) -> Served | None:
            if route.digest not in usable:
                return None
            version, expires_at = usable[route.digest]
            watch = self._watch(plan, route, version, generation)
            return Served(version, route.weight, expires_at, route.role, watch)

        places = tuple(served(r) for r in planned)
        shadows = tuple(served(r) for r in plan.routes if r.role == "shadow")
        routes = tuple(r for r in places if r is not None)
        weights = tuple(r.weight for r in planned)
        mirrored = tuple(r for r in shadows if r is not None)
        return Model(plan.model, routes, generation, envelope, places, weights, mirrored, latest)

    def _watch(self, plan: TrafficPlan, route: Route, version: Version, generation: int) -> Watch | None:
        """What watches a challenger; its window goes on if it was one before under the same guard."""
        if route.role == "stable":
            return None
        model = self.state.models.get(plan.model)
        before = (*model.routes, *model.shadows) if model else ()
        same = next((r.watch for r in before if r.version.digest == route.digest), None)
        return self.trips.watch(
            Challenger(plan.model, version.alias, route.digest, route.role, generation), plan.guard, same
        )

    def _read_last_good(self) -> LastGood | None:
        try:
            return msgspec.json.decode((self._folder / LAST_GOOD).read_bytes(), type=LastGood)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as e:
            self._log.error("last-good.json cannot be read", reason=str(e))
            return None

    def _write_last_good(self, newest: dict[str, Any]) -> None:
        """Remember the envelopes behind what is served; survives a power cut. Several workers may write."""
        older = {m.generation: m.envelope for m in self.state.models.values() if m.generation < self.state.generation}
        bundles = (*(older[g] for g in sorted(older)), newest)
        last = LastGood(self.state.generation, self.state.digest, bundles)
        with (self._folder / "last-good.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            present = self._read_last_good()
            if present is None or present.generation <= last.generation:
                replace_file(self._folder / LAST_GOOD, msgspec.json.encode(last), sync=True)
        self._unsaved = False


def _seen(path: Path) -> tuple[int, int, int] | None:
    """By what a file is known again; None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def _kept(version: Version, since: int, refused: int) -> LoadReport:
    return LoadReport(
        version.digest,
        version.alias,
        "loaded",
        _KEPT,
        f"kept from generation {since}: generation {refused} plans a version that was refused",
        "mend what was refused, or publish a plan for this version",
    )


def _expired(report: LoadReport) -> LoadReport:
    return LoadReport(
        report.digest,
        report.alias,
        "refused",
        "admission_expired",
        "its admission has expired: it answers no more",
        f"admit and publish the version again: `falaj rollout start {report.alias} --at-once`",
    )
