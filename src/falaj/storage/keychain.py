"""The keys that this process was handed, by the folder whose bytes they open.

Whoever opens a home, starts a step or takes a bundle says once which keys hold below which folder; whoever reads or writes
a store asks by the path that it has anyway. A path below no such folder has no keys: nothing is written in clear for want
of one, and nothing sealed is read. Of several folders the nearest counts.

Secrets live here for as long as the process does, and reach another one over standard input only (`dump`).
"""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from falaj.kernel.errors import Integrity


class Keys(msgspec.Struct, frozen=True, omit_defaults=True):
    """Keys of stores, 32 bytes each, the one that new bytes are written under first; empty where none was handed over.

    `journal` are X25519 private keys that open the data keys of segments; `reader` is the public half of the first, which is
    all that a writer needs.
    """

    lake: tuple[bytes, ...] = ()
    online: tuple[bytes, ...] = ()
    journal: tuple[bytes, ...] = ()
    reader: bytes = b""
    parcels: tuple[bytes, ...] = ()
    flows: tuple[bytes, ...] = ()


KEYCHAIN = "keychain"
"""How the secret of a step is called that `take` understands."""
_NONE = Keys()
_held: dict[Path, Keys] = {}


def fresh() -> Keys:
    """New keys of every store, for what lies in no home: they are nowhere else."""
    journal = X25519PrivateKey.generate()
    lake, online, parcels, flows = ((secrets.token_bytes(32),) for _ in range(4))
    return Keys(lake, online, (journal.private_bytes_raw(),), journal.public_key().public_bytes_raw(), parcels, flows)


def hold(folder: Path, keys: Keys) -> None:
    """Let `keys` count below `folder` from now on, instead of any that did."""
    _held[folder.absolute()] = keys


def keys_of(path: Path) -> Keys:
    """The keys that count for a path; none where it lies below no folder that is held."""
    here = path.absolute()
    return next((_held[p] for p in (here, *here.parents) if p in _held), _NONE)


def dump(keys: Keys, *folders: Path) -> str:
    """As text, for a process that is to hold them below these folders."""
    return msgspec.json.encode((keys, folders), enc_hook=str).decode()


def take(text: str) -> None:
    """Hold what another process dumped."""
    keys, folders = msgspec.json.decode(text, type=tuple[Keys, list[str]])
    for folder in folders:
        hold(Path(folder), keys)


def not_held(what: str) -> Integrity:
    """The error of somebody who needs a key of a store that was not handed over."""
    return Integrity(
        f"{what} is encrypted, and this process was handed no key that opens it",
        hint="open the home that it belongs to; keys that were lost come back with `falaj keys restore`",
        code="store_key_missing",
    )
