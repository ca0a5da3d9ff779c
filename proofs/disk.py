"""A disk of 8 MB that fills up at every stage of a training: a clear error, and nothing lost.

    python proofs/disk.py [--step 100] [--from 100] [--to 2200]

For each amount of room left (KiB): a training on a full disk, the disk freed, the same training again, the log
verified. Needs to mount a tmpfs in a mount namespace of its own (`unshare -m`, or `unshare -rm`). Exits 1 when a command ends
otherwise than with 0 or a clear `disk_full`, when the second try does not succeed, or when the log does not verify.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from tests.badinput.disks import seen  # noqa: E402  # the paths come first
from tests.badinput.machine import made, private_mounts  # noqa: E402

_CLEAR = {"disk_full", "audit_not_written"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", type=int, default=100)
    parser.add_argument("--from", dest="first", type=int, default=100)
    parser.add_argument("--to", dest="last", type=int, default=2200)
    arguments = parser.parse_args()
    codes, faults = Counter[str](), []
    with tempfile.TemporaryDirectory() as folder:
        project, how = made(Path(folder) / "made"), private_mounts()
        for kib in range(arguments.first, arguments.last, arguments.step):
            found = seen(how, "once", Path(folder) / f"disk-{kib}", project, kib)
            full = found["full"]
            code = "done" if full["code"] == 0 else str((full["out"] or {}).get("code"))
            codes[code] += 1
            if (full["code"] and (full["code"] != 3 or code not in _CLEAR)) or "Traceback" in full["err"]:
                faults.append(f"{kib} KiB: {full}")
            if found["again"]["code"] or found["audit"]["code"] or found["kept"][0]["rows"] != 4243:
                faults.append(f"{kib} KiB, with room again: {found}")
    print("\n".join(faults), file=sys.stderr)
    told = ", ".join(f"{count} {code}" for code, count in sorted(codes.items()))
    print(f"a training with {arguments.first} to {arguments.last} KiB left: {told}; {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
