"""Of everything that speaks for a version exactly one combination lets it in: its own, whole and unchanged.

    python proofs/admission.py [--sample N] [--seed S]

A real registry with two versions, each with its own signed evidence, model signature, admission to staging, rehearsal and approval. Of
one of them every item is its own, not there, or the other version's valid one in its place, in all 3⁹ combinations: the registry
admits one to production. The same for a release as a data plane takes it (3⁵ combinations, in bundles that the right key signed).

Then every field of every document (statements of each gate and of the build, the model signature, both admissions, the
rehearsal, the bundle) is left out, emptied, changed, and replaced by the other version's; each document is signed by every other
key; and fields that must fit are changed in documents that the right key signs. None may be let in; only what no signature covers
by its format's own rules (DSSE's `keyid`, Sigstore's `verificationMaterial`, `signed_at`) makes no difference.

Negative controls: with one check switched off, more than one combination must be let in; each of eight checks once.

Exits 1 when anything else is let in, when the one combination is not, or when a control stays green.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "proofs"), str(ROOT)]

import _admission as items  # noqa: E402  # the paths come first
import msgspec  # noqa: E402
from _admission import ABSENT, ITEMS, OTHER, OWN, PLANE_ITEMS, VALUES, Plane, Registry, hint  # noqa: E402

from falaj.governance.signing.signer import EnvelopeSigner  # noqa: E402
from falaj.kernel.environments import PRODUCTION, STAGING  # noqa: E402
from falaj.kernel.log import configure  # noqa: E402
from falaj.lifecycle.evidence import service as evidence  # noqa: E402
from falaj.lifecycle.registry import model as rules  # noqa: E402
from falaj.lifecycle.registry import service as registry_service  # noqa: E402
from falaj.lifecycle.registry import statements  # noqa: E402
from falaj.lifecycle.registry.model import ModelVersion  # noqa: E402
from falaj.lifecycle.serving.plane import loading, verify  # noqa: E402
from tests.lifecycle.house import NAMES, House, house  # noqa: E402
from tests.lifecycle.serving.plane.fleet import flight_contract  # noqa: E402

T = TypeVar("T")
Case = tuple[str, Callable[[], bool]]


def sampled(found: Sequence[T], options: argparse.Namespace) -> list[T]:
    """All, or so many of them, chosen by the seed."""
    if not options.sample or options.sample >= len(found):
        return list(found)
    return random.Random(options.seed).sample(found, options.sample)


def combinations(names: Sequence[str], options: argparse.Namespace) -> list[dict[str, str]]:
    """Every combination of what an item may be, the true one first."""
    whole, *rest = (dict(zip(names, chosen, strict=True)) for chosen in itertools.product(VALUES, repeat=len(names)))
    single = [c for c in rest if sum(v != OWN for v in c.values()) == 1]
    return [whole, *single, *sampled([c for c in rest if c not in single], options)]


def registry_mutants(registry: Registry) -> Iterator[Case]:
    """Every document that the registry reads, changed in every field."""
    home = registry.house
    right = {"admission": STAGING, "rehearsal": STAGING}
    for item in (*NAMES, "build", "admission", "rehearsal"):
        own, other = registry.document(item), registry.document(item, other=True)
        name = right.get(item, "attestation")
        changed = [*items.unsigned(own, other), *items.signed_by_others(home, own, name)]
        if item != "build":
            signer = EnvelopeSigner(home.plane.keys.of(name) if item in right else home.plane.keys.attestation)
            changed += items.binding(own, other, signer, item if item in right else "gate")
        for where, document in changed:
            yield f"{item}: {_said(where)}", lambda item=item, document=document: registry.admits_with(item, document)  # type: ignore[misc]
    own, other = registry.document("signature"), registry.document("signature", other=True)
    for where, document in signature_mutants(own, other):
        yield f"signature: {_said(where)}", lambda document=document: registry.admits_with("signature", document)  # type: ignore[misc]


def signature_mutants(own: Any, other: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """A model signature with one field changed: of the bundle, of the envelope in it, of what that holds."""
    yield from items.mutants(own, other)
    inner = items.unsigned(own["dsseEnvelope"], other["dsseEnvelope"])
    yield from ((("dsseEnvelope", *where), {**own, "dsseEnvelope": changed}) for where, changed in inner)


def plane_mutants(plane: Plane, home: House) -> Iterator[Case]:
    """Every field of a bundle: its envelope, its release, and the documents in that."""
    whole, release, other = (msgspec.to_builtins(x) for x in (plane.bundle, plane.own, plane.other))
    signed = plane.signer.sign(items.BUNDLE_TYPE, items.canonical_json(whole))
    alien = plane.signer.sign(items.BUNDLE_TYPE, items.canonical_json({**whole, "releases": [other]}))
    for where, document in (*items.unsigned(signed, alien), *items.signed_by_others(home, signed, PRODUCTION)):
        yield f"bundle: {_said(where)}", lambda document=document: plane.takes_envelope(document)  # type: ignore[misc]
    for where, document in items.mutants(release, other):
        if where[0] not in ("admission", "signature") and not items.same(release, document, where):
            yield f"release: {_said(where)}", lambda document=document: plane.takes(document)  # type: ignore[misc]
    admission = release["admission"]
    changed = [*items.unsigned(admission, other["admission"]), *items.signed_by_others(home, admission, PRODUCTION)]
    changed += items.binding(admission, other["admission"], plane.signer, "admitted")
    for where, document in changed:
        given = {**release, "admission": document}
        yield f"admission in the bundle: {_said(where)}", lambda given=given: plane.takes(given)  # type: ignore[misc]
    for where, document in signature_mutants(release["signature"], other["signature"]):
        given = {**release, "signature": document}
        yield f"signature in the bundle: {_said(where)}", lambda given=given: plane.takes(given)  # type: ignore[misc]


def _said(where: tuple[str | int, ...]) -> str:
    return ".".join(map(str, where)) + (" (a hint)" if hint(where) else "")


def controls(registry: Registry, plane: Plane) -> dict[str, tuple[Any, str, Any, Callable[[], bool]]]:
    """What is switched off, and something that must then be let in."""
    release, other = msgspec.to_builtins(plane.own), msgspec.to_builtins(plane.other)
    own = dict.fromkeys(ITEMS, OWN)

    def silent(*_: Any, **__: Any) -> None:
        """A check that checks nothing."""

    def believed(envelope: dict[str, Any], *_: Any, **__: Any) -> bytes:
        return items.canonical_json(items.payload_of(envelope))

    known = registry.version.evidence
    marked = items.payload_of(release["admission"])
    marked["predicate"]["falaj"]["approvals"] = ["somebody"]
    bundle = plane.signer.sign(items.BUNDLE_TYPE, items.canonical_json(msgspec.to_builtins(plane.bundle)))
    older = {**items.payload_of(bundle), "generation": 1}
    return {
        "model signature": (registry_service, "verify_model_signature", silent, lambda: registry.admits({**own, "signature": OTHER})),
        "files": (registry_service, "manifest_digest", lambda _: registry.version.digest, lambda: registry.admits({**own, "files": OTHER, "signature": OTHER})),
        "evidence set": (evidence, "evidence_digest", lambda _: known, lambda: registry.admits({**own, "build": ABSENT})),
        "staging": (rules, "_check_before", silent, lambda: registry.admits({**own, "admission": ABSENT, "rehearsal": ABSENT})),
        "approvals": (rules, "_check_approvals", silent, lambda: registry.admits({**own, "approval": OTHER})),
        "signature in the bundle": (loading, "verify_model_signature", silent, lambda: plane.takes({**release, "signature": other["signature"]})),
        "admission in the bundle": (statements, "verify_envelope", believed, lambda: plane.takes({**release, "admission": items.with_payload(release["admission"], marked)})),
        "bundle": (verify, "verify_envelope", believed, lambda: plane.takes_envelope(items.with_payload(bundle, older))),
    }  # fmt: skip


@contextmanager
def off(module: Any, name: str, instead: Any) -> Iterator[None]:
    """A check switched off, for the time of the block."""
    before = getattr(module, name)
    setattr(module, name, instead)
    try:
        yield
    finally:
        setattr(module, name, before)


def another(home: House) -> ModelVersion:
    """Another approved version of the same model; each of its files is another one too."""
    contract = msgspec.structs.replace(flight_contract(), classes=("early", "late"))
    version = home.packaged(contract=contract)
    home.measured(version)
    home.plane.registry.register(version.digest, home.author.name, home.operation())
    staged = home.staged(version)
    home.plane.changes.decide(home.risk, home.plane.registry.subject(staged), True, "evidence read")
    home.plane.registry.move(version.digest, "approved", "", home.risk.name, home.operation())
    return home.now(version)


def prove(home: House, scratch: Path, options: argparse.Namespace) -> int:
    began = time.monotonic()
    version, other = home.approved(), another(home)
    registry = Registry(home, version, other)
    wrong: list[str] = []

    def combined(names: Sequence[str], admits: Callable[[dict[str, str]], bool], where: str) -> tuple[int, int]:
        chosen = combinations(names, options)
        let_in = [c for c in chosen if admits(c)]
        wrong.extend(f"{where}: let in with {c}" for c in let_in if c != chosen[0])
        wrong.extend([] if chosen[0] in let_in else [f"{where}: not let in with everything"])
        return len(let_in), len(chosen)

    def changed(cases: Iterator[Case]) -> tuple[int, int]:
        refused, hints = 0, 0
        for what, let_in in sampled(list(cases), options):
            if not let_in():
                refused += 1
            elif "(a hint)" in what:
                hints += 1
            else:
                wrong.append(f"let in: {what}")
        return refused, hints

    admitted, tried = combined(ITEMS, registry.admits, "registry")
    refused, hints = changed(registry_mutants(registry))
    registry.restore()
    plane = Plane(home, version, other, scratch)
    loaded, offered = combined(PLANE_ITEMS, lambda c: plane.takes(plane.release(c)), "data plane")
    refused_there, hints_there = changed(plane_mutants(plane, home))
    seen = 0
    cases = controls(registry, plane)
    for name, (module, attribute, instead, let_in) in cases.items():
        with off(module, attribute, instead):
            told = let_in()
        seen += told
        wrong.extend([] if told else [f"control: without the check of {name} nothing more is let in"])
    for line in wrong[:30]:
        print(line, file=sys.stderr)
    print(
        f"admission: {admitted} of {tried:,} combinations admitted by the registry, {loaded} of {offered} loaded by a data"
        f" plane; {refused + refused_there:,} changed documents refused, {hints + hints_there} changed in what is only a hint;"
        f" checks switched off: {seen} of {len(cases)} told ({time.monotonic() - began:.0f} s)"
    )
    return 1 if wrong or (admitted, loaded) != (1, 1) else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sample", type=int, default=0, help="so many combinations and so many changes of each kind")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="falaj-proof-") as root, (Path(root) / "log").open("w") as log:
        with redirect_stderr(log):
            configure("proof", "error")  # what is refused is logged, and thousands are
        (Path(root) / "scratch").mkdir()
        with house(Path(root)) as home:
            return prove(home, Path(root) / "scratch", options)


if __name__ == "__main__":
    sys.exit(main())
