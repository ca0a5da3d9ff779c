"""Models that do harm are imported: nothing happens outside the sandbox, and each is refused with a reason.

    python proofs/malicious.py [--only WORDS]

Every case of `_malicious.py` goes through the import step as `falaj import` runs it, beside a trap: a folder, a secret, listeners,
another process. The control comes after: the same pickles without the sandbox, where the trap must tell of each that can be told.

Exits 1 when one case has an effect, when one is not refused, or when the control shows nothing.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "proofs")]

from _malicious import CASES, Case, Trap, free_effects  # noqa: E402  # the paths come first

from falaj.kernel.errors import FalajError  # noqa: E402
from falaj.lifecycle.training.foreign import Declared, ImportTask  # noqa: E402
from falaj.lifecycle.training.model import Input  # noqa: E402
from falaj.lifecycle.training.steps.foreign.run import run  # noqa: E402
from falaj.workflow.confine import supported  # noqa: E402

SAID = Declared(task="regression", inputs=(Input("a", "float"), Input("b", "float")))


class Silent:
    """Reports to nobody."""

    def progress(self, text: str, done: int = 0, total: int = 0) -> None:
        """Say nothing."""

    def metric(self, key: str, value: float, step: int) -> None:
        """Keep nothing."""


def attempt(case: Case, trap: Trap, workspace: Path) -> tuple[str, list[str]]:
    """Import a case; returns why it was refused (empty when it was not) and what happened outside."""
    source = workspace / "given" / "source"
    source.mkdir(parents=True)
    case.write(source, trap)
    task = ImportTask(
        "evil", case.kind, str(workspace / "given"), str(workspace), SAID, (), hidden=(str(trap.home),),
        memory_mb=1500, seconds=8, patience=8,
    )  # fmt: skip
    try:
        run(task, None, Silent())
    except FalajError as e:
        told = f"{e.message} {e.hint} {e.details}"
        reason = f"{e.code}: {e.message}"
    else:
        told = reason = ""
    if case.effect:
        time.sleep(0.8 if "daemon" in case.name else 0.0)
    return reason, trap.effects(told)


def main() -> int:
    """Run it; the exit status says whether it held."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="only the cases with these words in their names")
    only = parser.parse_args().only
    cases = [c for c in CASES if only in c.name]
    if why := supported():
        sys.stdout.write(f"malicious: no sandbox on this machine ({why}): nothing was tried\n")
        return 1
    effects = refused = shown = 0
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="falaj-malicious-") as root:
        trap = Trap(Path(root) / "trap")
        try:
            for n, case in enumerate(cases):
                reason, found = attempt(case, trap, Path(root) / str(n))
                effects, refused = effects + bool(found), refused + bool(reason)
                sys.stderr.write(f"{case.name}: {'; '.join(found) or 'no effect'}; {reason[:150] or 'NOT REFUSED'}\n")
                trap.reset()
            control = [c for c in cases if c.effect]
            for case in control:
                found = free_effects(case, trap)
                shown += bool(found)
                sys.stderr.write(f"without a sandbox: {case.name}: {'; '.join(found) or 'NO EFFECT'}\n")
                trap.reset()
        finally:
            trap.close()
    held = effects == 0 and refused == len(cases) and shown == len(control)
    sys.stdout.write(
        f"malicious: {len(cases)} models, {effects} with an effect outside, {refused} refused with a reason; control without a "
        f"sandbox: {shown} of {len(control)} with an effect; {time.perf_counter() - started:.0f} s, {platform.release()}\n"
    )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
