"""SVG drawn from numbers. Nothing but numbers and our own class names enters the markup, so it needs no escaping.

Points that are not finite leave a gap. Colours, fonts and strokes come from the style sheet by class;
names and captions belong in the page around the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

Points = Sequence[tuple[float, float]]

_MOST_POINTS = 400
_HUGE = 1e150
LINES = 6
"""Lines that have a look of their own; a seventh is drawn like the first."""


def drawable(x: float, y: float) -> bool:
    """Whether a point can stand in a picture: finite, and not so large that a difference overflows."""
    return abs(x) <= _HUGE and abs(y) <= _HUGE  # false for NaN and infinities as well


def number(value: float) -> str:
    """A coordinate: at most two decimals, no trailing zeros, never '-0'."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def thin(points: Points, most: int = _MOST_POINTS) -> list[tuple[float, float]]:
    """At most about `most` points that keep the shape: of each bucket its lowest and its highest, and both ends."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / max(1, most // 2))
    kept = {0, len(points) - 1}
    for start in range(0, len(points), size):
        bucket = [i for i in range(start, min(start + size, len(points))) if drawable(*points[i])]
        if bucket:
            kept.add(min(bucket, key=lambda i: points[i][1]))
            kept.add(max(bucket, key=lambda i: points[i][1]))
    return [points[i] for i in sorted(kept)]


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers inside [low, high], about `count` of them, in steps of 1, 2 or 5 times a power of ten."""
    if not drawable(low, high):
        return []
    if high - low <= max(1e-300, 1e-12 * max(abs(low), abs(high))):
        return [low]
    raw = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def label(value: float) -> str:
    """A number for people on an axis: four significant digits, thousands as k and M."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= limit * 10:
            return f"{value / limit:.4g}{unit}"
    return f"{value:.4g}"


class _Scale:
    """Maps data to a picture's box; a flat line runs through its middle."""

    def __init__(self, lines: Sequence[Points], box: tuple[float, float, float, float]) -> None:
        finite = [(x, y) for line in lines for x, y in line if drawable(x, y)]
        xs, ys = [x for x, _ in finite], [y for _, y in finite]
        self.low_x, self.high_x = (min(xs), max(xs)) if xs else (0.0, 1.0)
        self.low_y, self.high_y = (min(ys), max(ys)) if ys else (0.0, 1.0)
        self.left, self.top, self.right, self.bottom = box
        self.empty = not finite

    def x(self, value: float) -> float:
        span = self.high_x - self.low_x
        share = (value - self.low_x) / span if span > 0 else 0.5
        return self.left + share * (self.right - self.left)

    def y(self, value: float) -> float:
        span = self.high_y - self.low_y
        share = (value - self.low_y) / span if span > 0 else 0.5
        return self.bottom - share * (self.bottom - self.top)


def _path(points: Points, scale: _Scale) -> str:
    """The `d` of a line; a point that is not finite lifts the pen."""
    parts: list[str] = []
    drawing = False
    for x, y in points:
        if not drawable(x, y):
            drawing = False
            continue
        parts.append(f"{'L' if drawing else 'M'}{number(scale.x(x))} {number(scale.y(y))}")
        drawing = True
    return "".join(parts)


def _svg(kind: str, width: int, height: int, body: list[str]) -> Markup:
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    head = f'<svg class="chart {kind}" {size} aria-hidden="true">'
    return Markup(head + "".join(body) + "</svg>")  # noqa: S704 - numbers and our own class names only


def sparkline(lines: Sequence[Points], width: int = 240, height: int = 56) -> Markup:
    """Small lines without axes; a dot marks where the last one ends. Nothing finite gives an empty Markup."""
    scale = _Scale(lines, (3, 4, width - 5, height - 4))
    if scale.empty:
        return Markup("")
    body = []
    for i, points in enumerate(lines):
        path = _path(thin(points, width), scale)
        if path:
            body.append(f'<path class="line line-{i % LINES}" d="{path}"/>')
    for i, points in enumerate(lines):
        ends = [(x, y) for x, y in points if drawable(x, y)]
        if ends:
            cx, cy = number(scale.x(ends[-1][0])), number(scale.y(ends[-1][1]))
            body.append(f'<circle class="dot dot-{i % LINES}" cx="{cx}" cy="{cy}" r="2.5"/>')
    return _svg("sparkline", width, height, body)


