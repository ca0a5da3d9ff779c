"""Ctrl-C at random moments of every long command, in a terminal: nothing untidy, nothing left running, nothing lost.

    python proofs/interrupt.py [--moments 60] [--seed 1]

Makes a project, then interrupts loads, trainings, starts, predictions and looks, once or three times in a row. Exits 1
when a command ends otherwise than with 0 or 130, shows a traceback, hides the cursor, leaves a process, or when the
audit log does not verify or a loaded row is gone at the end.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from tests.badinput.interrupts import interrupt  # noqa: E402  # the paths come first
from tests.badinput.machine import MODEL, ROW, made  # noqa: E402
from tests.entrypoints.cli.shell import Shell, cleaned  # noqa: E402

LONGEST = {
    ("ingest", "flights"): 3.0,
    ("features", "materialize"): 3.0,
    ("train", MODEL): 9.0,
    ("up",): 4.0,
    ("predict", MODEL, "--data", "row.json"): 2.0,
    ("audit", "verify"): 2.0,
    ("apply",): 3.0,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    chance, codes, faults = random.Random(arguments.seed), Counter[int](), []
    with tempfile.TemporaryDirectory() as folder, cleaned(Path(folder)):
        shell = Shell(made(Path(folder) / "made"))
        (shell.folder / "row.json").write_text(ROW)
        for _ in range(arguments.moments):
            command = chance.choice(list(LONGEST))
            left = interrupt(shell, command, chance.uniform(0, LONGEST[command]), chance.choice((1, 1, 3)))
            codes[left.code] += 1
            if command == ("up",):
                shell.done("down")
            faults += [
                f"{' '.join(command)} after {left.after:.2f} s: {fault}: {left.screen.decode(errors='replace')[-300:]}"
                for fault in left.faults
            ]
        shell("down")
        for flow in shell.done("flow", "list"):
            shell("flow", "cancel", flow["id"])
        rows = shell.done("data", "log", "flights")[0]["rows"]
        if not shell.done("audit", "verify")["ok"] or rows != 4243 or shell.done("flow", "list") or shell.processes():
            faults.append(f"at the end: {rows} rows, processes {shell.processes()}")
    print("\n".join(faults), file=sys.stderr)
    print(
        f"Ctrl-C at {arguments.moments} moments of {len(LONGEST)} commands: {codes[130]} interrupted, {codes[0]} done before, "
        f"{len(faults)} faults; the log verifies, {rows:,} rows are there"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
