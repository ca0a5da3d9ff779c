"""Where steps keep temporary files: in memory, for what stands there is in clear.

`<home>/tmp` is a link to a folder of its own below a file system that lives in memory. It goes with the process that
opened the home; what a killed one left is removed when the home is opened again, and by the machine when it ends. Memory
that is swapped out is on a disk: encrypt the swap space, or have none.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from falaj.kernel.errors import Unavailable

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it, which nobody else can enter
_PREFIX, _OWNER = "falaj-", ".home"
_IN_MEMORY = ("tmpfs", "ramfs")


def lay_out(link: Path, wanted: str) -> None:
    """Let `link` be an empty folder for temporary files: below `wanted`, or in memory when that is empty.

    Raises `Unavailable` on a machine that has no such file system.
    """
    remove(link)
    base = Path(wanted) if wanted else MEMORY
    if not (base.is_dir() if wanted else _is_memory(base)):
        raise Unavailable(
            f"there is no folder {base} for temporary files" if wanted else f"{base} is no file system in memory",
            hint="steps keep rows in clear while they work: name a folder in memory or on an encrypted disk as FALAJ_SCRATCH",
            code="no_scratch_folder",
        )
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    (folder / _OWNER).write_bytes(os.fsencode(link.absolute()))
    link.symlink_to(folder, target_is_directory=True)


def remove(link: Path) -> None:
    """Remove the folder and what is in it; one that belongs to another home stays."""
    if not link.is_symlink():
        shutil.rmtree(link, ignore_errors=True)  # of 0.1
        return
    folder = link.readlink()
    link.unlink()
    try:
        own = folder.name.startswith(_PREFIX) and (folder / _OWNER).read_bytes() == os.fsencode(link.absolute())
    except OSError:
        own = False
    if own:
        shutil.rmtree(folder, ignore_errors=True)


def _is_memory(folder: Path) -> bool:
    """Whether a folder is the root of a file system in memory that this process may write."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines()]
    except OSError:
        return False
    kinds = [m[2] for m in mounts if m[1] == str(folder)]
    return bool(kinds) and kinds[-1] in _IN_MEMORY and os.access(folder, os.W_OK | os.X_OK)
