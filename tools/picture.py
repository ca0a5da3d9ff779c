"""Draw the channel from `falaj.lifecycle.STAGES` into ARCHITECTURE.md: `python tools/picture.py`.

A test compares the two, so the picture cannot grow old.
"""

from __future__ import annotations

import re
from pathlib import Path

from falaj.lifecycle import STAGES

PAGE = Path(__file__).resolve().parent.parent / "ARCHITECTURE.md"
FRAME = re.compile(r"(?<=<!-- channel -->\n```text\n).*?(?=```\n<!-- /channel -->)", re.DOTALL)
TURN = 4  # stages before the channel turns back


def draw(stages: tuple[str, ...]) -> str:
    """The channel as text: the first half left to right, the second half below it, right to left."""
    width = max(len(s) for s in stages) + 2
    boxes = [f"|{s.center(width)}|" for s in stages]
    edge = "+" + "-" * width + "+"
    down, back = boxes[:TURN], boxes[: TURN - 1 : -1]
    first = ["    ".join([edge] * len(down)), " -> ".join(down)]
    second = ["    ".join([edge] * len(back)), " <- ".join(back)]
    length, middle = len(first[0]), len(edge) // 2
    turn = (" " * middle + "^ loop: drift, a schedule").ljust(length - middle - 1) + "v"
    return "\n".join([*first, first[0], turn, *(line.rjust(length) for line in (*second, second[0]))])


def replaced(page: str) -> str:
    """The page with the picture as it is now."""
    return FRAME.sub(lambda _: draw(STAGES) + "\n", page)


if __name__ == "__main__":
    PAGE.write_text(replaced(PAGE.read_text("utf-8")), "utf-8")
