"""What `--mend` does: closing secrets to others, removing what killed processes left. Nothing that holds anything."""

from __future__ import annotations

import shutil
from pathlib import Path

from falaj.bootstrap.doctor.folder import CHMOD, REMOVE
from falaj.bootstrap.doctor.model import OPEN, Finding, Report


def mend(report: Report) -> list[str]:
    """Do what is safe without opening the home; returns what was done, a line each."""
    return [_done(f) for f in report.findings if f.mend in (CHMOD, REMOVE) and Path(f.path).exists()]


def wants_opening(report: Report) -> bool:
    """Whether opening the home once would mend something: it publishes what the data planes lack, and finishes a
    rotation of a key."""
    return any(f.mend == OPEN for f in report.findings)


def _done(finding: Finding) -> str:
    path = Path(finding.path)
    if finding.mend == CHMOD:
        path.chmod(path.stat().st_mode & 0o7700)
        return f"{path} is for its owner only"
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    return f"{path} is removed"
