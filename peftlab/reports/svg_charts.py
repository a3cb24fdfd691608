"""Charts as SVG text: the same figures give the same bytes. Colours follow the reader's light or dark setting.

A mark that has a `<title>` says its figures when pointed at; a page may show that text in a better place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

STYLE = """
.chart{--ink:#1f2933;--faint:#7b8794;--grid:#e4e7eb;--mark:#0b5cad;--accent:#b3261e;--band:#0b5cad22;--back:#ffffff;
font:13px system-ui,-apple-system,"Segoe UI",sans-serif;background:var(--back);max-width:100%;height:auto}
@media (prefers-color-scheme:dark){.chart{--ink:#e4e7eb;--faint:#9aa5b1;--grid:#323f4b;--mark:#7cc4fa;--accent:#ff9b93;
--band:#7cc4fa2e;--back:#161b22}}
.chart text{fill:var(--ink)}.chart .small{fill:var(--faint);font-size:12px}.chart .grid{stroke:var(--grid)}
.chart .axis{stroke:var(--faint)}.chart .point circle{fill:var(--mark)}
.chart .point line{stroke:var(--mark);stroke-width:1.6}
.chart .off circle{fill:var(--back);stroke:var(--mark);stroke-width:2}
.chart .front{fill:none;stroke:var(--mark);stroke-dasharray:3 4;opacity:.8}
.chart .target{stroke:var(--accent);stroke-width:1.4}
.chart .targetname{fill:var(--accent)}.chart .band{fill:var(--band)}
.chart .point:focus circle{stroke:var(--ink);stroke-width:2}
.chart .ideal{stroke:var(--faint);stroke-dasharray:4 4}.chart .curve{fill:none;stroke-width:1.8}
""".strip()

WIDTH, HEIGHT = 760, 430
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 24, 20, 52
_HUES = (210, 25, 140, 280, 0, 180, 320, 55, 100, 240, 345)


@dataclass(frozen=True)
class Point:
    """A recipe in a chart: its place, the ends of its interval, its name, what it says when pointed at."""

    name: str
    x: float
    y: float
    low: float
    high: float
    says: str
    hollow: bool = False


@dataclass(frozen=True)
class Curve:
    """A line through points (x, y) with a name."""

    name: str
    points: tuple[tuple[float, float], ...]


def scatter(
    points: Sequence[Point],
    *,
    title: str,
    across: str,
    front: Sequence[str] = (),
    target: float | None = None,
    band: tuple[str, float, float] | None = None,
    upward: str = "test accuracy",
) -> str:
    """Return accuracy (with intervals) against a cost on a logarithmic axis.

    `front`: names on the Pareto front, joined by steps; `target`: a line; `band`: name and ends of a shaded range.
    """
    lows, highs = [p.low for p in points], [p.high for p in points]
    edges = [*lows, *highs, *([target] if target is not None else []), *(band[1:] if band else ())]
    bottom, top = min(edges), max(edges)
    room = max(0.004, (top - bottom) * 0.12)
    up = _Axis(max(0.0, bottom - room), min(1.0, top + room), HEIGHT - _BOTTOM, _TOP)
    along = _Axis(
        math.log10(min(p.x for p in points)) - 0.25, math.log10(max(p.x for p in points)) + 0.45, _LEFT, WIDTH - _RIGHT
    )
    parts = [_grid(up, [(along.at(math.log10(tick)), _short(tick)) for tick in _decades(along)], across, upward)]
    if band is not None:
        name, low, high = band
        y, tall = up.at(high), up.at(low) - up.at(high)
        parts.append(
            f'<rect class="band" x="{_LEFT}" y="{y:.1f}" width="{WIDTH - _LEFT - _RIGHT}" height="{tall:.1f}"/>'
        )
        parts.append(f'<text class="small" x="{_LEFT + 6}" y="{y + 14:.1f}">{escape(name)}</text>')
    if target is not None:
        y = up.at(target)
        parts.append(f'<line class="target" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        where = f'x="{WIDTH - _RIGHT}" y="{y - 5:.1f}" text-anchor="end"'
        parts.append(f'<text class="targetname" {where}>target {target:g}</text>')
    steps = [p for p in sorted(points, key=lambda p: (p.x, p.name)) if p.name in front]
    if len(steps) > 1:
        path = f"M{along.at(math.log10(steps[0].x)):.1f} {up.at(steps[0].y):.1f}"
        path += "".join(f"H{along.at(math.log10(p.x)):.1f}V{up.at(p.y):.1f}" for p in steps[1:])
        parts.append(f'<path class="front" d="{path}"/>')
    parts += _marks(points, along, up)
    return _svg(title, parts)


def curves(
    lines: Sequence[Curve], *, title: str, across: str, upward: str, square: bool = False, fixed: bool = False
) -> str:
    """Return curves with a legend; `square` draws the diagonal of equal values, `fixed` lets both axes go 0 to 1."""
    xs, ys = [x for line in lines for x, _ in line.points], [y for line in lines for _, y in line.points]
    low_x, high_x, low_y, high_y = (0.0, 1.0, 0.0, 1.0) if fixed else (min(xs), max(xs), min(ys), max(ys))
    room = 0.0 if fixed else max(1e-9, (high_y - low_y) * 0.06)
    up = _Axis(low_y - room, high_y + room, HEIGHT - _BOTTOM, _TOP)
    along = _Axis(low_x, max(high_x, low_x + 1e-9), _LEFT, WIDTH - 190)
    ticks = [(along.at(tick), f"{tick:g}") for tick in _even(along)]
    parts = [_grid(up, ticks, across, upward)]
    if square:
        ends = f'x1="{along.at(0):.1f}" y1="{up.at(0):.1f}" x2="{along.at(1):.1f}" y2="{up.at(1):.1f}"'
        parts.append(f'<line class="ideal" {ends}/>')
    for place, line in enumerate(lines):
        colour = f"hsl({_HUES[place % len(_HUES)]} 65% 52%)"
        path = "M" + "L".join(f"{along.at(x):.1f} {up.at(y):.1f}" for x, y in line.points)
        parts.append(
            f'<path class="curve" style="stroke:{colour}" d="{path}"><title>{escape(line.name)}</title></path>'
        )
        y = _TOP + 14 + 20 * place
        parts.append(f'<rect x="{WIDTH - 178}" y="{y - 9}" width="14" height="4" style="fill:{colour}"/>')
        parts.append(f'<text class="small" x="{WIDTH - 158}" y="{y}">{escape(line.name[:24])}</text>')
    return _svg(title, parts)


@dataclass(frozen=True)
class _Axis:
    """A linear scale from values to places in the picture."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _marks(points: Sequence[Point], along: _Axis, up: _Axis) -> Iterable[str]:
    """Yield each point with its interval and its name, names moved apart where they would meet."""
    taken: list[tuple[float, float, float]] = []
    for p in sorted(points, key=lambda p: (-p.y, p.name)):
        x, y = along.at(math.log10(p.x)), up.at(p.y)
        wide = 7.2 * len(p.name)
        left = x + 9 if x + 9 + wide < WIDTH - 4 else x - 9 - wide
        tall = y - 5  # above the steps of the front, which leave a point to the right
        while any(abs(tall - other) < 14 and left < end and start < left + wide for start, end, other in taken):
            tall += 4
        taken.append((left, left + wide, tall))
        shape = (
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{up.at(p.low):.1f}" y2="{up.at(p.high):.1f}"/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
        )
        kind = "point off" if p.hollow else "point"
        yield f'<g class="{kind}" tabindex="0"><title>{escape(p.says)}</title>{shape}</g>'
        yield f'<text x="{left:.1f}" y="{tall:.1f}">{escape(p.name)}</text>'


def _grid(up: _Axis, ticks: Sequence[tuple[float, str]], across: str, upward: str) -> str:
    parts, right = [], max([place for place, _ in ticks] + [WIDTH - _RIGHT if len(ticks) < 2 else 0])
    right = WIDTH - _RIGHT if "log" in across else right
    for tick in _even(up):
        y = up.at(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="small" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for x, name in ticks:
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text class="small" x="{x:.1f}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">{name}</text>')
    base = HEIGHT - _BOTTOM
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right:.1f}" y1="{base}" y2="{base}"/>')
    middle, height = (_LEFT + right) / 2, (_TOP + base) / 2
    parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - 10}" text-anchor="middle">{escape(across)}</text>')
    turned = f'transform="rotate(-90 16 {height:.1f})" text-anchor="middle"'
    parts.append(f'<text x="16" y="{height:.1f}" {turned}>{escape(upward)}</text>')
    return "".join(parts)


def _even(axis: _Axis) -> list[float]:
    """Return round values within the axis, four to eight of them."""
    raw = (axis.high - axis.low) / 5
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw)
    first = math.ceil(axis.low / step - 1e-9)
    return [round(step * n, 12) for n in range(first, math.floor(axis.high / step + 1e-9) + 1)]


def _decades(axis: _Axis) -> list[float]:
    """Return 1, 2 and 5 times powers of ten within a logarithmic axis; of many decades only the powers."""
    factors = (1,) if axis.high - axis.low > 2.5 else (1, 2, 5)
    powers = range(math.floor(axis.low), math.ceil(axis.high) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    return [tick for tick in ticks if axis.low <= math.log10(tick) <= axis.high]


def _short(value: float) -> str:
    for name, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g}{name}"
    return f"{value:g}"


def _svg(title: str, parts: Iterable[str]) -> str:
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    head = f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-label={quoteattr(title)}>'
    return head + "".join(parts) + "</svg>"


def standalone(svg: str) -> str:
    """Return the chart as a file of its own, with its style and background."""
    head, rest = svg.split(">", 1)
    return f'{head}><style>{STYLE}</style><rect width="100%" height="100%" style="fill:var(--back)"/>{rest}\n'
