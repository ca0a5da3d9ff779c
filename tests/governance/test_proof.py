from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(script: str, *arguments: str, seconds: int = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / script), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)


def test_a_sample_of_the_proof_of_the_audit_log_holds() -> None:
    done = run("proofs/audit.py", "--entries", "260", "--sample", "60", "--workers", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("audit: ") and " files found, each in its file (260 and 3 entries" in line


def test_a_sample_of_the_writers_at_once_holds_and_a_lost_entry_is_told() -> None:
    done = run("proofs/audit_writers.py", "--changes", "40")
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("audit_writers: 640 entries of 16 writers x 40, contiguous, none twice, none lost: yes")
    lost = run("proofs/audit_writers.py", "--changes", "2", "--lose")
    assert lost.returncode == 1
    assert "1 lost" in lost.stderr


def test_the_bench_of_the_log_says_one_line_and_has_a_least() -> None:
    arguments = ("--seconds", "0.1", "--rounds", "1", "--entries", "1200", "--least-grouped", "0")
    done = run("bench/audit.py", *arguments, "--least-single", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("audit: durable appends ")
    assert run("bench/audit.py", *arguments, "--least-single", "1000").returncode == 1


def test_the_proof_fails_when_there_was_not_enough_time() -> None:
    done = run("proofs/audit.py", "--entries", "3", "--sample", "50", "--workers", "1", "--seconds", "0")
    assert done.returncode == 1
    assert "in 0 of " in done.stdout


def test_the_bench_of_the_metrics_writer_says_one_line() -> None:
    arguments = ("--seconds", "0.2", "--rounds", "1", "--limit-ms")
    done = run("bench/metrics_writer.py", *arguments, "60000")
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("metrics_writer: a change p50 ")
    assert run("bench/metrics_writer.py", *arguments, "0.001").returncode == 1


@pytest.mark.timeout(600)  # npm may have to be asked for the provider
def test_a_sample_of_the_hostile_tokens_is_refused_and_a_missing_check_is_told() -> None:
    done = run("proofs/tokens.py", "--every", "40", seconds=280)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = done.stdout.splitlines()
    assert re.match(r"tokens: 0 accepted of 2\d\d hostile tokens sent to both planes, ", line), line
    assert " 7 of 7 checks taken away let some through" in line
    broken = run("proofs/tokens.py", "--name", "another-client", "--break", "_check_parties", seconds=280)
    assert broken.returncode == 1 and "callback: aud 'another-client'" in broken.stderr


def test_a_sample_of_the_proof_of_the_logs_shards_holds() -> None:
    done = run("proofs/shards.py", "--every", "40", "--writers", "1", "--sample", "40", seconds=240)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("shards: ") and "13 deeds on shards and links named" in line and " 0 wrong" in line
