"""Whether an output is the one that a page shows, apart from what differs each time.

`…` in a shown line stands for anything; a line of `…` alone stands for any lines. Names that are made anew each time
(ids, digests, tokens, addresses, times) and figures that are measured compare equal; whole numbers must be the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_NAMES = re.compile(
    "|".join(
        (
            r"sha256:[0-9a-f]{64}",
            r"https?://127\.0\.0\.1:\d+",
            r"\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d+)?)?Z",
            r"\b[a-z]{1,8}_[0-9a-hjkmnp-tv-z]{20,26}(?:_[0-9a-f]+)?\b",
            r"\bfalaj_[0-9a-z]{16}_[0-9A-Za-z_-]+",
            r"[A-Za-z0-9+/]{43}=",
            r"\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44}",
            r"\b(?=[0-9a-z]*\d)[0-9a-hjkmnp-tv-z]{26}\b",
            r"\b(?=[0-9a-z]*\d)[0-9a-hjkmnp-tv-z]{16}\b",
            r"\b(?=[0-9a-f]*[0-9])(?=[0-9a-f]*[a-f])[0-9a-f]{12}\b|\b[0-9]{12}\b",
            r"(?<=pid )\d+|(?<=kill )\d+|(?<=process )\d+",
        )
    )
)
"""What is made anew each time; one that is shown stands for the one that came, also in later commands."""
_FIGURES = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)? (?:s|ms|d|h|min|KiB|MiB)\b|[-+]?\d[\d,]*\.\d+(?:e[-+]?\d+)?")


def differences(shown: Sequence[str], came: Sequence[str]) -> str:
    """Nothing when the output is the one that is shown; else the first line that is not."""
    wanted, found = list(shown), list(came)
    for lines in (wanted, found):
        while lines and not lines[-1].strip():
            lines.pop()
    reached = _match(wanted, found)
    if reached is None:
        return ""
    line = wanted[reached] if reached < len(wanted) else "(the end)"
    return f"not as shown from this line on: {line}"


def learn(shown: Sequence[str], came: Sequence[str]) -> dict[str, str]:
    """Shown name → the one that came, from the lines that are alike."""
    found: dict[str, str] = {}
    for line in shown:
        for other in came:
            if line.strip() != "…" and _like(line, other):
                # Of a line with `…` in it, only the names before the first of them stand in the same places.
                found |= dict(zip(_NAMES.findall(line.partition("…")[0]), _NAMES.findall(other), strict=False))
                break
    return {k: v for k, v in found.items() if k != v}


def _plain(line: str) -> str:
    return re.sub(r"\s+", " ", _FIGURES.sub("0.0 ", _NAMES.sub("NAME", line))).strip()


def _like(shown: str, came: str) -> bool:
    if "…" not in shown:
        return _plain(shown) == _plain(came)
    # A name may be cut off (`sha256:…`), so such a line is also compared as it stands.
    return _fits(_plain(shown), _plain(came)) or _fits(" ".join(shown.split()), " ".join(came.split()))


def _fits(shown: str, came: str) -> bool:
    return re.fullmatch(".*".join(re.escape(part) for part in shown.split("…")), came) is not None


def _match(shown: list[str], came: list[str]) -> int | None:
    """None when all is alike; else how many shown lines were matched at most."""
    best = 0
    states = {0}  # how many of the lines that came may be used up by the shown lines so far
    for number, line in enumerate(shown):
        if line.strip() == "…":
            states = set(range(min(states), len(came) + 1))
        else:
            states = {at + 1 for at in states if at < len(came) and _like(line, came[at])}
        if not states:
            return number
        best = number + 1
    return None if len(came) in states else best
