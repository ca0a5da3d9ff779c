"""A sample of the proof of hops; all of it is `make prove NAME=hops`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROOF = Path(__file__).parents[2] / "proofs" / "hops.py"


def proved(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, PROOF, "--sample", *arguments], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("hops: "), f"needs a network namespace (unshare of util-linux): {done.stderr}"
    return done


def test_nothing_gets_through_but_the_right_one() -> None:
    done = proved()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("hops: 41 of 41 cells of 8 hops as they should be")


def test_without_the_check_of_identities_the_proof_does_not_hold() -> None:
    done = proved("--broken")
    assert done.returncode == 1
    hops = {line.partition(",")[0] for line in done.stderr.splitlines() if line.endswith("2 SANs: answered")}
    assert len(hops - {""}) >= 5, done.stderr
    replayed = [line for line in done.stderr.splitlines() if line.endswith("replayed: answered")]
    assert len(replayed) == 4, done.stderr  # tokens over others' certificates, at both planes
