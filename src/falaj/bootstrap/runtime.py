"""The distributions that steps run with: their list is kept as a blob, whose digest is what provenance calls the runtime."""

from __future__ import annotations

from importlib import metadata

import msgspec

from falaj.kernel.digests import canonical_json
from falaj.kernel.errors import FalajError
from falaj.lifecycle.evidence.documents.facts import Library
from falaj.storage.blobs.local import LocalBlobs


def runtime_list() -> bytes:
    """The installed distributions as sorted [name, version] pairs, in canonical JSON."""
    # Asked once for each, because a distribution reads its file for every answer.
    told = (d.metadata for d in metadata.distributions())
    return canonical_json(sorted({(m["Name"].lower(), m["Version"]) for m in told if "Name" in m}))


def libraries(blobs: LocalBlobs, runtime: str) -> tuple[Library, ...]:
    """What a runtime holds; empty when its list was not kept.

    A licence is what the distribution declares as an SPDX expression, and known only where that very version is
    installed now.
    """
    try:
        pairs = msgspec.json.decode(blobs.get(runtime), type=list[tuple[str, str]])
    except (FalajError, msgspec.DecodeError, UnicodeDecodeError):
        return ()
    declared = {(d.name.lower(), d.version): d.metadata for d in metadata.distributions() if d.name}
    return tuple(Library(name, version, _licence(declared.get((name, version)))) for name, version in pairs)


def _licence(told: metadata.PackageMetadata | None) -> str:
    return told["License-Expression"] if told is not None and "License-Expression" in told else ""
