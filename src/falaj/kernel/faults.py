"""What project code did wrong, for the person who wrote it.

What an exception says may hold the values of a row. So it goes into an error's details, which whoever asked is shown; the
message, which the audit log keeps for good, names the kind of exception and its place only.
"""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Any

_LONGEST = 300  # characters of what an exception says
_FRAMES = 5  # the innermost that a person is shown
_PACKAGE = Path(__file__).parents[1]
_STANDARD = Path(os.__file__).parent


def place(error: BaseException) -> str:
    """` in sales.py, line 12`: the innermost line of the project's own code; empty where it had no part in it."""
    own = _own(error)
    return f" in {Path(own[-1].filename).name}, line {own[-1].lineno}" if own else ""


def told(error: BaseException) -> dict[str, Any]:
    """An error's details: `said`, what the exception says, and `shown`, the project's own frames and that."""
    first = (str(error).strip().splitlines() or [""])[0][:_LONGEST]
    said = f"{type(error).__name__}: {first}" if first else type(error).__name__
    lines = [f"{Path(f.filename).name}, line {f.lineno}, in {f.name}: {f.line}" for f in _own(error)[-_FRAMES:]]
    return {"said": said, "shown": [*lines, said]}


def _own(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames that are neither a library's, nor Python's, nor ours."""
    return [f for f in traceback.extract_tb(error.__traceback__) if _is_own(Path(f.filename))]


def _is_own(path: Path) -> bool:
    foreign = {"site-packages", "dist-packages"} & set(path.parts)
    return path.suffix == ".py" and not foreign and not any(map(path.is_relative_to, (_PACKAGE, _STANDARD)))
