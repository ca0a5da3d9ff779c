"""The loop does what it does because of the data: the same year told in other ways.

    python proofs/loop.py [--sample] [--only NAME …]

Each telling is a whole `falaj demo` on a home of its own, from raw files to the proof of the log:

usual       seasons drift: a retraining is started by the platform, beats the champion and is promoted
shuffled    every recorded day gets another date, so nothing drifts: no drift incident, no retraining
unbeaten    a retraining must be better by 0.5 of ROC AUC, which none is: each is refused, the first version serves on
airport     only JFK; unchanged otherwise
late        a flight is late from 30 minutes on
seed        another seed in training

Every telling must end well: no failed request, the rollbacks done, the log verified. `shuffled` and `unbeaten` are
each other's negative control: the first would be worthless if nothing ever started a retraining, the second if
every retraining were promoted. Exits 1 when a telling does not end as it must. `--sample` tells `shuffled` alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import msgspec  # noqa: E402  the path comes first

SECONDS = 1200
FALAJ = "from falaj.entrypoints.cli.app import main; main()"


class Telling(msgspec.Struct, frozen=True):
    """What one telling came to."""

    incidents: int
    retrainings: int
    promoted: int
    unbeaten: int
    failed: int
    ended: bool
    serving: str
    seconds: float


def told(*options: str) -> Telling:
    """Run the demo with these options on a new home. Raises RuntimeError when it does not end."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="falaj-loop-") as folder:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("FALAJ_")}
        command = [sys.executable, "-c", FALAJ, "demo", "--exit", "--json", *options]
        environ |= {"FALAJ_HOME": str(Path(folder) / "home"), "PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"the demo ended with {done.returncode}: {(done.stdout + done.stderr)[-800:]}")
    events = [msgspec.json.decode(line, type=dict[str, Any]) for line in done.stdout.splitlines()]
    return read(events, time.perf_counter() - began)


def read(events: list[dict[str, Any]], seconds: float) -> Telling:
    """What the events of a telling say."""

    def those(kind: str, text: str) -> list[dict[str, Any]]:
        return [e for e in events if e["event"] == kind and text in e["subject"]]

    (year,) = (e["detail"] for e in those("done", "times the clock moved on"))
    (table,) = (e["detail"]["rows"] for e in those("note", "What stands where"))
    rolled = those("done", "verdict → no traffic")  # says how many requests failed up to then, in the year and after it
    serving = [row[0] for row in table if row[1] == "serving" and row[0].startswith("flight-delay@")]
    return Telling(
        incidents=year["incidents"],
        retrainings=year["retrainings"],
        promoted=len(those("done", "promoted step by step")),
        unbeaten=len(those("refused", "does not beat the champion")),
        failed=int(rolled[-1]["subject"].rpartition("failed requests ")[2]) if rolled else year["failed"],
        ended=bool(those("done", "audited changes")) and bool(rolled),
        serving=serving[0] if serving else "",
        seconds=seconds,
    )


def usual(t: Telling) -> bool:
    return t.incidents > 0 and t.retrainings > 0 and t.promoted > 0 and t.serving != ""


def quiet(t: Telling) -> bool:
    return t.incidents == 0 and t.retrainings == 0 and t.serving == "flight-delay@1"


def unbeaten(t: Telling) -> bool:
    return t.retrainings > 0 and t.unbeaten == t.retrainings and t.promoted == 0 and t.serving == "flight-delay@1"


def any_way(t: Telling) -> bool:
    return t.serving != ""


TELLINGS: dict[str, tuple[list[str], Callable[[Telling], bool]]] = {
    "usual": ([], usual),
    "shuffled": (["--shuffle", "7"], quiet),
    "unbeaten": (["--better-by", "0.5"], unbeaten),
    "airport": (["--airports", "JFK"], any_way),
    "late": (["--late-minutes", "30"], any_way),
    "seed": (["--seed", "3"], any_way),
}


def well(name: str, t: Telling) -> bool:
    """Whether a telling ended as it must."""
    return TELLINGS[name][1](t) and t.ended and t.failed == 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sample", action="store_true", help="tell `shuffled` alone")
    parser.add_argument("--only", nargs="+", choices=TELLINGS, default=list(TELLINGS))
    chosen = parser.parse_args()
    said, wrong = [], []
    for name in ["shuffled"] if chosen.sample else chosen.only:
        t = told(*TELLINGS[name][0])
        if not well(name, t):
            wrong.append(name)
        said.append(
            f"{name}: {t.incidents} drift incidents, {t.retrainings} retrainings ({t.promoted} promoted, {t.unbeaten} unbeaten), "
            f"{t.failed} failed requests, {t.serving} serves, {t.seconds:.0f} s"
        )
        sys.stderr.write(said[-1] + "\n")
    verdict = f"NOT as they must be: {', '.join(wrong)}" if wrong else "each as it must be"
    sys.stdout.write(f"loop: {len(said)} tellings of the year, {verdict}. {'; '.join(said)}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