def curve(lines: Sequence[Points], width: int = 560, height: int = 220) -> Markup:
    """Lines with axes: iterations to the right, values upwards. Nothing finite gives an empty Markup."""
    scale = _Scale(lines, (52, 10, width - 10, height - 26))
    if scale.empty:
        return Markup("")
    body = []
    for value in ticks(scale.low_y, scale.high_y):
        y = number(scale.y(value))
        body.append(f'<path class="grid" d="M{number(scale.left)} {y}H{number(scale.right)}"/>')
        body.append(f'<text class="tick tick-y" x="{number(scale.left - 8)}" y="{y}">{label(value)}</text>')
    for value in ticks(scale.low_x, scale.high_x, 6):
        if value == int(value):
            x = number(scale.x(value))
            body.append(f'<text class="tick tick-x" x="{x}" y="{number(height - 6)}">{label(value)}</text>')
    for i, points in enumerate(lines):
        path = _path(thin(points), scale)
        if path:
            body.append(f'<path class="line line-{i % LINES}" d="{path}"/>')
        if len(points) == 1 and path:
            cx, cy = number(scale.x(points[0][0])), number(scale.y(points[0][1]))
            body.append(f'<circle class="dot dot-{i % LINES}" cx="{cx}" cy="{cy}" r="3"/>')
    return _svg("curve", width, height, body)


def bullet(value: float, limit: float, at_least: bool, width: int = 160, height: int = 14) -> Markup:
    """A value as a bar from zero, its limit as a tick, the forbidden side hatched by class.

    The picture ends at 1 when both lie in [0, 1] and the limit is a lower one above 0.1 (a share),
    else a fifth beyond the larger. Negative or not finite: an empty Markup.
    """
    if not drawable(value, limit) or value < 0 or limit < 0:
        return Markup("")
    share = at_least and 0.1 < limit <= 1 and value <= 1
    end = 1.0 if share else max(value, limit) * 1.2 or 1.0
    passed = value >= limit if at_least else value <= limit
    at = limit / end * width
    bar = max(1.5, value / end * width)
    start, length = (0.0, at) if at_least else (at, width - at)
    look = "passed" if passed else "missed"
    body = [
        f'<rect class="track" x="0" y="3" width="{width}" height="{height - 6}" rx="2"/>',
        f'<rect class="forbidden" x="{number(start)}" y="3" width="{number(length)}" height="{height - 6}" rx="2"/>',
        f'<rect class="bar {look}" x="0" y="5" width="{number(bar)}" height="{height - 10}" rx="1"/>',
        f'<path class="limit" d="M{number(at)} 0V{height}"/>',
    ]
    return _svg("bullet", width, height, body)


def share_bar(part: float, whole: float, width: int = 64, height: int = 6) -> Markup:
    """`part` of `whole` as a small bar; a part that is not nothing shows at least 1.5 px."""
    if not drawable(part, whole) or whole <= 0 or part < 0:
        return Markup("")
    length = min(width, part / whole * width)
    length = max(1.5, length) if part > 0 else 0
    body = [
        f'<rect class="track" x="0" y="0" width="{width}" height="{height}" rx="3"/>',
        f'<rect class="part" x="0" y="0" width="{number(length)}" height="{height}" rx="3"/>',
    ]
    return _svg("share", width, height, body)


def reach(before: float, weight: float, mirrored: bool = False, width: int = 240, height: int = 80) -> Markup:
    """One step of a channel that splits: the stable version's water above, the challenger's `weight` percent below.

    The wall between them runs from where `before` percent put it. A mirrored step has a ditch beside the channel: the
    challenger's answers to copies of the requests, which nobody gets. Not finite or outside 0 … 100: an empty Markup.
    """
    if not drawable(before, weight) or not (0 <= before <= 100 and 0 <= weight <= 100):
        return Markup("")
    gap, bend = 3.0, width * 0.4
    walls = [height * (1 - w / 100) for w in (before, weight)]
    above = [y - gap / 2 if 0 < y < height else y for y in walls]
    below = [y + gap / 2 if 0 < y < height else y for y in walls]

    def edge(y: list[float]) -> str:
        """From the left end of the wall to the right one."""
        middle, start, end = number(bend / 2), number(y[0]), number(y[1])
        return f"C{middle} {start} {middle} {end} {number(bend)} {end}H{width}"

    body = []
    if min(walls) < height:
        body.append(f'<path class="arm challenger" d="M0 {number(below[0])}{edge(below)}V{height}H0Z"/>')
    if max(walls) > 0:
        body.insert(0, f'<path class="arm stable" d="M0 {number(above[0])}{edge(above)}V0H0Z"/>')
    if mirrored:
        body.append(f'<rect class="arm mirrored" x="0" y="{height + 4}" width="{width}" height="10"/>')
    size = f'viewBox="0 0 {width} {height + 16}" preserveAspectRatio="none"'
    return Markup(f'<svg class="split-water" {size} aria-hidden="true">' + "".join(body) + "</svg>")  # noqa: S704 - numbers only


def pairs(reference: Sequence[float], current: Sequence[float], width: int = 320, height: int = 96) -> Markup:
    """Shares of the same bins side by side: the reference's bar, then the window's, on one scale from zero.

    A share that is not nothing shows at least 1 px. No bins, or as many as one has not: an empty Markup.
    """
    shares = [*reference, *current]
    if not reference or len(reference) != len(current) or not all(drawable(s, s) and s >= 0 for s in shares):
        return Markup("")
    top, slot, floor = max(shares) or 1.0, width / len(reference), height - 1
    body = []
    for i, (p, q) in enumerate(zip(reference, current, strict=True)):
        for kind, share, at in (("was", p, 0.12), ("is", q, 0.5)):
            tall = max(1.0, share / top * (floor - 3)) if share > 0 else 0.0
            x, y, wide = number((i + at) * slot), number(floor - tall), number(0.38 * slot)
            body.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{wide}" height="{number(tall)}"/>')
    body.append(f'<path class="grid" d="M0 {floor}H{width}"/>')
    return _svg("pairs", width, height, body)


def against(value: float, limit: float, floor: float, width: int = 160, height: int = 14) -> Markup:
    """A value from zero beside two limits: `limit` as a tick, `floor`, below which it may be chance, as a dashed one.

    Only what is above both is drawn as missed. Negative or not finite: an empty Markup.
    """
    if not (drawable(value, limit) and drawable(floor, 0)) or min(value, limit, floor) < 0:
        return Markup("")
    end = max(value, limit, floor) * 1.15 or 1.0
    bar = max(1.5, value / end * width)
    look = "missed" if value > max(limit, floor) else "passed"
    body = [
        f'<rect class="track" x="0" y="3" width="{width}" height="{height - 6}" rx="2"/>',
        f'<rect class="bar {look}" x="0" y="5" width="{number(bar)}" height="{height - 10}" rx="1"/>',
        f'<path class="limit" d="M{number(limit / end * width)} 0V{height}"/>',
        f'<path class="floor" d="M{number(floor / end * width)} 0V{height}"/>',
    ]
    return _svg("bullet", width, height, body)


def duel(stable: float, challenger: float, margin: float, width: int = 160, height: int = 18) -> Markup:
    """Two values in [0, 1] as bars from zero; the tick is how far the challenger's may go: `margin` above the other."""
    if not (drawable(stable, challenger) and drawable(margin, 0)) or min(stable, challenger) < 0:
        return Markup("")
    allowed = max(0.0, stable + margin)
    end = min(1.0, max(challenger, stable, allowed) * 1.15) or 1.0
    look = "over" if challenger > allowed else ""
    bars = [
        f'<rect class="{kind}" x="0" y="{y}" width="{number(min(width, value / end * width))}" height="6" rx="1"/>'
        for kind, value, y in (("stable", stable, 2), (f"challenger {look}".strip(), challenger, 10))
    ]
    track = f'<rect class="track" x="0" y="0" width="{width}" height="{height}" rx="2"/>'
    tick = f'<path class="limit" d="M{number(min(width - 1, allowed / end * width))} 0V{height}"/>'
    return _svg("duel", width, height, [track, *bars, tick])


def evidence(value: float, needed: float, width: int = 64, height: int = 6) -> Markup:
    """How far an e-value has come to what is needed, on a logarithmic scale: 1 is nothing, `needed` is all."""
    if not (value >= 0 and needed > 1 and math.isfinite(needed)):
        return Markup("")
    part = math.log(min(value, needed)) / math.log(needed) if value > 1 else 0.0
    return share_bar(part, 1.0, width, height)
